//! What follows from a job's end: the next phase of its partitions, pauses, status and metrics.
//! Never waits.

use tokio::time::Instant;

use super::jobs::{Done, Settled, Settlement};
use super::partition::Phase;
use super::read_back::ReadBack;
use super::send::{Sent, Trouble};
use super::{Publisher, Topics};
use crate::kafka;
use crate::kafka::topics::{Drift, Report};
use crate::pressure::Round;
use crate::store;
use crate::store::outbox::OutboxRow;

/// Of envelope and headers, without what the caller chose.
const ENVELOPE_BYTES: usize = 400;

impl Publisher {
    pub(super) fn finish(&mut self, done: Done) {
        match done {
            Done::Prepared(result) => self.prepared(result),
            Done::Leased { begun, result } => self.leased(begun, result),
            Done::ReadBack { partition, result } => self.read(partition, result),
            Done::Claimed { asked, limit, rows } => self.claimed(&asked, limit, rows),
            Done::Sent(sent) => self.sent(sent),
            Done::Settled { settlement, result } => self.settled(settlement, result),
            Done::Measured(result) => self.measured(result),
        }
    }

    fn prepared(&mut self, result: Result<Report, kafka::Error>) {
        let error = match result {
            Ok(report) => {
                for topic in report.created {
                    tracing::info!(topic, "topic created");
                }
                for drift in report.drift.iter().filter(|drift| !self.drift.contains(drift)) {
                    let Drift { topic, what, wanted, actual } = drift;
                    tracing::warn!(topic, what, wanted, actual, "topic differs from its settings");
                }
                self.drift = report.drift;
                return self.topics_ready();
            }
            Err(error) => error,
        };
        if !error.is_outage() {
            // A user who may only write can still publish; producing will tell.
            tracing::warn!(%error, "topics could not be ensured");
            return self.topics_ready();
        }
        metrics::counter!("kafka_producer_init_failures_total").increment(1);
        self.topics = Topics::Due;
        let first = self.kafka_pause.fail(self.retry_max);
        self.kafka_failed(&error, first, "Kafka is out of reach; events wait in the outbox");
    }

    fn topics_ready(&mut self) {
        self.topics = Topics::Ready;
        self.kafka_pause.reset();
        self.connected();
    }

    fn read(&mut self, number: i32, result: Result<ReadBack, kafka::Error>) {
        match result {
            Ok(read) => {
                self.connected();
                self.settlement.read.push(read);
            }
            Err(error) => {
                self.partition_failed(number, &error, "topic not read back");
                self.resume(number, true);
            }
        }
    }

    fn claimed(&mut self, asked: &[i32], limit: i64, rows: store::Result<Vec<OutboxRow>>) {
        self.claiming = false;
        let failed = rows.is_err();
        let rows = self.stored(rows, "outbox not read").unwrap_or_default();
        let limit_rows = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut behind = false;
        let now = Instant::now();
        let until = self.term.until();
        let sends = !self.stopping && self.term.stands(now);
        let groups: Vec<&[OutboxRow]> =
            rows.chunk_by(|left, right| left.partition == right.partition).collect();
        for number in asked {
            let group =
                groups.iter().find(|group| group.first().map(|row| row.partition) == Some(*number));
            let Some(partition) = self.partitions.get_mut(number) else { continue };
            match group {
                Some(group) if sends && partition.after_job.is_none() => {
                    let more = group.len() >= limit_rows;
                    if !more && partition.waits(&self.linger, weight(group), now) {
                        // Looked at again half-way at the soonest: a look costs a statement.
                        self.rest_until = self.rest_until.max(now + self.linger.time / 2);
                        partition.rest(Phase::Idle);
                        continue;
                    }
                    partition.lingers = None;
                    behind |= more;
                    self.sending += 1;
                    self.jobs.push(self.shared.send(
                        *number,
                        partition.epoch,
                        group.to_vec(),
                        more,
                        until,
                    ));
                }
                _ => {
                    partition.rest(Phase::Idle);
                    partition.lingers = None;
                    partition.dirty |= failed || group.is_some();
                }
            }
        }
        self.limit = match behind {
            true => self.limit.saturating_mul(2).min(self.outbox.batch_max),
            false => self.outbox.batch_size,
        };
    }

