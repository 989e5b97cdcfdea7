//! One topic read by several: what one has fetched a moment ago, or is just fetching, is the other's
//! answer too. A reader at another offset fetches for itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

use super::connect::Connection;
use super::error::Error;
use super::fetch::{FetchError, Fetched, Fetcher};

/// Answers kept for a partition: readers that are in step are no further apart.
const KEPT: usize = 2;
/// An older answer may be of a topic that is another by now.
const FRESH: Duration = Duration::from_secs(2);
/// A connection that was idle for longer may have been closed on us.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A topic with its readers.
#[derive(Debug)]
pub struct SharedTopic {
    connection: Arc<Connection>,
    topic: String,
    partitions: Mutex<BTreeMap<i32, Arc<Mutex<Partition>>>>,
}

/// Reads one partition from any offset.
#[derive(Debug, Clone)]
pub struct SharedReader {
    topic: Arc<SharedTopic>,
    number: i32,
    partition: Arc<Mutex<Partition>>,
}

/// Records of one answer, in offset order.
#[derive(Debug, Clone)]
pub struct Answer {
    pub records: Vec<Arc<Fetched>>,
    pub high_watermark: i64,
    asked: i64,
    at: Instant,
}

type Fetch = BoxFuture<'static, Result<Answer, FetchError>>;

#[derive(Default)]
struct Partition {
    answers: VecDeque<Answer>,
    /// The fetch under way, while a reader waits for it, and its offset.
    running: Option<(i64, WeakShared<Fetch>)>,
    /// Connections that are not in use, and since when.
    idle: Vec<(Instant, Fetcher)>,
}

impl SharedTopic {
    pub fn new(connection: Arc<Connection>, topic: &str) -> Arc<Self> {
        Arc::new(Self { connection, topic: topic.to_owned(), partitions: Mutex::default() })
    }

    pub fn reader(self: &Arc<Self>, number: i32) -> SharedReader {
        let partition = Arc::clone(lock(&self.partitions).entry(number).or_default());
        SharedReader { topic: Arc::clone(self), number, partition }
    }

    fn fetcher(&self, number: i32) -> Fetcher {
        Fetcher::new(Arc::clone(&self.connection), &self.topic, number)
    }
}

impl SharedReader {
    /// The records from `offset` on, about `max_bytes` of them but at least one. Waits up to
    /// `max_wait` where there is none yet. Readers of one topic ask for the same bytes and wait.
    pub async fn fetch(
        &self,
        offset: i64,
        max_bytes: i32,
        max_wait: Duration,
    ) -> Result<Answer, FetchError> {
        let fetch = {
            let mut partition = lock(&self.partition);
            if let Some(answer) = partition.known(offset) {
                return Ok(answer);
            }
            match partition.running(offset) {
                Some(fetch) => fetch,
                None => {
                    partition.idle.retain(|(since, _)| since.elapsed() < IDLE_MAX);
                    let fetcher = partition.idle.pop().map(|(_, fetcher)| fetcher);
                    let fetcher = fetcher.unwrap_or_else(|| self.topic.fetcher(self.number));
                    let fetch = self.begin(fetcher, offset, max_bytes, max_wait);
                    partition.running = fetch.downgrade().map(|fetch| (offset, fetch));
                    fetch
                }
            }
        };
        fetch.await
    }

    /// The first offset that is still kept.
    pub async fn earliest(&self) -> Result<i64, Error> {
        self.topic.fetcher(self.number).earliest().await
    }

    fn begin(
        &self,
        mut fetcher: Fetcher,
        offset: i64,
        max_bytes: i32,
        max_wait: Duration,
    ) -> Shared<Fetch> {
        let partition = Arc::clone(&self.partition);
        let fetch: Fetch = Box::pin(async move {
            let (records, high_watermark) = fetcher.fetch(offset, max_bytes, max_wait).await?;
            // A broker answers whole batches: some of their records may be below the offset.
            let records = records.into_iter().filter(|record| record.offset >= offset);
            let records = records.map(Arc::new).collect();
            let answer = Answer { records, high_watermark, asked: offset, at: Instant::now() };
            let mut partition = lock(&partition);
            partition.idle.push((Instant::now(), fetcher));
            partition.keep(answer.clone());
            Ok(answer)
        });
        fetch.shared()
    }
}

impl Partition {
    /// What is known of the records from `offset` on.
    fn known(&mut self, offset: i64) -> Option<Answer> {
        self.answers.retain(|answer| answer.at.elapsed() < FRESH);
        let has = |answer: &&Answer| {
            answer.asked <= offset && answer.records.last().is_some_and(|r| r.offset >= offset)
        };
        let mut answer = self.answers.iter().find(has)?.clone();
        answer.records.retain(|record| record.offset >= offset);
        Some(answer)
    }

    fn running(&self, offset: i64) -> Option<Shared<Fetch>> {
        let (from, fetch) = self.running.as_ref()?;
        // An answer that is there was known, or is too old by now.
        fetch.upgrade().filter(|fetch| *from == offset && fetch.peek().is_none())
    }

    fn keep(&mut self, answer: Answer) {
        if answer.records.is_empty() {
            return;
        }
        self.answers.push_back(answer);
        if self.answers.len() > KEPT {
            self.answers.pop_front();
        }
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition").field("answers", &self.answers.len()).finish_non_exhaustive()
    }
}

// A panic while the lock was held leaves whole answers behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn answer(asked: i64, offsets: std::ops::Range<i64>) -> Answer {
        let record = |offset| {
            let timestamp = DateTime::default();
            let headers = BTreeMap::new();
            Arc::new(Fetched { offset, key: None, value: None, headers, timestamp })
        };
        let records = offsets.map(record).collect();
        Answer { records, high_watermark: 9, asked, at: Instant::now() }
    }

    #[test]
    fn a_second_reader_has_what_the_first_was_answered_from_its_own_place_on() {
        let mut partition = Partition::default();
        partition.keep(answer(2, 2..5));
        partition.keep(answer(5, 5..6));
        let offsets = |partition: &mut Partition, offset| {
            let answer = partition.known(offset)?;
            Some(answer.records.iter().map(|record| record.offset).collect::<Vec<_>>())
        };
        assert_eq!(offsets(&mut partition, 2), Some(vec![2, 3, 4]));
        assert_eq!(offsets(&mut partition, 4), Some(vec![4]));
        assert_eq!(offsets(&mut partition, 5), Some(vec![5]));
        assert_eq!(offsets(&mut partition, 6), None, "has to be asked for");
        assert_eq!(offsets(&mut partition, 1), None, "another offset than was asked for");
    }

    #[test]
    fn old_answers_and_empty_ones_are_not_kept() {
        let mut partition = Partition::default();
        partition.keep(answer(3, 3..3));
        assert!(partition.answers.is_empty());
        for n in 0..9 {
            partition.keep(answer(n, n..n + 1));
        }
        assert_eq!(partition.answers.len(), KEPT);
        let long_ago = Instant::now().checked_sub(FRESH).unwrap();
        partition.answers.iter_mut().for_each(|answer| answer.at = long_ago);
        assert!(partition.known(8).is_none());
    }
}
