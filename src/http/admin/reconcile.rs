//! /admin/reconcile: are the books right? Reads only.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::Mutex;

use super::super::HttpState;
use super::super::openapi::problems::CheckProblems;
use super::super::problem::{HttpError, HttpResult};
use super::super::views::answer;
use crate::answer::ProblemCode;
use crate::projector::{LEDGER, READ_MODEL};
use crate::store::reconcile::{self, Bounds, Projectors};

/// A request is not waited for longer; the command has time for larger books.
const LIMIT: Duration = Duration::from_secs(20);

/// It reads all the books: once at a time.
static RUNNING: Mutex<()> = Mutex::const_new(());

/// Checks the tables against each other, from the events alone, each wallet in one snapshot.
///
/// `clean` says whether the books are right; lag is no failure. Books that cannot be read within the
/// request's time answer 503: use `wallex reconcile`.
#[utoipa::path(
    get, path = "/admin/reconcile", tag = "admin", operation_id = "reconcile",
    responses((status = 200, description = "What was found", body = reconcile::Report), CheckProblems)
)]
pub async fn report(State(state): State<HttpState>) -> HttpResult<Response> {
    let Ok(_running) = RUNNING.try_lock() else {
        return Err(HttpError::new(ProblemCode::Overloaded, "another check is running"));
    };
    let of = Projectors { ledger: LEDGER, read_model: READ_MODEL };
    let bounds = Bounds { a_question: LIMIT, in_all: Some(LIMIT) };
    let report = reconcile::checked(&state.pools.upkeep, of, None, bounds, |_| {}).await?;
    Ok(answer(StatusCode::OK, &report))
}
