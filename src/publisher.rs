//! The publisher: outbox → topic, in order per wallet, woken by commits.
//!
//! | step | what | bound |
//! |---|---|---|
//! | lease | renews what it has, takes its share of what is free, gives up what is above it | one statement every 3 s |
//! | read back | what the topic holds behind the last known offset; its rows are marked | once per doubt |
//! | claim | the next rows of every idle partition | one statement |
//! | send | one request per partition, one in flight per partition | rows and bytes |
//! | settle | marks of all that is confirmed, fenced by the epoch | one statement |
//!
//! A partition is idle again only after its marks: row k+1 is never sent before row k is confirmed.
//! After an unknown outcome, and when it is new here, it is in doubt, and sends nothing before it has
//! been read back. Nothing is sent on a lease that has run out by the own clock. Every
//! step is a job in one set; nothing here waits for one job while another could go on, and each
//! failure pauses only what it struck: a partition, Kafka as a whole, or Postgres.

mod finish;
mod jobs;
mod lease;
mod partition;
pub(crate) mod pause;
pub(crate) mod read_back;
mod report;
pub(crate) mod send;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{KafkaSettings, OutboxSettings, ProducerSettings};
use crate::instance::{Instance, Term};
use crate::kafka::topics::Drift;
use crate::kafka::{Breaker, BreakerState};
use crate::pressure::{Pressure, Round};
use crate::status::Status;
use crate::store::Pool;
use jobs::{Job, Settlement, Shared};
use partition::{Linger, Partition};
use pause::Pause;

/// At shutdown, produces and marks in flight get so long. What is cut off is found by read-back.
const DRAIN: Duration = Duration::from_secs(5);
/// Then its partitions are given up; where Postgres is slow to take that, they run out.
const LEAVE: Duration = Duration::from_secs(2);

/// What `app` wires the publisher with.
#[derive(Debug)]
pub struct Parts {
    pub pool: Pool,
    /// Under which the leases of a topic shared by all tenants are kept.
    pub tenant: String,
    /// The count that keys are hashed over: `store::topics::hashed_over`.
    pub partitions: i32,
    /// Whose events they are, as each of them says.
    pub deployment: Option<Uuid>,
    pub kafka: KafkaSettings,
    pub producer: ProducerSettings,
    pub outbox: OutboxSettings,
    pub status: Status,
    pub instance: Arc<Instance>,
    pub breaker: Arc<Breaker>,
    /// Fired after each commit that wrote outbox rows, here or elsewhere.
    pub wake: Arc<Notify>,
    /// How hard commands press: they come first.
    pub pressure: Pressure,
}

/// What one [`Publisher::step`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows sent and confirmed.
    pub published: u64,
    /// Rows that the topic held already.
    pub found: u64,
    /// Rows that the broker would not take.
    pub refused: u64,
    /// Jobs that failed.
    pub errors: u64,
}

/// Whether the topics are known to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topics {
    Due,
    Preparing,
    Ready,
}

/// Publishes one topic.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    outbox: OutboxSettings,
    retry_max: Duration,
    status: Status,
    wake: Arc<Notify>,
    instance: Arc<Instance>,
    term: Term,
    breaker: Arc<Breaker>,
    partitions: BTreeMap<i32, Partition>,
    jobs: FuturesUnordered<Job>,
    topics: Topics,
    /// Confirmed and not yet marked.
    settlement: Settlement,
    leasing: bool,
    claiming: bool,
    settling: bool,
    measure_due: bool,
    measuring: bool,
    sending: usize,
    stopping: bool,
    kafka_pause: Pause,
    store_pause: Pause,
    /// Rows per partition of the next claim.
    limit: i64,
    linger: Linger,
    pressure: Pressure,
    /// When the last claim began, what came of it and when, and until when the next one waits.
    round_begun: Instant,
    rest: Option<(Round, Instant)>,
    rest_until: Instant,
    progress: Progress,
    /// Kafka has answered once.
    met: bool,
    /// The trouble that was told last, and when.
    told: Option<(String, Instant)>,
    /// How the topics differ from their settings, as it was told last.
    drift: Vec<Drift>,
}

impl Publisher {
    pub fn new(parts: Parts) -> Self {
        let limit = parts.outbox.batch_size;
        let ProducerSettings { linger, batch_bytes, .. } = parts.producer;
        Self {
            linger: Linger { time: linger, bytes: batch_bytes },
            outbox: parts.outbox.clone(),
            retry_max: parts.kafka.retry_max,
            status: parts.status.clone(),
            wake: Arc::clone(&parts.wake),
            pressure: parts.pressure.clone(),
            round_begun: Instant::now(),
            rest: None,
            rest_until: Instant::now(),
            instance: Arc::clone(&parts.instance),
            term: parts.instance.term(),
            breaker: Arc::clone(&parts.breaker),
            partitions: (0..parts.partitions).map(|n| (n, Partition::default())).collect(),
            shared: Arc::new(Shared::new(parts)),
            jobs: FuturesUnordered::new(),
            topics: Topics::Due,
            settlement: Settlement::default(),
            leasing: false,
            claiming: false,
            settling: false,
            measure_due: false,
            measuring: false,
            sending: 0,
            stopping: false,
            kafka_pause: Pause::default(),
            store_pause: Pause::default(),
            limit,
            progress: Progress::default(),
            met: false,
            told: None,
            drift: Vec::new(),
        }
    }

    /// Publishes until `token` is cancelled, then finishes what is in flight, within a bound.
    pub async fn run(mut self, token: CancellationToken) {
        self.status.update(|pipeline| pipeline.publisher.running = true);
        let mut tick = interval(self.outbox.poll_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut breaker = self.breaker.subscribe();
        loop {
            self.start_jobs();
            let retry = self.next_retry();
            tokio::select! {
                () = token.cancelled() => break,
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.finish(done),
                () = self.wake.notified() => self.all_dirty(),
                () = self.term.moved() => self.term.hurry(),
                Ok(()) = breaker.changed() => {
                    if *breaker.borrow_and_update() == BreakerState::Closed {
                        self.shorten_pauses();
                    }
                }
                _ = tick.tick() => {
                    self.all_dirty();
                    self.measure_due = true;
                }
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
            }
        }
        self.stopping = true;
        if timeout(DRAIN, self.drain()).await.is_err() {
            tracing::warn!(
                "publisher stopped with requests in flight; the next start reads them back"
            );
        }
        self.leave().await;
        self.status.update(|pipeline| pipeline.publisher.running = false);
    }

    /// Publishes all that can be published now, without waiting for pauses to end.
    pub async fn step(&mut self) -> Progress {
        self.progress = Progress::default();
        self.all_dirty();
        self.rest_now(Instant::now(), None);
        self.start_jobs();
        while let Some(done) = self.jobs.next().await {
            self.finish(done);
            self.rest_now(Instant::now(), None);
            self.start_jobs();
        }
        self.progress
    }

    async fn drain(&mut self) {
        loop {
            self.start_jobs();
            // A mark that Postgres would not take stays behind for the read-back.
            if self.sending == 0 && !self.settling {
                return;
            }
            if let Some(done) = self.jobs.next().await {
                self.finish(done);
            }
        }
    }

    /// Rests after a round, or goes on resting; none: not any longer.
    fn rest_now(&mut self, now: Instant, rest: Option<(Round, Instant)>) {
        let left =
            rest.map_or(Duration::ZERO, |(round, ended)| self.pressure.rest(round, now - ended));
        self.rest = rest.filter(|_| !left.is_zero());
        self.rest_until = now + left;
    }

    fn all_dirty(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.dirty = true;
        }
    }
}
