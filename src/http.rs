//! The only axum: every route on this page, handlers by resource in the files beside it.
//!
//! Commands go to `execute`, reads to `store`; nothing here decides about money. Every error is a
//! problem document, those of the framework included: [`context`] renders them all.

mod admin;
mod balance;
mod body;
mod bulk;
mod caller;
mod consistency;
mod context;
mod cursor;
mod explain;
mod health;
mod holds;
mod ledger;
mod openapi;
mod path;
mod problem;
mod query;
mod serve;
mod statements;
mod transactions;
mod upkeep;
mod views;
mod wallets;
mod zone;

use std::sync::Arc;

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::{DatabaseSettings, HttpSettings};
use crate::execute::Executor;
use crate::status::Status;
use crate::store::Pools;
use crate::topics;

pub use caller::{Caller, Callers, Scopes};
pub use openapi::document;
pub use serve::{Limits, serve};

/// What handlers may use. The router hands out a few clones for each request: they must be cheap.
#[derive(Clone)]
pub struct HttpState(Arc<Parts>);

impl HttpState {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for HttpState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What `app` wires HTTP with.
pub struct Parts {
    pub callers: Callers,
    pub executor: Executor,
    pub pools: Pools,
    pub status: Status,
    /// Fired whenever a projector of this instance has applied something.
    pub applied: Arc<Notify>,
    pub settings: HttpSettings,
    pub metrics: PrometheusHandle,
    pub repairs: Repairs,
    /// `/asyncapi.json`: it names the topics as they are called here.
    pub asyncapi: bytes::Bytes,
}

/// What the admin routes may set in motion.
#[derive(Debug, Clone)]
pub struct Repairs {
    /// The owner's connection is in it: a rebuild replaces a table.
    pub database: DatabaseSettings,
    pub events_topic: String,
    pub topics: topics::Wiring,
    /// Wakes the publisher.
    pub publisher: Arc<Notify>,
    /// Wakes the republisher.
    pub republisher: Arc<Notify>,
    /// Where a rebuild runs on after its request is answered, until `stop`.
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// Every route, once: the router and the document are both made of this. A handler's own
/// annotation has its method and path.
fn routes() -> OpenApiRouter<HttpState> {
    OpenApiRouter::with_openapi(openapi::base())
        // /wallets
        .routes(routes!(wallets::create))
        .routes(routes!(wallets::list))
        .routes(routes!(wallets::show))
        .routes(routes!(wallets::credit))
        .routes(routes!(wallets::debit))
        .routes(routes!(wallets::transfer))
        .routes(routes!(wallets::events))
        .routes(routes!(bulk::bulk))
        .routes(routes!(balance::show))
        .routes(routes!(explain::show))
        .routes(routes!(statements::show))
        .routes(routes!(transactions::show))
        .routes(routes!(upkeep::freeze))
        .routes(routes!(upkeep::suspend))
        .routes(routes!(upkeep::activate))
        .routes(routes!(upkeep::close))
        .routes(routes!(upkeep::limits))
        .routes(routes!(upkeep::metadata))
        // /holds
        .routes(routes!(holds::place))
        .routes(routes!(holds::list))
        .routes(routes!(holds::show))
        .routes(routes!(holds::adjust))
        .routes(routes!(holds::adjust_of_wallet))
        .routes(routes!(holds::capture))
        .routes(routes!(holds::capture_of_wallet))
        .routes(routes!(holds::release))
        .routes(routes!(holds::release_of_wallet))
        // /ledger
        .routes(routes!(ledger::wallet))
        .routes(routes!(ledger::summary))
        .routes(routes!(ledger::reference))
        .routes(routes!(ledger::transactions))
        .routes(routes!(health::ledger))
        // /health/kafka, /api/health, /livez, /readyz, /metrics
        .routes(routes!(health::kafka))
        .routes(routes!(health::kafka_stats))
        .routes(routes!(health::api))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        // /admin
        .routes(routes!(admin::dead_letters::list))
        .routes(routes!(admin::dead_letters::show))
        .routes(routes!(admin::dead_letters::replay))
        .routes(routes!(admin::dead_letters::quarantine))
        .routes(routes!(admin::outbox::status))
        .routes(routes!(admin::outbox::retry))
        .routes(routes!(admin::outbox::republish))
        .routes(routes!(admin::projections::status))
        .routes(routes!(admin::projections::rebuild))
        .routes(routes!(admin::reconcile::report))
        .routes(routes!(admin::topics::list))
        .routes(routes!(admin::topics::recommend))
        .routes(routes!(admin::topics::describe))
        .routes(routes!(admin::topics::ensure))
        .routes(routes!(admin::topics::delete))
        .routes(routes!(admin::topics::create_tenant))
        .routes(routes!(admin::topics::delete_tenant))
        // /, /openapi.json, /asyncapi.json, /docs
        .routes(routes!(openapi::page::home))
        .routes(routes!(openapi::page::icon))
        .routes(routes!(openapi::page::document))
        .routes(routes!(openapi::page::asyncapi))
        .routes(routes!(openapi::page::docs))
        .routes(routes!(openapi::page::file))
}

/// The whole API.
pub fn router(state: HttpState) -> Router {
    let (router, _) = routes().split_for_parts();
    let router = router
        .fallback(problem::route_not_found)
        .method_not_allowed_fallback(problem::method_not_allowed);
    context::wrap(router, state.callers.clone(), context::REQUEST_TIMEOUT).with_state(state)
}
