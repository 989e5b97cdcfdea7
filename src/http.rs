//! The only axum: every route on this page, handlers by resource in the files beside it.
//!
//! Commands go to `execute`, reads to `store`; nothing here decides about money. Every error is a
//! problem document, those of the framework included: [`context::finish`] renders them all.

mod consistency;
mod context;
mod cursor;
mod fields;
mod health;
mod ledger;
mod path;
mod problem;
mod query;
mod serve;
mod wallets;

use axum::Router;
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::config::HttpSettings;
use crate::execute::Executor;
use crate::status::Status;
use crate::store::Pool;

pub use serve::serve;

/// What handlers may use.
#[derive(Clone)]
pub struct HttpState {
    pub executor: Executor,
    pub pool: Pool,
    pub status: Status,
    pub settings: HttpSettings,
    pub metrics: PrometheusHandle,
}

/// The whole API.
pub fn router(state: HttpState) -> Router {
    Router::new()
        .route("/wallets", post(wallets::create).get(wallets::list))
        .route("/wallets/{id}", get(wallets::show))
        .route("/wallets/{id}/credit", post(wallets::credit))
        .route("/wallets/{id}/debit", post(wallets::debit))
        .route("/wallets/{id}/transfer", post(wallets::transfer))
        .route("/wallets/{id}/events", get(wallets::events))
        .route("/ledger/wallet/{id}", get(ledger::wallet))
        .route("/ledger/wallet/{id}/summary", get(ledger::summary))
        .route("/ledger/reference/{reference}", get(ledger::reference))
        .route("/ledger/transactions", get(ledger::transactions))
        .route("/ledger/health", get(health::ledger))
        .route("/health/kafka", get(health::kafka))
        .route("/health/kafka/stats", get(health::kafka_stats))
        .route("/api/health", get(health::api))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(problem::route_not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(axum::middleware::from_fn(context::finish))
        .with_state(state)
}
