//! The projectors: topic or Postgres → ledger and read model, once in effect.
//!
//! `events` is the record, the feeds only say what is new. Checkpoint and projection move in one
//! transaction ([`apply`]), so a crash, a replay or two owners at once change nothing. One task per
//! projector: it waits for its feeds, applies all that has come by then in one transaction, and
//! goes on. It spawns nothing and keeps nothing that Postgres does not have. Its leases ([`Leases`])
//! keep several instances from doing the same work; what is right does not hang on them.

pub mod apply;
pub mod chunk;
mod feeds;
mod kafka_feed;
mod ledger;
mod maintenance;
mod mend;
mod narrow;
mod postgres_feed;
mod project;
pub mod projection;
mod read_model;
pub mod rebuild;
mod release;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::background::leases::Leases;
use crate::backoff::Backoff;
use crate::config::ConsumerSettings;
use crate::event_cache::EventCache;
use crate::instance::Instance;
use crate::status::Status;
use crate::store::checkpoints::Subscription;
use crate::store::leases::Leased;
use crate::store::{self, Blame, Pool};
use crate::throttle::{Round, Throttle};
use apply::{Outcome, apply, apply_apart};
use chunk::Chunk;
use kafka_feed::KafkaFeed;
use mend::Mend;
use postgres_feed::{Found, PostgresFeed, Role};

pub use kafka_feed::OpenPartition;
pub use projection::{LEDGER, Projection, READ_MODEL};

/// Events of a round that is large enough to go on without a rest.
const EVENTS_OF_A_LARGE_ROUND: u64 = 500;
/// Pause after an error of Postgres, doubled up to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A partition with an event of a newer build is looked at again after this.
const NEWER_PAUSE: Duration = Duration::from_secs(5);
/// Steps in a row that fail with a conflict or a time-out before it is looked for whose it is.
const FAILURES_BEFORE_SEARCH: u32 = 2;

/// One projector's work: whose events, into what.
#[derive(Debug, Clone)]
pub struct Job {
    pub kind: &'static Projection,
    pub subscription: Subscription,
    /// What the topic's wallets were hashed over.
    pub partitions: i32,
    /// Whose events they are; none: of anybody.
    pub deployment: Option<Uuid>,
    pub event_cache: EventCache,
}

/// What a projector needs; `app` puts it together.
pub struct Wiring {
    pub kind: &'static Projection,
    pub topic: String,
    pub consumer: ConsumerSettings,
    /// Readers of the topic; none with `KAFKA_ENABLED=false`.
    pub kafka: Option<OpenPartition>,
    pub pool: Pool,
    /// Fired whenever something was applied.
    pub applied: Arc<Notify>,
    /// Woken once (`notify_one`) at every commit of events; each projector has its own.
    pub commits: Arc<Notify>,
    pub status: Status,
    /// How hard commands press: they come first.
    pub throttle: Throttle,
    /// What was committed here a moment ago.
    pub event_cache: EventCache,
    pub instance: Arc<Instance>,
}

/// What a step did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Progress {
    pub outcome: Outcome,
    /// Checkpoints that were to move.
    pub chunks: usize,
}

pub struct Projector {
    wiring: Wiring,
    /// None before the first step, and after one that failed: that one's goes back to the pool, which
    /// looks whether it can be used again.
    connection: Option<store::Pooled>,
    /// Known once the topic's number of partitions is.
    job: Option<Job>,
    kafka: Option<KafkaFeed>,
    postgres: PostgresFeed,
    /// Places of another cluster are being given up; the feed from Postgres rests.
    mend: Option<Mend>,
    /// When the work besides the feeds is due.
    maintenance_due: Instant,
    leases: Leases,
    /// The partitions that the feeds read: those that are assigned, or none after an error.
    feeding: BTreeSet<i32>,
    /// As of the last look; none before the first renewal.
    assigned: Option<BTreeSet<i32>>,
    /// Partitions that wait for a newer build, and until when they are not looked at.
    waits: BTreeMap<i32, Instant>,
    failures: Failures,
}

/// Steps that failed, while what they were to apply is not known to be applied.
#[derive(Debug, Default)]
struct Failures {
    /// In a row, with a conflict or a time-out.
    passing: u32,
    last_at: Option<Instant>,
    count: u32,
}

impl Projector {
    pub fn new(wiring: Wiring) -> Self {
        let role = match (wiring.kafka.is_some() && wiring.consumer.feed_kafka, &wiring.consumer) {
            (false, _) => Role::Sole,
            (true, consumer) if consumer.feed_outbox => Role::Standby,
            (true, _) => Role::Watch,
        };
        let limit = i64::try_from(wiring.consumer.max_poll_records).unwrap_or(500);
        let postgres = PostgresFeed::new(role, limit, wiring.kafka.is_none());
        let leased = Leased {
            tenant: store::PIPELINE.to_owned(),
            role: wiring.kind.name(),
            topic: wiring.topic.clone(),
            // Known once the topic is.
            partitions: 0,
        };
        let leases = Leases::new(wiring.pool.clone(), Arc::clone(&wiring.instance), leased);
        Self {
            wiring,
            connection: None,
            job: None,
            kafka: None,
            postgres,
            mend: None,
            leases,
            feeding: BTreeSet::new(),
            assigned: None,
            waits: BTreeMap::new(),
            failures: Failures::default(),
            maintenance_due: Instant::now(),
        }
    }

