//! /admin/projections: where they stand, and how one is rebuilt.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::HttpState;
use super::super::body::CommandBody;
use super::super::openapi::problems::{RebuildProblems, StateProblems};
use super::super::problem::{HttpError, HttpResult};
use super::super::views::{answer, json};
use crate::answer::ProblemCode;
use crate::projector::Projection;
use crate::projector::rebuild::{Rebuild, RebuildError};
use crate::request::{Fault, Value, body, one_of, words};
use crate::store::{self, rebuild as tables};

/// Where each projector stands, parked wallets, the last rebuilds.
#[utoipa::path(
    get, path = "/admin/projections", tag = "admin", operation_id = "getProjections",
    responses((status = 200, description = "The state of the projections", body = tables::State), StateProblems)
)]
pub async fn status(State(state): State<HttpState>) -> HttpResult<Response> {
    let mut connection = store::acquire(&state.pools.upkeep).await?;
    let found = tables::state(&mut connection).await?;
    Ok(json(&found))
}

/// Rebuilds a projection from the events, wallet by wallet.
///
/// It runs on in the background; reads and projectors go on meanwhile. It needs the owner's login in
/// `DATABASE_MIGRATION_URL`: a service without it answers `forbidden`, and `wallex projections
/// rebuild` is the way.
#[utoipa::path(
    post, path = "/admin/projections/rebuild", tag = "admin", operation_id = "rebuildProjection",
    request_body = RebuildBody,
    responses((status = 202, description = "It runs", body = Rebuilding), RebuildProblems)
)]
pub async fn rebuild(
    State(state): State<HttpState>,
    CommandBody(RebuildBody { projection: kind }): CommandBody<RebuildBody>,
) -> HttpResult<Response> {
    let repairs = &state.repairs;
    let rebuild = Rebuild::open(&repairs.database, &repairs.events_topic, kind).await?;
    let stop = repairs.stop.clone();
    repairs.tasks.spawn(async move {
        let projector = kind.name();
        match rebuild.run(&stop, |_| {}).await {
            Ok(filled) => tracing::info!(projector, events = filled.events, "rebuilt"),
            Err(error) => tracing::error!(projector, %error, "not rebuilt"),
        }
    });
    Ok(answer(StatusCode::ACCEPTED, &Rebuilding { projector: kind.name() }))
}

body! {
    /// Which projection is rebuilt.
    pub struct RebuildBody {
        projection as "projection": &'static Projection,
    }
}

/// A rebuild that runs; `GET /admin/projections` shows how far it is.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rebuilding {
    projector: &'static str,
}

impl Value for &'static Projection {
    fn read(token: &str) -> Result<Self, Fault> {
        one_of(token, Projection::words().into_iter())
    }

    fn schema() -> utoipa::openapi::Schema {
        words(Projection::ALL.iter().map(|projection| projection.word))
    }
}

impl From<RebuildError> for HttpError {
    fn from(error: RebuildError) -> Self {
        let code = match error {
            RebuildError::Store(error) => return error.into(),
            RebuildError::Running => ProblemCode::RebuildRunning,
            RebuildError::NotOwner { .. } => ProblemCode::Forbidden,
            RebuildError::Archived(_) => ProblemCode::Archived,
            RebuildError::Stopped => ProblemCode::DatabaseUnavailable,
        };
        Self::new(code, error.to_string())
    }
}
