//! What the publisher says of itself: log, status, metrics; and the pauses that a failure causes.

use std::time::Duration;

use tokio::time::Instant;

use super::{Publisher, Topics};
use crate::kafka::{self, BreakerState, Class};
use crate::store;
use crate::store::outbox::Backlog;

/// The same trouble of many partitions is told once within this time.
const TOLD: Duration = Duration::from_secs(10);
/// The longest pause of a partition whose leader is out of reach while other brokers are not.
const LEADER_PAUSE: Duration = Duration::from_secs(2);

impl Publisher {
    pub(super) fn measured(&mut self, result: store::Result<Backlog>) {
        self.measuring = false;
        let Some(backlog) = self.stored(result, "backlog not measured") else { return };
        let events = u32::try_from(backlog.events).unwrap_or(u32::MAX);
        metrics::gauge!("outbox_lag_events").set(events);
        metrics::gauge!("outbox_lag_seconds").set(backlog.oldest);
    }

    /// The value of an answer of Postgres; an error pauses all work with it.
    pub(super) fn stored<T>(&mut self, result: store::Result<T>, what: &'static str) -> Option<T> {
        match result {
            Ok(value) => {
                self.store_pause.reset();
                Some(value)
            }
            Err(error) => {
                if self.store_pause.fail(self.retry_max) {
                    tracing::warn!(%error, "publisher: {what}");
                }
                self.failed(&format!("{what}: {error}"));
                None
            }
        }
    }

    pub(super) fn partition_failed(
        &mut self,
        number: i32,
        error: &kafka::Error,
        what: &'static str,
    ) {
        if error.class == Class::Topic && self.topics == Topics::Ready {
            // Deleted, or a cluster made anew.
            self.topics = Topics::Due;
        }
        let Some(partition) = self.partitions.get_mut(&number) else { return };
        // An outage is the breaker's. While it is closed, a leader that is gone will have a
        // successor: a longer pause would only add to the time that Kafka takes to find it.
        let longest = match self.breaker.state() {
            BreakerState::Closed if error.is_outage() => self.retry_max.min(LEADER_PAUSE),
            _ => self.retry_max,
        };
        let first = partition.pause.fail(longest);
        self.kafka_failed(error, first, what);
    }

    /// Warns once per outage, and once per partition of troubles that are its own.
    pub(super) fn kafka_failed(&mut self, error: &kafka::Error, first: bool, what: &'static str) {
        let mut warn = first;
        if error.is_outage() {
            self.status.update(|pipeline| {
                warn = pipeline.connection_error.is_none();
                pipeline.connected = false;
                pipeline.connection_error = Some(error.to_string());
            });
        }
        let text = error.to_string();
        let is_told = |(told, at): &(String, Instant)| *told == text && at.elapsed() < TOLD;
        if warn && !self.told.as_ref().is_some_and(is_told) {
            tracing::warn!(%error, "publisher: {what}");
            self.told = Some((text, Instant::now()));
        } else {
            tracing::debug!(%error, "publisher: {what}");
        }
        self.failed(&format!("{what}: {error}"));
    }

    pub(super) fn failed(&mut self, what: &str) {
        self.progress.errors += 1;
        self.status.update(|pipeline| {
            pipeline.publisher.errors += 1;
            pipeline.publisher.last_error = Some(what.to_owned());
        });
    }

    pub(super) fn connected(&mut self) {
        let mut outage = None;
        self.status.update(|pipeline| {
            pipeline.connected = true;
            outage = pipeline.connection_error.take();
        });
        let was_there = std::mem::replace(&mut self.met, true);
        if outage.is_some() {
            tracing::info!("{}", if was_there { "Kafka is back" } else { "Kafka is there" });
            self.shorten_pauses();
        }
    }

    pub(super) fn shorten_pauses(&mut self) {
        self.kafka_pause.shorten();
        self.partitions.values_mut().for_each(|partition| partition.pause.shorten());
    }
}
