//! The outbox as a publisher's source: its unprocessed events, marked as published.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Deps;
use super::floors::Floors;
use super::source::{Batch, Mark, Marked, PrepareError, Prepared};
use crate::kafka::admin::Admin;
use crate::kafka::topics::TopicSpec;
use crate::store::leases::Leased;
use crate::store::outbox::{self, Found, OutboxRow, Refusal, Slot, floors, marks};
use crate::store::{self, Pool};
use crate::wallet::WalletKey;

#[derive(Debug)]
pub struct Outbox {
    pool: Pool,
    leased: Leased,
    specs: Vec<TopicSpec>,
    floors: Mutex<Floors>,
}

impl Outbox {
    pub fn new(deps: &Deps, leased: &Leased) -> Self {
        let codec = deps.producer.compression;
        Self {
            pool: deps.pool.clone(),
            leased: leased.clone(),
            specs: TopicSpec::all_of_events(&deps.kafka, codec, deps.partitions),
            floors: Mutex::default(),
        }
    }

    fn floors(&self) -> MutexGuard<'_, Floors> {
        self.floors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn prepare(&self, admin: &Admin) -> Result<Prepared, PrepareError> {
        let report = admin.ensure_topics(&self.specs).await?;
        Ok(Prepared { report, is_new: false })
    }

    pub async fn claim(&self, asked: &[i32], limit: i64) -> store::Result<Vec<Batch>> {
        let asked = self.floors().ask(asked);
        let rows = outbox::claim(&self.pool, &self.leased.topic, &asked.floors, limit).await?;
        self.floors().claimed(&asked);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut batches: Vec<Batch> = Vec::new();
        for row in rows {
            match batches.last_mut() {
                Some(batch) if batch.partition == row.partition => batch.rows.push(row),
                _ => batches.push(batch(row)),
            }
        }
        batches.iter_mut().for_each(|batch| batch.more = batch.rows.len() >= limit);
        Ok(batches)
    }

    pub async fn mark(&self, marks: &[Mark]) -> store::Result<Marked> {
        let mut marked = Marked::default();
        let mut written = Vec::new();
        let mut found = Vec::new();
        for mark in marks {
            let Some(last_offset) = mark.last_offset else { continue };
            let (mut events, mut refused) = confirmed(mark);
            if !mark.found.is_empty() {
                let (topic, partition) = (&self.leased.topic, mark.partition);
                let from = self.floors().of(partition).commands;
                let waited =
                    outbox::waiting(&self.pool, topic, partition, from, &mark.found).await?;
                found.push((mark.partition, waited.len()));
                events.extend(waited);
                refused.extend(mark.found.iter().map(Found::key));
            }
            let (partition, epoch) = (mark.partition, mark.epoch);
            written.push(marks::Mark { partition, epoch, last_offset, events, refused });
        }
        if !written.is_empty() {
            let standing = marks::mark(&self.pool, &self.leased, &written).await?;
            let numbers = written.iter().map(|mark| mark.partition);
            marked.lost.extend(numbers.filter(|number| !standing.contains(number)));
            found.retain(|(partition, _)| standing.contains(partition));
            let mut floors = self.floors();
            for mark in written.iter().filter(|mark| standing.contains(&mark.partition)) {
                mark.events.iter().for_each(|slot| floors.marked(mark.partition, slot.id));
            }
        }
        marked.found = found.iter().map(|(_, rows)| u64::try_from(*rows).unwrap_or(0)).sum();
        let refusals: Vec<Refusal> =
            marks.iter().flat_map(|mark| mark.refusals.iter().cloned()).collect();
        if !refusals.is_empty() {
            outbox::record_failures(&self.pool, &refusals).await?;
        }
        Ok(marked)
    }

    pub async fn measure(&self) -> store::Result<()> {
        let backlog = outbox::backlog(&self.pool, store::SILENT).await?;
        let events = u32::try_from(backlog.events).unwrap_or(u32::MAX);
        metrics::gauge!("outbox_lag_events").set(events);
        metrics::gauge!("outbox_lag_seconds").set(backlog.oldest);
        self.raise_floors().await
    }

    /// Looks how far all is processed by now.
    async fn raise_floors(&self) -> store::Result<()> {
        let (floors, behind) = self.floors().all();
        if floors.is_empty() {
            return Ok(());
        }
        let topic = &self.leased.topic;
        let writers = floors::writers(&self.pool).await?;
        let lowest = floors::lowest(&self.pool, topic, &floors).await?;
        self.floors().seen(&writers, &lowest, &behind);
        let due = self.floors().unnoted();
        if !due.is_empty() {
            floors::note(&self.pool, topic, &due).await?;
            self.floors().noted(&due);
        }
        Ok(())
    }
}

/// What was confirmed, and what of it the broker had refused before.
fn confirmed(mark: &Mark) -> (Vec<Slot>, Vec<(WalletKey, i64)>) {
    let refused = mark.sent.iter().filter(|row| row.refused);
    (
        mark.sent.iter().map(|row| row.slot.clone()).collect(),
        refused.map(|row| (row.wallet.clone(), row.version)).collect(),
    )
}

fn batch(row: OutboxRow) -> Batch {
    Batch { partition: row.partition, rows: vec![row], more: false, cursor: None }
}
