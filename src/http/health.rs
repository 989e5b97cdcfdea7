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
use crate::store::dual_publish::SecondBacklog;
use crate::store::lag::ProjectionLag;
use crate::store::{self, outbox::Backlog};
use crate::wallet::TenantId;

pub(super) use stats::{__path_kafka_stats, kafka_stats};

/// A health page must answer even when Postgres does not.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is counted for it is counted within this, or not known.
const QUESTION: Duration = Duration::from_secs(1);
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
    /// Postgres answered.
    answers: bool,
    /// None: it was not counted.
    backlog: Option<Backlog>,
    /// How far each projector is behind the events; none: it was not counted.
    behind: Option<Vec<ProjectionLag>>,
    /// What the second destination lacks; none where there is none, or where Postgres does not say.
    second: Option<SecondBacklog>,
    /// The topic lacks events that nobody but `outbox republish` will send.
    awaits_republication: bool,
    /// Why all is not well. What is not known is not well.
    reasons: Vec<String>,
}

impl Report {
    async fn take(state: &HttpState) -> Self {
        let pipeline = state.status.snapshot();
        let mut reasons = Vec::new();
        let answer = within(store::ping(&state.pools.health)).await;
        let answers = answer.is_ok();
        reasons.extend(answer.err());
        let backlog = match answers {
            true => counted(store::outbox::backlog(&state.pools.health, QUESTION)).await,
            false => Err(String::new()),
        };
        let names = pipeline.projectors.keys().copied().filter(|name| *name != COMMANDS);
        let names: Vec<&'static str> = names.collect();
        let behind = match answers {
            true => {
                counted(store::lag::projection_lags(&state.pools.health, &names, QUESTION)).await
            }
            false => Err(String::new()),
        };
        let awaits_republication = match pipeline.kafka_enabled && backlog.is_ok() {
            true => {
                let asked = store::outbox::repair::awaits_republication(&state.pools.health);
                within(asked).await.unwrap_or(false)
            }
            false => false,
        };
        let second = match pipeline.second.is_some() && backlog.is_ok() {
            true => {
                let tenant = TenantId::default_tenant();
                let asked = store::dual_publish::backlog(&state.pools.health, &tenant);
                within(asked).await.ok().flatten()
            }
            false => None,
        };
        if answers {
            let unknown = |what: &str, why: &String| format!("{what} is not known: {why}");
            reasons.extend(backlog.as_ref().err().map(|why| unknown("the outbox's backlog", why)));
            reasons.extend(behind.as_ref().err().map(|why| unknown("the projections' lag", why)));
        }
        if answers && (backlog.is_err() || behind.is_err()) {
            reasons.extend(held_back(&state.pools.health).await);
        }
        let (backlog, behind) = (backlog.ok(), behind.ok());
        let mut report =
            Self { pipeline, answers, backlog, behind, second, awaits_republication, reasons };
        report.reasons.extend(report.troubles());
        report
    }

    /// Whatever of it that is known is not well.
    fn troubles(&self) -> Vec<String> {
        let pipeline = &self.pipeline;
        let mut found: Vec<String> = Vec::new();
        found.extend(pipeline.dead_tasks.iter().map(|task| format!("the task {task} has ended")));
        if pipeline.kafka_enabled && !pipeline.connected {
            found.push("Kafka is not connected".to_owned());
        }
        if let Some(backlog) = self.backlog.filter(|b| b.oldest.as_millis() >= BEHIND_MS) {
            let seconds = backlog.oldest.as_secs();
            found.push(format!("the oldest event waits for Kafka for {seconds} s"));
        }
        if self.awaits_republication {
            let text = "the topic lacks events that only `wallex outbox republish` sends";
            found.push(text.to_owned());
        }
        found.extend(pipeline.problems.values().cloned());
        for lag in self.behind.iter().flatten() {
            let (name, seconds) = (&lag.projector, lag.oldest.as_secs());
            if let Some(why) = lag.unknown {
                found.push(format!("the lag of {name} is not known: {}", why.text()));
            } else if lag.oldest.as_millis() >= BEHIND_MS {
                found.push(format!("{name} is {seconds} s behind"));
            }
        }
        for (name, status) in &pipeline.projectors {
            found.extend(status.failing.iter().map(|why| format!("{name} cannot go on: {why}")));
        }
        let mending = pipeline.projectors.iter().filter(|(_, status)| status.mending);
        found.extend(mending.map(|(name, _)| {
            format!("{name} goes through all wallets: its places are of another Postgres cluster, or did not say")
        }));
        found
    }

    fn status(&self) -> &'static str {
        if !self.answers || !self.pipeline.dead_tasks.is_empty() {
            return "unhealthy";
        }
        match (self.pipeline.kafka_enabled, self.reasons.is_empty()) {
            (false, _) => "disabled",
            (true, true) => "healthy",
            (true, false) => "degraded",
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
            "reasons": self.reasons,
            "producer": {"connected": pipeline.connected},
            "kafka": {"status": kafka, "error": pipeline.connection_error},
            "publisher": {
                "isRunning": pipeline.publisher.running,
                "unprocessedEvents": backlog.map(|b| b.events),
                "more": backlog.is_some_and(|b| b.more),
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
            "more": self.second.as_ref().is_some_and(|second| second.more),
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
            let mut lags = self.behind.iter().flatten();
            let found = lags.find(|lag| lag.projector == *name && lag.unknown.is_none());
            let (lag, more, lag_ms) = match *name {
                COMMANDS => {
                    let (lag, age) = commands_lag(status);
                    (lag, false, age)
                }
                _ => found.map_or((None, false, None), |lag| {
                    (Some(lag.events), lag.more, Some(lag.oldest.as_millis()))
                }),
            };
            let state = if status.running { "running" } else { "stopped" };
            let lag_ms = lag_ms.map(|ms| u64::try_from(ms).ok());
            let mut consumer = json!({"state": state, "lag": lag, "more": more, "lagMs": lag_ms});
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

/// What most often makes counts slow, where it is so.
async fn held_back(pool: &store::Pool) -> Option<String> {
    let held = within(store::snapshots::oldest(pool, 1)).await.ok()?.into_iter().next()?;
    let is_old = held.seconds.is_some_and(|seconds| seconds >= stats::YOUNG);
    is_old.then(|| format!("Postgres cleans nothing up meanwhile: {}", held.text()))
}

/// A count that the server gives up by itself. It may be too slow although Postgres answers all else.
async fn counted<T>(answer: impl Future<Output = store::Result<T>>) -> Result<T, String> {
    let slow = || format!("Postgres did not count it within {} s", QUESTION.as_secs());
    match tokio::time::timeout(PATIENCE, answer).await {
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

fn page(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
