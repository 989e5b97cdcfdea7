//! The first feed: the topic. One fetch in flight per partition, all polled by the projector's own
//! task; a partition fetches on once its last chunk is applied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};

use super::chunk::Chunk;
use crate::backoff::Backoff;
use crate::config::ConsumerSettings;
use crate::kafka::{FetchError, Fetched, SharedReader};
use crate::status::PartitionStatus;

/// Makes the reader of one partition.
pub type OpenPartition = Arc<dyn Fn(i32) -> SharedReader + Send + Sync>;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A partition that had read its topic to the end this long ago is in step.
const IN_STEP: Duration = Duration::from_secs(2);

pub struct KafkaFeed {
    open: OpenPartition,
    /// Partitions to read; each time one is begun, its reader has a new number.
    assigned: BTreeMap<i32, u64>,
    begun: u64,
    max_records: usize,
    /// Of one answer: gzip makes ten times as much of it in memory, and every partition may have one at hand.
    max_bytes: i32,
    max_wait: Duration,
    fetching: FuturesUnordered<BoxFuture<'static, Fetch>>,
    /// Partitions whose chunk is being applied.
    waiting: BTreeMap<i32, Reader>,
    /// When each partition was last seen at its topic's end.
    at_end: BTreeMap<i32, Instant>,
    /// Each partition's next offset to apply and its topic's end, as of its last fetch.
    places: BTreeMap<i32, PartitionStatus>,
    /// Partitions whose last fetch failed.
    failing: BTreeSet<i32>,
    /// What came and is not applied yet.
    ready: Vec<Arrived>,
}

/// What a partition brought.
#[derive(Debug)]
pub enum Arrived {
    Chunk(Chunk),
    /// The offset is not in the topic: go on at the earliest one that is.
    OutOfRange {
        partition: i32,
        expected: i64,
        earliest: i64,
    },
    Failed {
        partition: i32,
        error: String,
    },
}

impl Arrived {
    fn partition(&self) -> i32 {
        match self {
            Self::Chunk(chunk) => chunk.partition,
            Self::OutOfRange { partition, .. } | Self::Failed { partition, .. } => *partition,
        }
    }
}

/// One partition's reader and its place.
struct Reader {
    partition: i32,
    number: u64,
    position: i64,
    /// Behind the chunk that is being applied.
    next: i64,
    fetcher: SharedReader,
    /// Fetched and more than one chunk may hold.
    rest: VecDeque<Arc<Fetched>>,
    high_watermark: i64,
    backoff: Backoff,
    /// To wait before the next fetch.
    pause: Duration,
}

struct Fetch {
    reader: Reader,
    result: Result<(), Failure>,
}

enum Failure {
    OutOfRange(i64),
    Other(String),
}

impl KafkaFeed {
    /// Reads nothing yet.
    pub fn new(open: OpenPartition, consumer: &ConsumerSettings) -> Self {
        Self {
            open,
            assigned: BTreeMap::new(),
            begun: 0,
            max_records: consumer.max_poll_records,
            max_bytes: consumer.fetch_bytes,
            max_wait: consumer.max_wait,
            fetching: FuturesUnordered::new(),
            waiting: BTreeMap::new(),
            at_end: BTreeMap::new(),
            places: BTreeMap::new(),
            failing: BTreeSet::new(),
            ready: Vec::new(),
        }
    }

    /// Reads these partitions as well, each from its offset on.
    pub fn begin(&mut self, places: impl Iterator<Item = (i32, i64)>) {
        for (partition, next_offset) in places {
            // Its end is not known before the first fetch.
            let place = PartitionStatus { next_offset, high_watermark: next_offset, oldest: None };
            self.places.insert(partition, place);
            self.begun += 1;
            self.assigned.insert(partition, self.begun);
            self.fetch(Reader {
                partition,
                number: self.begun,
                position: next_offset,
                next: next_offset,
                fetcher: (self.open)(partition),
                rest: VecDeque::new(),
                high_watermark: 0,
                backoff: Backoff::new(PAUSE, PAUSE_MAX),
                pause: Duration::ZERO,
            });
        }
    }

    /// Reads no partition but these any longer. What is on its way for another is dropped when it
    /// comes.
    pub fn keep(&mut self, held: &BTreeSet<i32>) {
        self.assigned.retain(|partition, _| held.contains(partition));
        self.waiting.retain(|partition, _| held.contains(partition));
        self.at_end.retain(|partition, _| held.contains(partition));
        self.places.retain(|partition, _| held.contains(partition));
        self.failing.retain(|partition| held.contains(partition));
        self.ready.retain(|arrived| held.contains(&arrived.partition()));
    }

