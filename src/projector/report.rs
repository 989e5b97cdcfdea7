//! What a projector says of itself: the shared status and the metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{counter, gauge};
use uuid::Uuid;

use super::Job;
use super::apply::Outcome;
use super::kafka_feed::KafkaFeed;
use super::member::Member;
use super::postgres_feed::Lag;
use crate::status::{Problem, ProjectorStatus};
use crate::store::{self, Blame};
use crate::wallet::WalletKey;

/// A wallet is parked; `kind` is for metrics, `cause` for people.
pub(super) fn parked(job: &Job, wallet: &WalletKey, version: i64, kind: &'static str, cause: &str) {
    let (projector, (tenant, wallet)) = (job.kind.name(), wallet);
    tracing::error!(projector, %tenant, %wallet, version, cause, "wallet parked");
    counter!("wallets_parked_total", "projector" => projector, "cause" => kind).increment(1);
}

/// Events were read from Postgres: they were not at hand.
pub(super) fn read(events: usize) {
    counter!("projections_events_read_total").increment(u64::try_from(events).unwrap_or(0));
}

impl Member {
    pub(super) fn report_running(&self, running: bool) {
        self.change(|status| status.running = running);
    }

    /// Its places are of another cluster, and are being given up.
    pub(super) fn report_mending(&self, mending: bool) {
        self.change(|status| status.mending = mending);
    }

    /// `passes`: nothing is left to know of it once all goes well again.
    pub(super) fn report_error(&self, error: &str, passes: bool) {
        self.change(|status| {
            status.last_error = Some(error.to_owned());
            status.error_is_transient = passes;
        });
    }

    /// A step failed. Where it goes on to, nothing of the projection is applied.
    pub(super) fn report_failure(&self, error: &store::Error) {
        let (group, cause) = (self.group.clone(), error.cause());
        counter!("consumer_step_failures_total", "group" => group, "cause" => cause).increment(1);
        self.report_error(&error.told(), true);
        // One conflict, or one session that was lost, is nothing: the next attempt succeeds.
        if error.blame() == Blame::Lasting || self.failures.count > 1 {
            self.change(|status| status.failing = Some(error.told()));
        }
    }

    /// Partitions with events of a newer build were left out of what was applied; with `none`, no other
    /// partition waits for one.
    pub(super) fn report_waiting(&self, waiting: &BTreeMap<i32, String>, none: bool) {
        if waiting.is_empty() {
            if none {
                self.change(|status| status.newer = None);
            }
            return;
        }
        let each = waiting.iter().map(|(partition, why)| format!("partition {partition}: {why}"));
        let text = each.collect::<Vec<_>>().join("; ");
        let mut is_news = false;
        self.change(|status| {
            is_news = status.newer.replace(text.clone()).is_none();
        });
        if is_news {
            let projector = self.kind.name();
            tracing::error!(projector, "waits for a newer build of the service: {text}");
        }
    }

    /// All that was there to be applied when a step failed is applied by now.
    pub(super) fn report_mended(&self) {
        self.change(|status| status.failing = None);
    }

    pub(super) fn report_applied(&self, outcome: &Outcome) {
        let group = &self.group;
        for (name, count) in [
            ("applied", outcome.applied - outcome.healed.min(outcome.applied)),
            ("healed", outcome.healed),
            ("duplicate", outcome.duplicates),
            ("parked", outcome.parked),
            ("dead_letter", outcome.dead_letters),
        ] {
            counter!("consumer_records_total", "group" => group.clone(), "outcome" => name)
                .increment(count);
        }
        self.change(|status| {
            status.applied += outcome.applied;
            status.healed += outcome.healed;
            status.duplicates += outcome.duplicates;
            status.dead_letters += outcome.dead_letters;
        });
        self.applied.notify_waiters();
    }

    /// The topic has events of another deployment. They are passed over; that both go on so is wrong.
    pub(super) fn report_another(&self, topic: &str, other: Uuid) {
        let text = format!(
            "another deployment ({other}) publishes to {topic}, too: its events are passed over here, but \
             commands by Kafka and the groups' offsets are shared. Every deployment needs its own \
             KAFKA_EVENTS_TOPIC, KAFKA_DLQ_TOPIC, KAFKA_COMMANDS_TOPIC, KAFKA_COMMAND_RESULTS_TOPIC and \
             CONSUMER_GROUP_ID"
        );
        let mut is_news = false;
        self.status.update(|all| {
            is_news = all.problems.insert(Problem::Deployment, text.clone()).is_none();
        });
        if is_news {
            tracing::error!("{text}");
        }
    }

    /// Where each partition stands in the topic, those without news included; an error that is
    /// over is forgotten.
    pub(super) fn report_well(&self, kafka: Option<&KafkaFeed>) {
        let mut places = kafka.map(|kafka| kafka.places().clone()).unwrap_or_default();
        places.retain(|partition, _| self.places.has(*partition));
        let well = kafka.is_none_or(KafkaFeed::is_well);
        self.change(|status| {
            status.partitions = places;
            if well && status.error_is_transient {
                status.last_error = None;
            }
        });
    }

    /// The first partitions of this instance.
    pub(super) fn report_assigned(&self, partitions: usize) {
        tracing::info!(projector = self.kind.name(), partitions, "assigned");
    }

    /// Partitions came or went: an instance did.
    pub(super) fn report_rebalance(&self, partitions: usize) {
        tracing::info!(projector = self.kind.name(), partitions, "rebalanced");
        counter!("consumer_rebalances_total", "group" => self.group.clone()).increment(1);
        self.change(|status| status.rebalances += 1);
    }

    /// Lag as the walk sees it: events of the books that are not applied, whatever the feeds say.
    pub(super) fn report_lag(
        &self,
        partitions: impl Iterator<Item = i32>,
        lag: &Lag,
        held: Duration,
    ) {
        let group = &self.group;
        for partition in partitions {
            let (events, age) = lag.get(&partition).copied().unwrap_or((0, Duration::ZERO));
            let labels = [("group", group.clone()), ("partition", partition.to_string())];
            gauge!("consumer_lag_events", &labels).set(events);
            gauge!("consumer_lag_seconds", &labels).set(age);
        }
        gauge!("projection_cursor_held_seconds", "group" => group.clone()).set(held);
    }

    fn change(&self, change: impl FnOnce(&mut ProjectorStatus)) {
        let name = self.kind.name();
        self.status.update(|all| change(all.projectors.entry(name).or_default()));
    }
}
