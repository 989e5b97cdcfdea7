//! What the consumer of commands says of itself: the shared status and the metrics.

use std::collections::BTreeMap;

use metrics::{counter, gauge};

use super::Shared;
use super::batch::{Fate, Handled};
use crate::status::{COMMANDS, PartitionStatus, ProjectorStatus};

impl Shared {
    pub(super) fn report_running(&self, running: bool) {
        self.change(|status| status.running = running);
    }

    /// What was wrong is over. What else is wrong will be reported again.
    pub(super) fn report_well(&self) {
        self.change(|status| {
            if status.error_is_transient {
                status.last_error = None;
            }
        });
    }

    /// Shown until a chunk goes through, or a fetch after one that failed.
    pub(super) fn report_error(&self, error: &str) {
        tracing::debug!(error, "inbound commands");
        self.change(|status| {
            status.last_error = Some(error.to_owned());
            status.error_is_transient = true;
        });
    }

    /// A chunk is executed, and its place has moved.
    pub(super) fn report_handled(&self, stage: usize, handled: &[Handled]) {
        let (mut applied, mut duplicates, mut dead_letters, mut retried) = (0, 0, 0, 0);
        for one in handled {
            let outcome = match &one.fate {
                Fate::Answered(decision) if decision.replayed => "replayed",
                Fate::Answered(decision) if decision.status < 400 => "applied",
                Fate::Answered(_) => "refused",
                Fate::Invalid(_) => "invalid",
                Fate::Undecided { .. } if one.is_set_aside => "undecided",
                Fate::Undecided { .. } => "retried",
            };
            match outcome {
                "replayed" => duplicates += 1,
                "applied" | "refused" => applied += 1,
                "invalid" | "undecided" => dead_letters += 1,
                _ => retried += 1,
            }
            counter!("commands_consumed_total", "outcome" => outcome).increment(1);
            self.tell(stage, one, outcome);
        }
        counter!("commands_dead_lettered_total").increment(dead_letters);
        if let Some(next) = self.stages.get(stage + 1) {
            counter!("commands_retried_total", "topic" => next.topic.name.clone())
                .increment(retried);
        }
        self.change(|status| {
            status.applied += applied;
            status.duplicates += duplicates;
            status.dead_letters += dead_letters;
        });
        self.report_well();
    }

    /// One line for each command that goes on to another topic.
    fn tell(&self, stage: usize, one: &Handled, outcome: &'static str) {
        let topic = self.stages.get(stage).map_or("", |stage| stage.topic.name.as_str());
        let (id, offset) = (one.id.as_deref().unwrap_or(""), one.record.offset);
        match outcome {
            "invalid" | "undecided" => {
                tracing::warn!(topic, offset, id, cause = outcome, "command dead-lettered");
            }
            "retried" => tracing::info!(topic, offset, id, "command retried later"),
            _ => {}
        }
    }

    /// Where the partitions stand, those that bring nothing included.
    pub(super) fn report_places(&self, stage: usize, places: &BTreeMap<i32, PartitionStatus>) {
        let lag = |place: &PartitionStatus| u32::try_from(place.lag()).unwrap_or(u32::MAX);
        if stage > 0 {
            let waiting = places.values().fold(0_u32, |sum, place| sum.saturating_add(lag(place)));
            let topic = self.stages.get(stage).map_or("", |stage| stage.topic.name.as_str());
            gauge!("commands_retry_waiting", "topic" => topic.to_owned()).set(waiting);
            return;
        }
        for (partition, place) in places {
            let labels = [("group", self.group()), ("partition", partition.to_string())];
            gauge!("consumer_lag_events", &labels).set(lag(place));
        }
        self.change(|status| status.partitions.clone_from(places));
    }

    /// The first partitions of this instance.
    pub(super) fn report_assigned(&self, stage: usize, partitions: usize) {
        if stage == 0 {
            tracing::info!(consumer = COMMANDS, partitions, "assigned");
        }
    }

    /// Partitions came or went: an instance did.
    pub(super) fn report_rebalance(&self, stage: usize, partitions: usize) {
        if stage == 0 {
            tracing::info!(consumer = COMMANDS, partitions, "rebalanced");
            counter!("consumer_rebalances_total", "group" => self.group()).increment(1);
            self.change(|status| status.rebalances += 1);
        }
    }

    /// The name as a consumer group.
    fn group(&self) -> String {
        format!("{}{COMMANDS}", self.parts.group_prefix)
    }

    fn change(&self, change: impl FnOnce(&mut ProjectorStatus)) {
        self.parts.status.update(|all| change(all.projectors.entry(COMMANDS).or_default()));
    }
}