    /// Works until it is stopped; a transaction that runs by then is finished.
    pub async fn run(mut self, token: CancellationToken) {
        self.report_running(true);
        self.leases.clone().beside(Box::pin(self.work(&token))).await;
        self.report_running(false);
    }

    async fn work(&mut self, token: &CancellationToken) {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        while token.run_until_cancelled(self.wait()).await.is_some() {
            let begun = Instant::now();
            match self.step().await {
                Ok(progress) => {
                    backoff.reset();
                    if progress.chunks > 0 {
                        let more = progress.outcome.applied >= EVENTS_OF_A_LARGE_ROUND;
                        let follows = self.kafka.is_some();
                        let round = Round { took: begun.elapsed(), more, follows };
                        let _ = token.run_until_cancelled(self.rest(round)).await;
                    }
                }
                Err(error) => {
                    self.report_failure(&error);
                    let error = error.told();
                    tracing::warn!(projector = self.wiring.kind.name(), error, "projecting");
                    let _ = token.run_until_cancelled(sleep(backoff.fail())).await;
                }
            }
        }
    }

    /// Applies all that has come by now. Returns without waiting where there is nothing.
    pub async fn step(&mut self) -> store::Result<Progress> {
        let result = store::bounded(store::SILENT, Box::pin(self.try_step())).await;
        if let Err(error) = &result {
            self.failures.add(error);
            // Some wallets may have been brought to their targets all the same.
            self.wiring.applied.notify_waiters();
            self.forget();
        }
        result
    }

    async fn try_step(&mut self) -> store::Result<Progress> {
        if self.job.is_none() && !self.load().await? {
            return Ok(Progress::default());
        }
        let Some(job) = self.job.clone() else { return Ok(Progress::default()) };
        self.leases.renew().await?;
        let Some(due) = self.due() else { return Ok(Progress::default()) };
        // Kept from step to step: the pool would look twice whether it is sound.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.wiring.pool.acquire().await?,
        };
        let (mends, maintains) = (due.mends, due.maintains);
        let Some(mut chunks) = self.read(&mut connection, &job, due).await? else {
            self.forget();
            return Ok(Progress::default());
        };
        let mut outcome = Outcome::default();
        if !chunks.is_empty() {
            outcome = self.apply(&mut connection, &job, &mut chunks).await?;
        }
        self.report_well();
        if mends {
            outcome.add(&self.mend_on(&mut connection, &job).await?);
        }
        if maintains {
            outcome.add(&self.maintain(&mut connection, &job).await?);
        }
        self.postgres.mark_processed(&mut connection, &job, &self.feeding).await?;
        self.connection = Some(connection);
        Ok(Progress { outcome, chunks: chunks.len() })
    }

    /// Applies what the feeds brought, and lets them go on.
    async fn apply(
        &mut self,
        connection: &mut store::Connection,
        job: &Job,
        chunks: &mut [Chunk],
    ) -> store::Result<Outcome> {
        let outcome = match self.failures.passing {
            0..FAILURES_BEFORE_SEARCH => apply(connection, job, chunks).await?,
            _ => apply_apart(connection, job, chunks).await?,
        };
        self.failures.passing = 0;
        self.report_applied(&outcome);
        if let Some(other) = chunks.iter().find_map(|chunk| chunk.foreign) {
            self.report_another(job, other);
        }
        self.resume(chunks, &outcome);
        let until = Instant::now() + NEWER_PAUSE;
        self.waits.extend(outcome.waiting.keys().map(|partition| (*partition, until)));
        self.report_waiting(&outcome.waiting);
        Ok(outcome)
    }

    /// Finds out where everything stands; false while the topic is not known yet.
    async fn load(&mut self) -> store::Result<bool> {
        let wiring = &self.wiring;
        let mut connection = wiring.pool.acquire().await?;
        let found = store::checkpoints::partitions(&mut connection, &wiring.topic).await?;
        let Some(partitions) = found else {
            self.postgres.later();
            return Ok(false);
        };
        let subscription =
            Subscription { projector: wiring.kind.name(), topic: wiring.topic.clone() };
        self.mend = Mend::begun(&mut connection, &subscription, partitions).await?;
        self.report_mending(self.mend.is_some());
        if self.assigned.is_none() {
            store::parked::hurry_newer(&mut connection, &subscription).await?;
        }
        let wiring = &self.wiring;
        if let (Some(open), true) = (&wiring.kafka, wiring.consumer.feed_kafka) {
            self.kafka = Some(KafkaFeed::new(Arc::clone(open), &wiring.consumer));
        }
        self.leases.set_partitions(partitions);
        let deployment = store::topics::deployment(&mut connection).await?;
        let event_cache = wiring.event_cache.clone();
        self.job =
            Some(Job { kind: wiring.kind, subscription, partitions, deployment, event_cache });
        Ok(true)
    }
}

impl Failures {
    fn add(&mut self, error: &store::Error) {
        let passes = error.blame() == Blame::Passing;
        self.passing = if passes { self.passing.saturating_add(1) } else { 0 };
        self.last_at = Some(Instant::now());
        self.count = self.count.saturating_add(1);
    }

    /// Whether there were some, and all events are applied that are older than the last.
    fn are_over(&self, found: &Found) -> bool {
        let Some(since) = self.last_at.map(|at| at.elapsed()) else { return false };
        found.lag.values().all(|(pending, age)| *pending == 0 || *age < since)
    }
}
