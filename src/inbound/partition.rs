//! One partition's reader: fetches, waits until records are due, has them executed, and moves the
//! place on. A chunk at a time; the next one begins when everything of the last is done.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::consumer::{Places, lock};
use super::letters::{self, Letters};
use super::{Shared, Stage, batch, now, send};
use crate::backoff::Backoff;
use crate::kafka::{FetchError, Fetched, Fetcher};
use crate::status::PartitionStatus;
use crate::store::checkpoints::{self, Advance, Subscription};
use crate::store::{self, Connection};

/// Commands that are executed together, at most.
const CHUNK: usize = 256;
/// Bytes of one answer, as the topic has them.
const FETCH_BYTES: i32 = 256 * 1024;
/// A fetch is answered as soon as there is a record: only an idle topic is asked this seldom.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// A fetch of records that no consumer may see is answered at once, for ever.
const HIDDEN: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

pub(super) struct Worker {
    pub shared: Arc<Shared>,
    pub stage: usize,
    pub partition: i32,
    pub places: Places,
    pub stop: CancellationToken,
}

impl Worker {
    /// Reads from `position` until it is stopped; returns its partition to the starter.
    pub async fn run(self, position: i64) -> i32 {
        if let Some(stage) = self.shared.stages.get(self.stage) {
            self.read(stage, position).await;
        }
        self.partition
    }

    /// None: the task is being stopped.
    async fn read(&self, stage: &Stage, mut position: i64) -> Option<()> {
        let connection = Arc::clone(&self.shared.parts.connection);
        let mut fetcher = Fetcher::new(connection, &stage.topic.name, self.partition);
        let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
        loop {
            let fetching = fetcher.fetch(position, FETCH_BYTES, MAX_WAIT);
            let error = match self.stop.run_until_cancelled(fetching).await? {
                Ok((records, end)) => {
                    if backoff.failures() > 0 {
                        self.shared.report_well();
                    }
                    backoff.reset();
                    position = self.consume(stage, position, end, records).await?;
                    continue;
                }
                Err(FetchError::OffsetOutOfRange(_)) => {
                    match self.stop.run_until_cancelled(fetcher.earliest()).await? {
                        Ok(earliest) => {
                            position = self.skip(stage, position, earliest).await?;
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Err(FetchError::Kafka(error)) => error,
            };
            self.shared.report_error(&format!(
                "{}, partition {}: {error}",
                stage.topic.name, self.partition
            ));
            self.wait(backoff.fail()).await?;
        }
    }

    /// Settles what was fetched, chunk by chunk; where to read on.
    async fn consume(
        &self,
        stage: &Stage,
        mut position: i64,
        end: i64,
        mut records: Vec<Fetched>,
    ) -> Option<i64> {
        let fetched_at = now();
        // A broker answers whole batches: some of their records may be below the position.
        records.retain(|record| record.offset >= position);
        if records.is_empty() {
            self.note(position, end, None);
            if end > position {
                self.wait(HIDDEN).await?;
            }
            return Some(position);
        }
        let mut rest = records.as_slice();
        while let Some(first) = rest.first() {
            self.note(position, end, Some(first.timestamp));
            let due = self.due(stage, rest, fetched_at).await?;
            let (chunk, left) = rest.split_at_checked(due.min(CHUNK))?;
            let mut handled =
                batch::execute_chunk(&self.shared, self.stage, chunk, &self.stop).await?;
            send::send(&self.shared, self.stage, self.partition, &mut handled, &self.stop).await?;
            let next = chunk.last().map_or(position, |record| record.offset + 1);
            let letters = letters::letters(&self.shared, self.stage, self.partition, &handled);
            let place = self.advance(position, next, &letters).await?;
            self.shared.report_handled(self.stage, &handled);
            position = place;
            if place != next {
                break;
            }
            rest = left;
        }
        self.note(position, end, rest.first().map(|record| record.timestamp));
        Some(position)
    }

    /// Counts the first records that are due; waits for the first of them.
    async fn due(
        &self,
        stage: &Stage,
        records: &[Fetched],
        fetched_at: DateTime<Utc>,
    ) -> Option<usize> {
        // A time in the future is of another clock: a record waits no longer than the delay.
        let due = |record: &Fetched| record.timestamp.min(fetched_at) + stage.delay;
        let first = records.first()?;
        if let Ok(rest) = (due(first) - now()).to_std() {
            self.wait(rest).await?;
        }
        let until = now().max(due(first));
        Some(records.iter().take_while(|record| due(record) <= until).count())
    }

    /// Moves the place on, and keeps the dead letters before it; where it is by now, which is elsewhere
    /// after a reset or under another owner.
    async fn advance(&self, from: i64, to: i64, letters: &Letters) -> Option<i64> {
        loop {
            match store::bounded(store::SILENT, self.try_advance(from, to, letters)).await {
                Ok(place) => return Some(place),
                Err(error) => {
                    self.shared.report_error(&format!("Postgres: {error}"));
                    self.wait(PAUSE).await?;
                }
            }
        }
    }

    async fn try_advance(&self, from: i64, to: i64, letters: &Letters) -> store::Result<i64> {
        let of = self.shared.subscription(self.stage);
        let (partition, next_offset) = (self.partition, Some((from, to)));
        let advance = [Advance { partition, next_offset, feed_xid: None }];
        let mut connection = store::acquire(&self.shared.parts.pool).await?;
        let moved = match letters.is_empty() {
            true => checkpoints::advance(&mut connection, &of, &advance).await?,
            false => self.keep(&mut connection, &of, &advance, letters).await?,
        };
        if !moved.is_empty() {
            return Ok(to);
        }
        let (tenant, topic) = (store::PIPELINE, &of.topic);
        drop(connection);
        let pool = &self.shared.parts.pool;
        let places = store::group_offsets::positions(pool, tenant, of.projector, topic).await?;
        let place = places.iter().find(|place| place.partition == partition);
        Ok(place.map_or(from, |place| place.next_offset))
    }

    /// Writes both in one transaction: what is behind a place is kept. An instance that moved it meanwhile
    /// has kept the same.
    async fn keep(
        &self,
        connection: &mut Connection,
        of: &Subscription,
        advance: &[Advance],
        letters: &Letters,
    ) -> store::Result<Vec<i32>> {
        store::begin(connection).await?;
        let keeping = async {
            let moved = checkpoints::advance(connection, of, advance).await?;
            store::Result::Ok((moved, letters::keep(connection, letters).await?))
        };
        let kept = keeping.await;
        let (moved, news) = store::answered(connection, kept).await?;
        letters::tell(&news);
        Ok(moved)
    }

    /// The offset is not in the topic: goes on at the earliest one that is.
    async fn skip(&self, stage: &Stage, from: i64, earliest: i64) -> Option<i64> {
        let error = format!(
            "{}, partition {}: offset {from} is not in the topic, going on at {earliest}; commands \
             between, if there were any, are not executed: their senders have no results",
            stage.topic.name, self.partition
        );
        tracing::error!("{error}");
        self.shared.report_error(&error);
        self.advance(from, earliest, &Letters::new()).await
    }

    fn note(&self, next_offset: i64, end: i64, first: Option<DateTime<Utc>>) {
        let oldest = first.map(|first| first.timestamp_millis());
        let place = PartitionStatus { next_offset, high_watermark: end, oldest };
        lock(&self.places).insert(self.partition, place);
    }

    async fn wait(&self, pause: Duration) -> Option<()> {
        self.stop.run_until_cancelled(sleep(pause)).await
    }
}
