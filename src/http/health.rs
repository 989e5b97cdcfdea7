//! Health that tells the truth: what is alive, what is behind, what is broken.

mod pages;
mod report;
mod stats;

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::HttpState;
use super::openapi::problems::InternalProblems;
use super::views::answer;
use crate::store;
use pages::KafkaHealth;
use report::Report;
pub(super) use stats::{__path_kafka_stats, kafka_stats};

/// A health page must answer even when Postgres does not.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// What is counted for it is counted within this, or not known.
const QUESTION: Duration = Duration::from_secs(1);
#[allow(clippy::disallowed_methods, reason = "when the page was made, not when money moved")]
fn clock() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}

/// Whether the process answers.
#[utoipa::path(
    get, path = "/livez", tag = "health", operation_id = "getLiveness",
    responses((status = 200, description = "Alive", body = Alive), InternalProblems)
)]
pub(super) async fn live() -> Response {
    answer(StatusCode::OK, &Alive { status: Fine::Ok })
}

/// Whether the ledger's routes answer.
#[utoipa::path(
    get, path = "/ledger/health", tag = "health", operation_id = "getLedgerHealth",
    responses((status = 200, description = "Alive", body = LedgerAlive), InternalProblems)
)]
pub(super) async fn ledger() -> Response {
    answer(StatusCode::OK, &LedgerAlive { status: Fine::Ok, module: "ledger" })
}

/// Whether this instance may be sent requests.
///
/// Postgres, its migrations, and whether anything can be written there; never Kafka: the outbox holds
/// what Kafka cannot take.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "getReadiness",
    responses(
        (status = 200, description = "Ready", body = Ready),
        (status = 503, description = "Not ready, and why", body = NotReady<'_>),
        InternalProblems
    )
)]
pub(super) async fn ready(State(state): State<HttpState>) -> Response {
    let not_ready = |reason: &str| {
        answer(StatusCode::SERVICE_UNAVAILABLE, &NotReady { status: "not_ready", reason })
    };
    if state.status.snapshot().draining {
        return not_ready("shutting down");
    }
    match within(store::facts::unready(&state.pools.probe)).await {
        Ok(None) => answer(StatusCode::OK, &Ready { status: "ready" }),
        Ok(Some(cause)) | Err(cause) => not_ready(&cause),
    }
}

/// Whether commands can be taken.
#[utoipa::path(
    get, path = "/api/health", tag = "health", operation_id = "getHealth",
    responses(
        (status = 200, description = "Healthy", body = ApiHealth),
        (status = 503, description = "Postgres cannot be reached, or nothing can be written there", body = ApiHealth),
        InternalProblems
    )
)]
pub(super) async fn api(State(state): State<HttpState>) -> Response {
    let begun = Instant::now();
    let unready = within(store::facts::unready(&state.pools.probe)).await;
    let latency = millis(begun.elapsed());
    let error = unready.unwrap_or_else(Some);
    let (code, status) = match error {
        None => (StatusCode::OK, "healthy"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    let database = Check::new(error.is_none(), latency, error);
    let kafka = state.settings.health_include_kafka.then(|| {
        let pipeline = state.status.snapshot();
        let fine = !pipeline.kafka_enabled || pipeline.connected;
        let error = pipeline.connection_error.filter(|_| !fine);
        // As the last look at the cluster found it: no request waits here for a Kafka that is away.
        let latency = pipeline.cluster.map_or(0, |cluster| cluster.ping_ms);
        Check::new(fine, latency, error)
    });
    answer(code, &ApiHealth { status, checks: Checks { database, kafka } })
}

/// The process answers.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Alive {
    status: Fine,
}

/// The ledger's routes answer.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LedgerAlive {
    status: Fine,
    #[schema(pattern = "^ledger$")]
    module: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Ok)]
enum Fine {
    Ok,
}

/// Whether this instance may be sent requests.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Ready {
    #[schema(pattern = "^ready$")]
    status: &'static str,
}

/// Why this instance must not be sent requests.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NotReady<'a> {
    #[schema(pattern = "^not_ready$")]
    status: &'static str,
    reason: &'a str,
}

/// What commands depend on.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApiHealth {
    #[schema(pattern = "^(healthy|unhealthy)$")]
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Checks {
    database: Check,
    /// With `HEALTH_INCLUDE_KAFKA=true` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    kafka: Option<Check>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Check {
    #[schema(pattern = "^(up|down)$")]
    status: &'static str,
    latency_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    error: Option<String>,
}

impl Check {
    fn new(fine: bool, latency_ms: u64, error: Option<String>) -> Self {
        Self { status: if fine { "up" } else { "down" }, latency_ms, error }
    }
}

/// How events get to Kafka and back. Always 200: the state is in the body.
#[utoipa::path(
    get, path = "/health/kafka", tag = "health", operation_id = "getKafkaHealth",
    responses((status = 200, description = "The state, whatever it is", body = KafkaHealth), InternalProblems)
)]
pub(super) async fn kafka(State(state): State<HttpState>) -> Response {
    answer(StatusCode::OK, &Report::take(&state).await.summary())
}

/// Counters and histograms.
#[utoipa::path(
    get, path = "/metrics", tag = "health", operation_id = "getMetrics",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain"), InternalProblems)
)]
pub(super) async fn metrics(State(state): State<HttpState>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.render()).into_response()
}

/// A question to Postgres that is not waited for longer than a health page may take.
async fn within<T>(answer: impl Future<Output = store::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(QUERY_TIMEOUT, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::warn!(%error, "health: Postgres");
            Err("Postgres cannot be reached".to_owned())
        }
        Err(_) => Err("Postgres does not answer".to_owned()),
    }
}

/// What most often makes counts slow, where it is so.
async fn held_back(pool: &store::Pool) -> Option<String> {
    let held = within(store::snapshots::oldest(pool, 1)).await.ok()?.into_iter().next()?;
    let is_old = held.seconds.is_some_and(|seconds| seconds >= stats::YOUNG);
    is_old.then(|| format!("Postgres cleans nothing up meanwhile: {}", held.text()))
}

/// A count that the server gives up by itself. It may be too slow although Postgres answers all else.
async fn counted<T>(answer: impl Future<Output = store::Result<T>>) -> Result<T, String> {
    let slow = || format!("Postgres did not count it within {} s", QUESTION.as_secs());
    match tokio::time::timeout(QUERY_TIMEOUT, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::warn!(%error, "health: a count");
            Err(match error.class() {
                store::Class::Conflict => slow(),
                _ => "Postgres refused to count it: the log has why".to_owned(),
            })
        }
        Err(_) => Err(slow()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