    fn sent(&mut self, sent: Sent) {
        self.sending = self.sending.saturating_sub(1);
        if sent.cut {
            // Large records: more rows would only be read in vain.
            self.limit = self.outbox.batch_size;
        }
        if sent.refused_batch || sent.trouble.is_some() {
            metrics::counter!("kafka_outbox_batch_failures_total").increment(1);
        }
        match &sent.trouble {
            Some(Trouble { error, rows, .. }) => {
                metrics::counter!("kafka_outbox_publish_errors_total").increment(*rows);
                self.partition_failed(sent.partition, error, "batch not confirmed");
            }
            None => {
                self.connected();
                if let Some(partition) = self.partitions.get_mut(&sent.partition) {
                    partition.pause.reset();
                }
            }
        }
        for refusal in &sent.refusals {
            let (id, cause) = (refusal.id, refusal.cause.as_str());
            tracing::error!(outbox_id = id, cause, "record refused; its wallet waits behind it");
            metrics::counter!("kafka_outbox_publish_errors_total").increment(1);
            self.failed(cause);
            self.progress.refused += 1;
        }
        if sent.taken.is_empty() && sent.refusals.is_empty() {
            self.after_send(&sent);
        } else {
            self.settlement.sent.push(sent);
        }
    }

    fn settled(&mut self, settlement: Settlement, result: store::Result<Settled>) {
        self.settling = false;
        let Some(settled) = self.stored(result, "marks not written") else {
            // The same again later; what was confirmed meanwhile joins it.
            self.settlement.sent.extend(settlement.sent);
            self.settlement.read.extend(settlement.read);
            return;
        };
        self.progress.found += settled.found;
        if settled.found > 0 {
            tracing::info!(rows = settled.found, "rows found in the topic, not sent again");
        }
        let mut published = settled.found;
        for sent in &settlement.sent {
            if settled.lost.contains(&sent.partition) {
                continue;
            }
            let count = u64::try_from(sent.taken.len()).unwrap_or(u64::MAX);
            published += count;
            self.progress.published += count;
            self.after_send(sent);
        }
        for read in &settlement.read {
            if settled.lost.contains(&read.partition) {
                continue;
            }
            if let Some(partition) = self.partitions.get_mut(&read.partition) {
                partition.last_offset = Some(read.last_offset);
            }
            self.resume(read.partition, !read.complete);
        }
        for number in settled.lost {
            self.lost(number);
        }
        metrics::counter!("kafka_outbox_published_total").increment(published);
        self.status.update(|pipeline| pipeline.publisher.published += published);
    }

    fn after_send(&mut self, sent: &Sent) {
        let Some(partition) = self.partitions.get_mut(&sent.partition) else { return };
        partition.last_offset = sent.last_offset.or(partition.last_offset);
        let (ended, more) = (Instant::now(), self.limit > self.outbox.batch_size);
        let round = Round { took: ended - self.round_begun, more, follows: false };
        partition.dirty |= sent.more || sent.trouble.is_some();
        self.resume(sent.partition, sent.trouble.as_ref().is_some_and(|trouble| trouble.doubtful));
        self.rest_now(ended, Some((round, ended)));
    }

    fn resume(&mut self, number: i32, doubtful: bool) {
        if let Some(partition) = self.partitions.get_mut(&number) {
            partition.rest(if doubtful { Phase::Doubtful } else { Phase::Idle });
        }
    }
}

/// Bytes of the records that these rows become, about.
fn weight(rows: &[OutboxRow]) -> usize {
    let weight = |row: &OutboxRow| row.payload.len() + row.wallet_id.len() * 3 + ENVELOPE_BYTES;
    rows.iter().map(weight).sum()
}
