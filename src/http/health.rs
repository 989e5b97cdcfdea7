//! Health that tells the truth: what is alive, what is behind, what is broken.

mod stats;

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::HttpState;
use super::openapi::health as shapes;
use super::openapi::problems::InternalProblems;
use crate::envelope::timestamp;
use crate::status::{Breaker, COMMANDS, Pipeline, ProjectorStatus, TopicHealth};
use crate::store::second::SecondBacklog;
use crate::store::{self, outbox::Backlog};
use crate::wallet::TenantId;

pub(super) use stats::{__path_kafka_stats, kafka_stats};

/// A health page must answer even when Postgres does not.
const PATIENCE: Duration = Duration::from_secs(2);
/// Older unpublished events, or projections further behind, are a degraded pipeline.
const BEHIND_MS: u128 = 30_000;

#[allow(clippy::disallowed_methods, reason = "when the page was made, not when money moved")]
fn clock() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}

fn now() -> String {
    timestamp(clock())
}

/// Whether the process answers.
#[utoipa::path(
    get, path = "/livez", tag = "health", operation_id = "getLiveness",
    responses((status = 200, description = "Alive", body = shapes::Alive), InternalProblems)
)]
pub(super) async fn live() -> Response {
    page(StatusCode::OK, &json!({"status": "ok"}))
}

/// Whether the ledger's routes answer.
#[utoipa::path(
    get, path = "/ledger/health", tag = "health", operation_id = "getLedgerHealth",
    responses((status = 200, description = "Alive", body = shapes::LedgerAlive), InternalProblems)
)]
pub(super) async fn ledger() -> Response {
    page(StatusCode::OK, &json!({"status": "ok", "module": "ledger"}))
}

/// Whether this instance may be sent requests.
///
/// Postgres, its migrations, and whether anything can be written there; never Kafka: the outbox holds
/// what Kafka cannot take.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "getReadiness",
    responses(
        (status = 200, description = "Ready", body = shapes::Ready),
        (status = 503, description = "Not ready, and why", body = shapes::NotReady),
        InternalProblems
    )
)]
pub(super) async fn ready(State(state): State<HttpState>) -> Response {
    let not_ready = |why: &str| {
        page(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not_ready", "reason": why}))
    };
    if state.status.snapshot().draining {
        return not_ready("shutting down");
    }
    match within(store::facts::unready(&state.pools.probe)).await {
        Ok(None) => page(StatusCode::OK, &json!({"status": "ready"})),
        Ok(Some(cause)) | Err(cause) => not_ready(&cause),
    }
}

/// Whether commands can be taken.
#[utoipa::path(
    get, path = "/api/health", tag = "health", operation_id = "getHealth",
    responses(
        (status = 200, description = "Healthy", body = shapes::ApiHealth),
        (status = 503, description = "Postgres cannot be reached, or nothing can be written there", body = shapes::ApiHealth),
        InternalProblems
    )
)]
pub(super) async fn api(State(state): State<HttpState>) -> Response {
    let begun = Instant::now();
    let database = within(store::facts::look(&state.pools.probe)).await;
    let mut checks = Map::new();
    let latency = millis(begun.elapsed());
    let error = match database {
        Ok(facts) => facts.unwritable().map(str::to_owned),
        Err(cause) => Some(cause),
    };
    checks.insert("database".to_owned(), check(error.is_none(), latency, error.as_ref()));
    if state.settings.health_include_kafka {
        let pipeline = state.status.snapshot();
        let fine = !pipeline.kafka_enabled || pipeline.connected;
        let error = pipeline.connection_error.filter(|_| !fine);
        // As the last look at the cluster found it: nobody waits here for a Kafka that is away.
        let latency = pipeline.cluster.map_or(0, |cluster| cluster.ping_ms);
        checks.insert("kafka".to_owned(), check(fine, latency, error.as_ref()));
    }
    let (code, status) = match error {
        None => (StatusCode::OK, "healthy"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    page(code, &json!({"status": status, "checks": checks}))
}

fn check(fine: bool, latency_ms: u64, error: Option<&String>) -> Value {
    let status = if fine { "up" } else { "down" };
    let mut check = json!({"status": status, "latencyMs": latency_ms});
    if let (Some(error), Some(fields)) = (error, check.as_object_mut()) {
        fields.insert("error".to_owned(), json!(error));
    }
    check
}

/// How events get to Kafka and back. Always 200: the state is in the body.
#[utoipa::path(
    get, path = "/health/kafka", tag = "health", operation_id = "getKafkaHealth",
    responses((status = 200, description = "The state, whatever it is", body = shapes::KafkaHealth), InternalProblems)
)]
pub(super) async fn kafka(State(state): State<HttpState>) -> Response {
    let report = Report::take(&state).await;
    page(StatusCode::OK, &Value::Object(report.summary()))
}

/// What one health answer is made from.
struct Report {
    pipeline: Pipeline,
    /// None: Postgres did not answer.
    backlog: Option<Backlog>,
    /// How far each projector is behind the events, in events and by age.
    behind: Vec<(String, i64, u128)>,
    /// What the second destination lacks; none where there is none, or where Postgres does not say.
    second: Option<SecondBacklog>,
    /// The topic lacks events that nobody but `outbox republish` will send.
    awaits_republication: bool,
}

