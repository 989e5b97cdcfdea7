//! The state of the pipeline, as the health pages show it: what is known of it, and why all is not well.

use std::collections::BTreeMap;

use super::pages::{
    Breaker, Consumer, KafkaHealth, KafkaState, PipelineStatus, Producer, Publisher, Second,
    TopicCounts,
};
use super::{QUESTION, clock, counted, held_back, millis, within};
use crate::envelope::timestamp;
use crate::http::HttpState;
use crate::status::{COMMANDS, Pipeline, ProjectorStatus, TopicHealth};
use crate::store::dual_publish::SecondBacklog;
use crate::store::lag::ProjectionLag;
use crate::store::{self, outbox::Backlog};
use crate::wallet::TenantId;

/// Older unpublished events, or projections further behind, are a degraded pipeline.
const BEHIND_MS: u128 = 30_000;

/// What one health answer is made from.
pub(super) struct Report {
    pub(super) pipeline: Pipeline,
    /// Postgres answered.
    pub(super) answers: bool,
    /// None: it was not counted.
    backlog: Option<Backlog>,
    /// How far each projector is behind the events; none: it was not counted.
    behind: Option<Vec<ProjectionLag>>,
    /// What the second destination lacks; none where there is none, or where Postgres does not say.
    second: Option<SecondBacklog>,
    /// The topic lacks events that only `outbox republish` will send.
    awaits_republication: bool,
    /// Why all is not well. What is not known is not well.
    reasons: Vec<String>,
}

impl Report {
    pub(super) async fn take(state: &HttpState) -> Self {
        let pipeline = state.status.snapshot();
        let mut reasons = Vec::new();
        let answer = within(store::ping(&state.pools.health)).await;
        let answers = answer.is_ok();
        reasons.extend(answer.err());
        let backlog = match answers {
            true => counted(store::outbox::backlog(&state.pools.health, QUESTION)).await,
            false => Err(String::new()),
        };
        let names = pipeline.projections();
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
            found.extend(
                status.newer.iter().map(|why| format!("{name} needs a newer build: {why}")),
            );
        }
        let mending = pipeline.projectors.iter().filter(|(_, status)| status.mending);
        found.extend(mending.map(|(name, _)| {
            format!("{name} goes through all wallets: its places are of another Postgres cluster, or did not say")
        }));
        found
    }

    fn status(&self) -> PipelineStatus {
        if !self.answers || !self.pipeline.dead_tasks.is_empty() {
            return PipelineStatus::Unhealthy;
        }
        match (self.pipeline.kafka_enabled, self.reasons.is_empty()) {
            (false, _) => PipelineStatus::Disabled,
            (true, true) => PipelineStatus::Healthy,
            (true, false) => PipelineStatus::Degraded,
        }
    }

    pub(super) fn summary(&self) -> KafkaHealth {
        let pipeline = &self.pipeline;
        let backlog = self.backlog.as_ref();
        KafkaHealth {
            status: self.status(),
            reasons: self.reasons.clone(),
            producer: Producer { connected: pipeline.connected },
            kafka: KafkaState {
                status: match (pipeline.kafka_enabled, pipeline.connected) {
                    (false, _) => "disabled",
                    (true, true) => "connected",
                    (true, false) => "disconnected",
                },
                error: pipeline.connection_error.clone(),
            },
            publisher: Publisher {
                is_running: pipeline.publisher.running,
                unprocessed_events: backlog.map(|b| b.events),
                more: backlog.is_some_and(|b| b.more),
                lag_ms: backlog.map(|b| millis(b.oldest)),
                awaits_republication: self.awaits_republication,
            },
            second: self.second(),
            consumers: self.consumers(),
            breaker: Breaker { state: pipeline.breaker.as_str() },
            topics: self.topics().map(counts),
            timestamp: timestamp(clock()),
        }
    }

    /// The topics that should be there, as of the last look; none where it did not succeed.
    pub(super) fn topics(&self) -> Option<&[TopicHealth]> {
        self.pipeline.topics.as_deref().filter(|_| self.pipeline.connected)
    }

    /// The second destination: it is not part of the status, which speaks of the first.
    fn second(&self) -> Option<Second> {
        let (status, found) = (self.pipeline.second.as_ref()?, self.second.as_ref());
        Some(Second {
            topic: status.topic.clone(),
            state: state_of(status.running),
            connected: status.connected,
            error: status.error.clone(),
            published: status.published,
            lag: found.and_then(|second| second.backlog),
            more: found.is_some_and(|second| second.more),
            lag_ms: found.and_then(|second| second.oldest_ms),
        })
    }

    /// A projector's name as a consumer group.
    pub(super) fn group(&self, projector: &str) -> String {
        format!("{}{projector}", self.pipeline.group_prefix)
    }

    fn consumers(&self) -> BTreeMap<String, Consumer> {
        let consumer = |(name, status): (&&'static str, &ProjectorStatus)| {
            let mut lags = self.behind.iter().flatten();
            let found = lags.find(|lag| lag.projector == *name && lag.unknown.is_none());
            let (lag, more, age) = match (*name, found) {
                (COMMANDS, _) => {
                    let (lag, age) = commands_lag(status);
                    (Some(lag), false, age)
                }
                (_, Some(lag)) => (Some(lag.events), lag.more, Some(millis(lag.oldest))),
                (_, None) => (None, false, None),
            };
            let (state, error) = (state_of(status.running), status.failing.clone());
            (self.group(name), Consumer { state, lag, more, lag_ms: age, error })
        };
        self.pipeline.projectors.iter().map(consumer).collect()
    }
}

fn state_of(running: bool) -> &'static str {
    if running { "running" } else { "stopped" }
}

/// Commands of this instance's partitions that wait in their topic, and the age of the oldest.
fn commands_lag(status: &ProjectorStatus) -> (i64, Option<u64>) {
    let behind = status.partitions.values().filter(|partition| partition.lag() > 0);
    let oldest = behind.clone().filter_map(|partition| partition.oldest).min();
    let age = oldest.map_or(0, |at| clock().timestamp_millis() - at);
    (behind.map(|partition| partition.lag()).sum(), u64::try_from(age).ok())
}

fn counts(topics: &[TopicHealth]) -> TopicCounts {
    let count = |which: fn(&TopicHealth) -> bool| topics.iter().filter(|t| which(t)).count();
    TopicCounts {
        wanted: topics.len(),
        missing: count(|topic| !topic.exists),
        offline: count(|topic| topic.offline > 0),
        under_replicated: count(|topic| topic.under_replicated > 0),
        drifted: count(|topic| !topic.drift.is_empty()),
    }
}
