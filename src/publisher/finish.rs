//! What follows from a task's end: the next state of its partitions, pauses, status and metrics.
//! Never waits.

use tokio::time::Instant;

use super::partition::{Event, Partition};
use super::read_back::ReadBack;
use super::send::{Sent, Trouble};
use super::source::{Batch, Mark, Marked, PrepareError, Prepared};
use super::tasks::Done;
use super::{Publisher, TopicState, Turn};
use crate::kafka;
use crate::kafka::topics::Drift;
use crate::store;
use crate::store::outbox::OutboxRow;

/// Of envelope and headers, without what the caller chose.
const ENVELOPE_BYTES: usize = 400;

impl Publisher {
    pub(super) fn finish(&mut self, done: Done) {
        match done {
            Done::Prepared(result) => self.prepared(result),
            Done::ReadBack { partition, result } => self.read(partition, result),
            Done::Claimed { asked, result } => self.claimed(&asked, result),
            Done::Sent(sent) => self.sent(sent),
            Done::Marked { marks, result } => self.marked(marks, result),
            Done::Measured(result) => {
                self.measuring = Turn::Done;
                self.stored(result, "backlog not measured");
            }
        }
        if self.report.is_troubled() && self.is_well() {
            self.report.well();
        }
    }

    fn is_well(&self) -> bool {
        self.topic == TopicState::Ready
            && !self.store_pause.has_failed()
            && !self.partitions.values().any(Partition::is_struggling)
    }

    fn prepared(&mut self, result: Result<Prepared, PrepareError>) {
        let error = match result {
            Ok(prepared) => {
                for topic in prepared.report.created {
                    tracing::info!(topic, "topic created");
                }
                let drift = prepared.report.drift;
                for found in drift.iter().filter(|found| !self.drift.contains(found)) {
                    let Drift { topic, what, wanted, actual } = found;
                    tracing::warn!(topic, what, wanted, actual, "topic differs from its settings");
                }
                self.drift = drift;
                if prepared.is_new {
                    self.partitions.values_mut().for_each(|partition| partition.lease(None));
                }
                return self.topic_ready();
            }
            Err(error) => error,
        };
        let kafka_error = match error {
            PrepareError::Kafka(error) => error,
            PrepareError::Store(error) => {
                self.topic = TopicState::Due;
                self.stored::<()>(Err(error), "topic not noted");
                return;
            }
            PrepareError::Topic(text) => {
                self.topic = TopicState::Due;
                let first = self.kafka_pause.fail(self.retry_max);
                return self.report.trouble(&text, first);
            }
        };
        if !kafka_error.is_outage() && self.report.is_primary() {
            // A user who may only write can still publish; producing will tell.
            tracing::warn!(error = %kafka_error, "topics could not be ensured");
            return self.topic_ready();
        }
        self.report.topic_out_of_reach();
        self.topic = TopicState::Due;
        let first = self.kafka_pause.fail(self.retry_max);
        let what = "Kafka is out of reach; events wait in the outbox";
        self.report.kafka_failed(&kafka_error, first, what);
    }

    fn topic_ready(&mut self) {
        self.topic = TopicState::Ready;
        self.kafka_pause.reset();
        self.connected();
    }

    fn read(&mut self, number: i32, result: Result<ReadBack, kafka::Error>) {
        let event = match result {
            Ok(read) => {
                self.connected();
                let in_doubt = !read.complete;
                self.marks.push(read.into());
                Event::ToMark { in_doubt }
            }
            Err(error) => {
                self.partition_failed(number, &error, "topic not read back");
                Event::Nothing { in_doubt: true }
            }
        };
        self.tell(number, event);
    }

    fn claimed(&mut self, asked: &[i32], result: store::Result<Vec<Batch>>) {
        let failed = result.is_err();
        let mut batches = self.stored(result, "outbox not read").unwrap_or_default();
        let now = Instant::now();
        let sends = !self.stopping && self.leases.stands(now);
        let mut behind = false;
        for number in asked {
            let found = batches.iter().position(|batch| batch.partition == *number);
            let batch = found.map(|at| batches.swap_remove(at));
            let Some(partition) = self.partitions.get_mut(number) else { continue };
            let dirty = failed || batch.is_some();
            match batch {
                Some(batch) if sends && !partition.is_superseded() => {
                    behind |= self.start_batch(*number, batch, now);
                }
                _ => {
                    partition.linger_until = None;
                    partition.dirty |= dirty;
                    partition.on(Event::Nothing { in_doubt: false });
                }
            }
        }
        self.claims.end(behind);
    }