impl Report {
    async fn take(state: &HttpState) -> Self {
        let pipeline = state.status.snapshot();
        let backlog = within(store::outbox::backlog(&state.pools.health)).await.ok();
        let names = pipeline.projectors.keys().copied().filter(|name| *name != COMMANDS);
        let names: Vec<&'static str> = names.collect();
        let behind = match &backlog {
            Some(_) => within(store::lag::projection_lags(&state.pools.health, &names)).await.ok(),
            None => None,
        };
        let behind = behind.unwrap_or_default();
        let behind =
            behind.into_iter().map(|lag| (lag.projector, lag.events, lag.oldest.as_millis()));
        let awaits_republication = match pipeline.kafka_enabled && backlog.is_some() {
            true => {
                let asked = store::outbox::repair::awaits_republication(&state.pools.health);
                within(asked).await.unwrap_or(false)
            }
            false => false,
        };
        let second = match pipeline.second.is_some() && backlog.is_some() {
            true => {
                let tenant = TenantId::default_tenant();
                let asked = store::second::backlog(&state.pools.health, &tenant);
                within(asked).await.ok().flatten()
            }
            false => None,
        };
        Self { pipeline, backlog, behind: behind.collect(), second, awaits_republication }
    }

    fn status(&self) -> &'static str {
        let Some(backlog) = &self.backlog else { return "unhealthy" };
        let pipeline = &self.pipeline;
        if !pipeline.dead_tasks.is_empty() {
            return "unhealthy";
        }
        if !pipeline.kafka_enabled {
            return "disabled";
        }
        let in_step = backlog.oldest.as_millis() < BEHIND_MS
            && self.behind.iter().all(|(_, _, ms)| *ms < BEHIND_MS);
        let goes_on = pipeline.projectors.values().all(|status| status.failing.is_none());
        if pipeline.connected && in_step && goes_on && !self.awaits_republication {
            "healthy"
        } else {
            "degraded"
        }
    }

    fn summary(&self) -> Map<String, Value> {
        let pipeline = &self.pipeline;
        let kafka = match (pipeline.kafka_enabled, pipeline.connected) {
            (false, _) => "disabled",
            (true, true) => "connected",
            (true, false) => "disconnected",
        };
        let backlog = self.backlog.as_ref();
        let body = json!({
            "status": self.status(),
            "producer": {"connected": pipeline.connected},
            "kafka": {"status": kafka, "error": pipeline.connection_error},
            "publisher": {
                "isRunning": pipeline.publisher.running,
                "unprocessedEvents": backlog.map(|b| b.events),
                "lagMs": backlog.map(|b| millis(b.oldest)),
                "awaitsRepublication": self.awaits_republication,
            },
            "second": self.second(),
            "consumers": self.consumers(),
            "breaker": {"state": match pipeline.breaker {
                Breaker::Closed => "closed",
                Breaker::HalfOpen => "half_open",
                Breaker::Open => "open",
            }},
            "topics": pipeline.topics.as_deref().filter(|_| pipeline.connected).map(topics),
            "timestamp": now(),
        });
        match body {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// The second destination: it is not part of the status, which speaks of the first.
    fn second(&self) -> Value {
        let Some(status) = &self.pipeline.second else { return Value::Null };
        json!({
            "topic": status.topic,
            "state": if status.running { "running" } else { "stopped" },
            "connected": status.connected,
            "error": status.error,
            "published": status.published,
            "lag": self.second.as_ref().map(|second| second.backlog),
            "lagMs": self.second.as_ref().map(|second| second.oldest_ms),
        })
    }

    /// A projector's name as a consumer group.
    fn group(&self, projector: &str) -> String {
        format!("{}{projector}", self.pipeline.group_prefix)
    }

    fn consumers(&self) -> Map<String, Value> {
        let mut consumers = Map::new();
        for (name, status) in &self.pipeline.projectors {
            let found = self.behind.iter().find(|(projector, _, _)| projector == name);
            let (lag, lag_ms) = match *name {
                COMMANDS => commands_lag(status),
                _ => found.map_or((None, None), |(_, n, ms)| (Some(*n), Some(*ms))),
            };
            let state = if status.running { "running" } else { "stopped" };
            let lag_ms = lag_ms.map(|ms| u64::try_from(ms).ok());
            let mut consumer = json!({"state": state, "lag": lag, "lagMs": lag_ms});
            if let (Some(error), Some(fields)) = (&status.failing, consumer.as_object_mut()) {
                fields.insert("error".to_owned(), json!(error));
            }
            consumers.insert(self.group(name), consumer);
        }
        consumers
    }
}

/// Commands of this instance's partitions that wait in their topic, and the age of the oldest.
fn commands_lag(status: &ProjectorStatus) -> (Option<i64>, Option<u128>) {
    let behind = status.partitions.values().filter(|place| place.lag() > 0);
    let oldest = behind.clone().filter_map(|place| place.oldest).min();
    let age = oldest.map_or(0, |at| clock().timestamp_millis() - at);
    (Some(behind.map(|place| place.lag()).sum()), u128::try_from(age).ok())
}

/// How many topics there should be, and how many are not as they should be.
fn topics(topics: &[TopicHealth]) -> Value {
    let count = |which: fn(&TopicHealth) -> bool| topics.iter().filter(|t| which(t)).count();
    json!({
        "wanted": topics.len(),
        "missing": count(|topic| !topic.exists),
        "offline": count(|topic| topic.offline > 0),
        "underReplicated": count(|topic| topic.under_replicated > 0),
        "drifted": count(|topic| !topic.drift.is_empty()),
    })
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
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::warn!(%error, "health: Postgres");
            Err("Postgres cannot be reached".to_owned())
        }
        Err(_) => Err("Postgres does not answer".to_owned()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn page(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