    /// Waits until a partition has brought something. May be dropped at any time.
    pub async fn arrival(&mut self) {
        while self.ready.is_empty() {
            self.next().await;
        }
    }

    /// Keeps what comes for later, for ever. May be dropped at any time.
    pub async fn gather(&mut self) {
        loop {
            self.next().await;
        }
    }

    async fn next(&mut self) {
        match self.fetching.next().await {
            Some(fetch) => self.arrived(fetch),
            // All partitions wait for their chunks to be applied.
            None => std::future::pending().await,
        }
    }

    /// All that is there by now.
    pub fn take(&mut self) -> Vec<Arrived> {
        while let Some(Some(fetch)) = futures_util::FutureExt::now_or_never(self.fetching.next()) {
            self.arrived(fetch);
        }
        std::mem::take(&mut self.ready)
    }

    /// The partition's chunk is applied, or will not be: go on from `position`.
    pub fn resume(&mut self, partition: i32, position: i64) {
        let Some(mut reader) = self.waiting.remove(&partition) else { return };
        self.places.entry(partition).or_default().next_offset = position;
        // What is left over follows on the applied chunk only.
        if position != reader.next {
            reader.rest.clear();
        }
        reader.position = position;
        self.fetch(reader);
    }

    /// Partitions that had read their topic to the end a moment ago.
    pub fn in_step(&self) -> BTreeSet<i32> {
        let recent = |at: &Instant| at.elapsed() < IN_STEP + self.max_wait;
        self.at_end.iter().filter(|(_, at)| recent(at)).map(|(partition, _)| *partition).collect()
    }

    /// Where the partitions stand, those that bring nothing included.
    pub fn places(&self) -> &BTreeMap<i32, PartitionStatus> {
        &self.places
    }

    /// Every partition's last fetch was answered.
    pub fn is_well(&self) -> bool {
        self.failing.is_empty()
    }

    fn arrived(&mut self, fetch: Fetch) {
        let Fetch { mut reader, result } = fetch;
        let partition = reader.partition;
        if self.assigned.get(&partition) != Some(&reader.number) {
            return;
        }
        match result {
            Ok(()) => {
                reader.backoff.reset();
                self.failing.remove(&partition);
                let (next_offset, high_watermark) = (reader.position, reader.high_watermark);
                let place = PartitionStatus { next_offset, high_watermark, oldest: None };
                self.places.insert(partition, place);
                let count = self.max_records.min(reader.rest.len());
                let records: Vec<Arc<Fetched>> = reader.rest.drain(..count).collect();
                if reader.rest.is_empty() {
                    self.at_end.insert(partition, Instant::now());
                }
                if records.is_empty() {
                    // A fetch of records that no consumer may see (yet) is answered at once, for ever.
                    let hidden = reader.high_watermark > reader.position;
                    reader.pause = if hidden { self.max_wait } else { Duration::ZERO };
                    self.fetch(reader);
                    return;
                }
                let chunk = Chunk::of_records(partition, reader.position, records);
                reader.next = chunk.next;
                self.ready.push(Arrived::Chunk(chunk));
                self.waiting.insert(partition, reader);
            }
            Err(Failure::OutOfRange(earliest)) => {
                let expected = reader.position;
                self.ready.push(Arrived::OutOfRange { partition, expected, earliest });
                self.waiting.insert(partition, reader);
            }
            Err(Failure::Other(error)) => {
                self.failing.insert(partition);
                reader.pause = reader.backoff.fail();
                self.at_end.remove(&partition);
                self.ready.push(Arrived::Failed { partition, error });
                self.fetch(reader);
            }
        }
    }

    fn fetch(&self, mut reader: Reader) {
        let (max_bytes, max_wait) = (self.max_bytes, self.max_wait);
        self.fetching.push(Box::pin(async move {
            sleep(std::mem::take(&mut reader.pause)).await;
            let result = if reader.rest.is_empty() {
                reader.fetch(max_bytes, max_wait).await
            } else {
                Ok(())
            };
            Fetch { reader, result }
        }));
    }
}

impl Reader {
    async fn fetch(&mut self, max_bytes: i32, max_wait: Duration) -> Result<(), Failure> {
        match self.fetcher.fetch(self.position, max_bytes, max_wait).await {
            Ok(answer) => {
                self.rest = answer.records.into();
                self.high_watermark = answer.high_watermark;
                Ok(())
            }
            Err(FetchError::OffsetOutOfRange(_)) => match self.fetcher.earliest().await {
                Ok(earliest) => Err(Failure::OutOfRange(earliest)),
                Err(error) => Err(Failure::Other(error.to_string())),
            },
            Err(error) => Err(Failure::Other(error.to_string())),
        }
    }
}