    /// Sends what was claimed, or marks how far that was; whether rows were left behind.
    fn start_batch(&mut self, number: i32, batch: Batch, now: Instant) -> bool {
        let Some(partition) = self.partitions.get_mut(&number) else { return false };
        let (epoch, more) = (partition.epoch, batch.more);
        if batch.rows.is_empty() {
            partition.dirty |= more;
            match batch.cursor {
                Some(cursor) => {
                    partition.on(Event::ToMark { in_doubt: false });
                    let cursor = Some(cursor);
                    self.marks.push(Mark { partition: number, epoch, cursor, ..Mark::default() });
                }
                None => {
                    partition.on(Event::Nothing { in_doubt: false });
                    self.claims.pause_empty(now);
                }
            }
            return false;
        }
        if !more && partition.lingers(&self.claims.linger, weight(&batch.rows), now) {
            self.claims.linger(now);
            partition.on(Event::Nothing { in_doubt: false });
            return false;
        }
        partition.linger_until = None;
        partition.on(Event::SendBegun);
        self.tasks.push(self.shared.send(epoch, batch, self.leases.until()));
        more
    }

    fn sent(&mut self, sent: Sent) {
        let number = sent.mark.partition;
        if sent.cut {
            self.claims.shrink();
        }
        self.report.sent(&sent);
        match &sent.trouble {
            Some(Trouble { error, .. }) => {
                self.partition_failed(number, error, "batch not confirmed");
            }
            None => {
                self.connected();
                if let Some(partition) = self.partitions.get_mut(&number) {
                    partition.pause.reset();
                }
            }
        }
        let Some(partition) = self.partitions.get_mut(&number) else { return };
        if !sent.mark.refusals.is_empty() && self.shared.refusals_stop() {
            partition.pause.fail(self.retry_max);
        }
        partition.dirty |= sent.more || sent.trouble.is_some();
        let in_doubt = sent.trouble.as_ref().is_some_and(|trouble| trouble.in_doubt);
        if sent.mark.is_empty() {
            partition.on(Event::Nothing { in_doubt });
            self.claims.round_ended(Instant::now());
        } else {
            partition.on(Event::ToMark { in_doubt });
            self.marks.push(sent.mark);
        }
    }

    fn marked(&mut self, marks: Vec<Mark>, result: store::Result<Marked>) {
        self.marking = false;
        let Some(marked) = self.stored(result, "marks not written") else {
            // The same again later; what was confirmed meanwhile joins it.
            self.marks.extend(marks);
            return;
        };
        let mut published = marked.found;
        for mark in marks.iter().filter(|mark| !marked.lost.contains(&mark.partition)) {
            published += u64::try_from(mark.sent.len()).unwrap_or(u64::MAX);
            let Some(partition) = self.partitions.get_mut(&mark.partition) else { continue };
            partition.last_offset = mark.last_offset.or(partition.last_offset);
            partition.on(Event::Marked);
            if !mark.sent.is_empty() || !mark.refusals.is_empty() {
                self.claims.round_ended(Instant::now());
            }
        }
        for mark in marks.iter().filter(|mark| marked.lost.contains(&mark.partition)) {
            self.lost(mark.partition, mark.epoch);
        }
        self.report.marked(published, marked.found);
    }

    fn tell(&mut self, number: i32, event: Event) {
        if let Some(partition) = self.partitions.get_mut(&number) {
            partition.on(event);
        }
    }
}

/// Bytes of the records that these rows become, about.
fn weight(rows: &[OutboxRow]) -> usize {
    let weight = |row: &OutboxRow| row.payload.len() + row.wallet_id.len() * 3 + ENVELOPE_BYTES;
    rows.iter().map(weight).sum()
}
