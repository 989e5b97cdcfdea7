//! What a publisher says of itself: log, status, metrics; and the pauses that a failure causes.

use std::time::Duration;

use tokio::time::Instant;

use super::send::Sent;
use super::source::Role;
use super::{Deps, Publisher, TopicState};
use crate::kafka::{self, BreakerState, Class};
use crate::status::{SecondStatus, Status};
use crate::store;

/// The same trouble of many partitions is logged once within this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// The longest pause of a partition whose leader is out of reach while other brokers are not.
const LEADER_PAUSE_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Report {
    status: Status,
    role: Role,
    /// Kafka has answered once.
    met: bool,
    /// Something failed, and not all has gone on since.
    troubled: bool,
    /// The trouble that was logged last, and when.
    logged: Option<(String, Instant)>,
    topic: String,
}

impl Report {
    pub fn new(deps: &Deps) -> Self {
        Self {
            status: deps.status.clone(),
            role: deps.role.clone(),
            met: false,
            troubled: false,
            logged: None,
            topic: deps.kafka.events_topic.clone(),
        }
    }

    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Outbox)
    }

    /// As the log has it.
    pub fn name(&self) -> &'static str {
        if self.is_primary() { "publisher" } else { "second publisher" }
    }

    pub fn running(&self, running: bool) {
        let topic = self.topic.clone();
        match self.is_primary() {
            true => self.status.update(|pipeline| pipeline.publisher.running = running),
            false => self.second(|second| {
                second.topic = topic;
                second.running = running;
            }),
        }
    }

    pub fn partitions(&self, owned: usize) {
        match self.is_primary() {
            true => self.status.update(|pipeline| pipeline.publisher.partitions = owned),
            false => self.second(|second| second.partitions = owned),
        }
    }

    pub fn topic_out_of_reach(&self) {
        if self.is_primary() {
            metrics::counter!("kafka_producer_init_failures_total").increment(1);
        }
    }

    /// Another instance has the partition.
    pub fn fenced(&self, partition: i32) {
        let name = self.name();
        tracing::warn!(partition, "{name}: lease lost to another instance; its marks were refused");
        if self.is_primary() {
            metrics::counter!("kafka_outbox_fenced_total").increment(1);
        }
    }

    /// What of a request was refused or not confirmed.
    pub fn sent(&mut self, sent: &Sent) {
        if self.is_primary() {
            if sent.refused_batch || sent.trouble.is_some() {
                metrics::counter!("kafka_outbox_batch_failures_total").increment(1);
            }
            let rows = sent.trouble.as_ref().map_or(0, |trouble| trouble.rows);
            let refused = u64::try_from(sent.mark.refusals.len()).unwrap_or(u64::MAX);
            if rows + refused > 0 {
                metrics::counter!("kafka_outbox_publish_errors_total").increment(rows + refused);
            }
        }
        for refusal in &sent.mark.refusals {
            let (id, cause) = (refusal.id, refusal.cause.as_str());
            if self.is_primary() {
                tracing::error!(
                    outbox_id = id,
                    cause,
                    "record refused; its wallet waits behind it"
                );
            } else {
                tracing::error!(cause, "the second topic's broker refused a record");
            }
            self.failed(cause);
        }
    }

    /// Rows that the topic holds now; `found`: so many of them it held already.
    pub fn marked(&self, rows: u64, found: u64) {
        if found > 0 {
            tracing::info!(rows = found, "rows found in the topic, not sent again");
        }
        if self.is_primary() {
            metrics::counter!("kafka_outbox_published_total").increment(rows);
            self.status.update(|pipeline| pipeline.publisher.published += rows);
        } else {
            metrics::counter!("kafka_second_published_total").increment(rows);
            self.second(|second| second.published += rows);
        }
    }

    /// Warns once per outage, and once per partition of troubles that are its own.
    pub fn kafka_failed(&mut self, error: &kafka::Error, first: bool, what: &'static str) {
        let mut warn = first;
        if error.is_outage() && self.is_primary() {
            self.status.update(|pipeline| {
                warn = pipeline.connection_error.is_none();
                pipeline.connected = false;
                pipeline.connection_error = Some(error.to_string());
            });
        } else if error.is_outage() {
            warn = !self.troubled;
            self.second(|second| second.connected = false);
        }
        let text = match &self.role {
            // What has to be changed has names of its own there.
            Role::Dual { apart: true, .. } => error.to_string().replace("KAFKA_", "KAFKA_SECOND_"),
            _ => error.to_string(),
        };
        let what = if self.is_primary() { format!("{what}: {text}") } else { text };
        self.trouble(&what, warn);
    }

    /// Something that an operator may have to do something about.
    pub fn trouble(&mut self, text: &str, warn: bool) {
        let is_same =
            |(logged, at): &(String, Instant)| logged == text && at.elapsed() < LOG_INTERVAL;
        let name = self.name();
        if warn && !self.logged.as_ref().is_some_and(is_same) {
            tracing::warn!("{name}: {text}");
            self.logged = Some((text.to_owned(), Instant::now()));
        } else {
            tracing::debug!("{name}: {text}");
        }
        self.failed(text);
    }

    fn failed(&mut self, text: &str) {
        self.troubled = true;
        if self.is_primary() {
            self.status.update(|pipeline| {
                pipeline.publisher.errors += 1;
                pipeline.publisher.last_error = Some(text.to_owned());
            });
        } else {
            metrics::counter!("kafka_second_errors_total").increment(1);
            self.second(|second| second.error = Some(text.to_owned()));
        }
    }

    /// Kafka has answered; whether an outage is over with that.
    pub fn connected(&mut self) -> bool {
        let mut outage = false;
        if self.is_primary() {
            self.status.update(|pipeline| {
                pipeline.connected = true;
                outage = pipeline.connection_error.take().is_some();
            });
            if outage {
                tracing::info!("{}", if self.met { "Kafka is back" } else { "Kafka is there" });
            }
        } else {
            self.second(|second| outage = !std::mem::replace(&mut second.connected, true));
        }
        self.met = true;
        outage
    }

    /// Whether there was trouble that nothing has ended yet.
    pub fn is_troubled(&self) -> bool {
        self.troubled
    }

    /// All goes on. The primary's last error stays for operators to see.
    pub fn well(&mut self) {
        self.troubled = false;
        if !self.is_primary() {
            self.second(|second| second.error = None);
            tracing::info!("the second destination is back");
        }
    }

    fn second(&self, change: impl FnOnce(&mut SecondStatus)) {
        self.status.update(|pipeline| change(pipeline.second.get_or_insert_default()));
    }
}

impl Publisher {
    /// The value of an answer of Postgres; an error pauses all work with it.
    pub(super) fn stored<T>(&mut self, result: store::Result<T>, what: &'static str) -> Option<T> {
        match result {
            Ok(value) => {
                self.store_pause.reset();
                Some(value)
            }
            Err(error) => {
                let first = self.store_pause.fail(self.retry_max);
                self.report.trouble(&format!("{what}: {error}"), first);
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
        if error.class == Class::Topic && self.topic == TopicState::Ready {
            // Deleted, or a new cluster.
            self.topic = TopicState::Due;
        }
        let Some(partition) = self.partitions.get_mut(&number) else { return };
        // An outage is the breaker's. While it is closed, a leader that is gone will have a
        // successor: a longer pause would only add to the time that Kafka takes to find it.
        let longest = match self.breaker.state() {
            BreakerState::Closed if error.is_outage() => self.retry_max.min(LEADER_PAUSE_MAX),
            _ => self.retry_max,
        };
        let first = partition.pause.fail(longest);
        self.report.kafka_failed(error, first, what);
    }

    pub(super) fn connected(&mut self) {
        if self.report.connected() {
            self.shorten_pauses();
        }
    }
}
