//! The projectors: topic or Postgres → ledger and read model, once in effect.
//!
//! `events` is the record, the feeds only say what is new. Checkpoint and projection move in one
//! transaction ([`apply`]), so a crash, a replay or two owners at once change nothing. One task per
//! projector: it waits for its feeds, applies all that has come by then in one transaction, and
//! goes on. It spawns nothing and keeps nothing that Postgres does not have. Its leases ([`Leases`])
//! keep several instances from doing the same work; what is right does not hang on them.

pub mod apply;
mod assignment;
pub mod chunk;
mod kafka_feed;
mod ledger;
mod mend;
mod narrow;
mod postgres_feed;
mod project;
mod read_model;
pub mod rebuild;
mod release;
mod report;
mod tend;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::background::leases::Leases;
use crate::backoff::Backoff;
use crate::config::ConsumerSettings;
use crate::instance::Instance;
use crate::pressure::{Pressure, Round};
use crate::recent::Recent;
use crate::status::Status;
use crate::store::checkpoints::{Advance, Subscription};
use crate::store::leases::Leased;
use crate::store::{self, Blame, Pool};
use crate::wallet::TenantId;
use apply::{Outcome, apply, apply_apart};
use chunk::{Chunk, Feed};
use kafka_feed::{Arrived, KafkaFeed};
use mend::Mend;
use postgres_feed::{Found, PostgresFeed, Role};

pub use kafka_feed::OpenPartition;

pub const LEDGER: &str = "ledger-projector";
pub const READ_MODEL: &str = "read-model-projector";

/// Events of a round that is large enough to go on without a rest.
const MANY: u64 = 500;
/// Pause after an error of Postgres, doubled up to the second.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Steps in a row that fail with a conflict or a time-out before it is looked for whose it is.
const PATIENT: u32 = 2;

/// What is projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ledger,
    ReadModel,
}

/// One projector's work: whose events, into what.
#[derive(Debug, Clone)]
pub struct Job {
    pub kind: Kind,
    pub subscription: Subscription,
    /// What the topic's wallets were hashed over.
    pub partitions: i32,
    /// Whose events they are; none: of anybody.
    pub deployment: Option<Uuid>,
    pub recent: Recent,
}

/// What a projector needs; `app` puts it together.
pub struct Wiring {
    pub kind: Kind,
    pub tenant: TenantId,
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
    pub pressure: Pressure,
    /// What was committed here a moment ago.
    pub recent: Recent,
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
    tend_due: Instant,
    leases: Leases,
    /// The partitions that the feeds read: those that are assigned, or none after an error.
    feeding: BTreeSet<i32>,
    /// As of the last look; none before the first renewal.
    assigned: Option<BTreeSet<i32>>,
    /// Steps in a row that failed with a conflict or a time-out.
    passing: u32,
    /// When a step failed last, while what it was to apply is not known to be applied.
    failed_at: Option<Instant>,
    /// Steps that have failed since it last was.
    failures: u32,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Ledger, Self::ReadModel];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ledger => LEDGER,
            Self::ReadModel => READ_MODEL,
        }
    }

    /// As commands and routes name what it projects.
    pub const WORDS: &[(&str, Self)] = &[("ledger", Self::Ledger), ("read-model", Self::ReadModel)];

    pub fn parse(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, kind)| *kind)
    }
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
            tenant: wiring.tenant.as_str().to_owned(),
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
            passing: 0,
            failed_at: None,
            failures: 0,
            tend_due: Instant::now(),
        }
    }

    /// Works until told to stop; a transaction that runs by then is finished.
    pub async fn run(mut self, token: CancellationToken) {
        self.report_running(true);
        self.leases.clone().beside(Box::pin(self.work(&token))).await;
        self.report_running(false);
    }

    async fn work(&mut self, token: &CancellationToken) {
        let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
        while token.run_until_cancelled(self.wait()).await.is_some() {
            let begun = Instant::now();
            match self.step().await {
                Ok(progress) => {
                    backoff.reset();
                    if progress.chunks > 0 {
                        let more = progress.outcome.applied >= MANY;
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

    /// Waits until there may be something to do. May be dropped at any time.
    async fn wait(&mut self) {
        let Some(job) = &self.job else { return sleep_until(self.postgres.due()).await };
        if self.mend.is_some() {
            return;
        }
        let (kafka, postgres) = (&mut self.kafka, &mut self.postgres);
        let arrival = async {
            match kafka {
                Some(kafka) => kafka.arrival(job).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = arrival => {}
            () = self.wiring.commits.notified(), if postgres.is_active() => postgres.hurry(),
            () = sleep_until(postgres.due().min(self.tend_due)) => {}
            () = self.leases.changed() => {}
        }
    }

    /// Rests after a round. What comes meanwhile is gathered: requests are sent and
    /// answered only while somebody asks, and the next round is to find all partitions' answers.
    async fn rest(&mut self, round: Round) {
        let gathering = async {
            match (&mut self.kafka, &self.job) {
                (Some(kafka), Some(job)) => kafka.gather(job).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wiring.pressure.rested(round) => {}
            () = gathering => {}
        }
    }

    /// Applies all that has come by now. Returns without waiting where there is nothing.
    pub async fn step(&mut self) -> store::Result<Progress> {
        let result = store::bounded(store::SILENT, Box::pin(self.try_step())).await;
        if let Err(error) = &result {
            let passes = error.blame() == Blame::Passing;
            self.passing = if passes { self.passing.saturating_add(1) } else { 0 };
            self.failed_at = Some(Instant::now());
            self.failures = self.failures.saturating_add(1);
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
        let assigned = self.assigned(&job);
        let moves = assigned != self.feeding;
        let arrived = self.kafka.as_mut().map(|kafka| kafka.take(&job)).unwrap_or_default();
        let mends = self.mend.is_some();
        let rests = self.mend.as_ref().is_some_and(Mend::is_foreign);
        let walks = !rests && Instant::now() >= self.postgres.due();
        let tends = Instant::now() >= self.tend_due;
        if arrived.is_empty() && !walks && !mends && !tends && !moves {
            return Ok(Progress::default());
        }
        // Kept from step to step: the pool would look twice whether it is sound.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.wiring.pool.acquire().await?,
        };
        if moves {
            self.follow(&mut connection, &job, assigned).await?;
        }
        let mut chunks = self.sorted(&job, &mut connection, arrived).await?;
        let in_step = self.kafka.as_ref().map(KafkaFeed::in_step).unwrap_or_default();
        let mut found = Found::default();
        if walks {
            found = self.postgres.read(&mut connection, &job, &self.feeding, &in_step).await?;
            self.report_lag(&job, &found);
        }
        if found.foreign {
            self.forget();
            return Ok(Progress::default());
        }
        if walks {
            self.look_mended(&found);
        }
        chunks.extend(found.chunks);
        let mut outcome = Outcome::default();
        if !chunks.is_empty() {
            outcome = match self.passing {
                0..PATIENT => apply(&mut connection, &job, &mut chunks).await?,
                _ => apply_apart(&mut connection, &job, &mut chunks).await?,
            };
            self.passing = 0;
            self.report_applied(&outcome);
            if let Some(other) = chunks.iter().find_map(|chunk| chunk.foreign) {
                self.report_another(&job, other);
            }
            self.resume(&chunks, &outcome);
        }
        self.report_well();
        if mends {
            outcome.add(&self.mend_on(&mut connection, &job).await?);
        }
        if tends {
            outcome.add(&self.tend(&mut connection, &job).await?);
        }
        self.postgres.settle(&mut connection, &job, &self.feeding).await?;
        self.connection = Some(connection);
        Ok(Progress { outcome, chunks: chunks.len() })
    }

    /// Once all events are applied that are older than the last failure, it is over.
    fn look_mended(&mut self, found: &Found) {
        let Some(since) = self.failed_at.map(|at| at.elapsed()) else { return };
        if found.lag.values().all(|(pending, age)| *pending == 0 || *age < since) {
            (self.failed_at, self.failures) = (None, 0);
            self.report_mended();
        }
    }

    /// Finds out where everything stands; false while the topic is not known yet.
    async fn load(&mut self) -> store::Result<bool> {
        let wiring = &self.wiring;
        let mut connection = wiring.pool.acquire().await?;
        let found =
            store::checkpoints::partitions(&mut connection, &wiring.tenant, &wiring.topic).await?;
        let Some(partitions) = found else {
            self.postgres.later();
            return Ok(false);
        };
        let subscription = Subscription {
            tenant: wiring.tenant.clone(),
            projector: wiring.kind.name(),
            topic: wiring.topic.clone(),
        };
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
        let deployment = store::topics::deployment(&mut connection, &wiring.tenant).await?;
        let recent = wiring.recent.clone();
        self.job = Some(Job { kind: wiring.kind, subscription, partitions, deployment, recent });
        Ok(true)
    }

    /// Chunks to apply. Failures are noted, and an offset that is gone is replaced.
    async fn sorted(
        &mut self,
        job: &Job,
        connection: &mut store::Connection,
        arrived: Vec<Arrived>,
    ) -> store::Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        for arrival in arrived {
            match arrival {
                Arrived::Chunk(chunk) if !self.feeding.contains(&chunk.partition) => {}
                Arrived::Chunk(chunk) => chunks.push(chunk),
                Arrived::Failed { partition, error } => {
                    self.report_error(&format!("partition {partition}: {error}"), true);
                }
                Arrived::OutOfRange { partition, expected, earliest } => {
                    let error = format!(
                        "partition {partition}: offset {expected} is not in the topic, going on \
                         at {earliest}; what is missing there is read from events"
                    );
                    tracing::error!(projector = job.kind.name(), "{error}");
                    self.report_error(&error, false);
                    let pair = Some((expected, earliest));
                    let to = Advance { partition, next_offset: pair, feed_xid: None };
                    store::checkpoints::advance(connection, &job.subscription, &[to]).await?;
                    if let Some(kafka) = &mut self.kafka {
                        // Should another instance have moved it first, the next chunk will tell.
                        kafka.resume(partition, earliest);
                    }
                }
            }
        }
        Ok(chunks)
    }

    /// Lets the feeds go on, from where the checkpoints are now.
    fn resume(&mut self, chunks: &[Chunk], outcome: &Outcome) {
        if outcome.stale.iter().any(|(feed, _, _)| *feed == Feed::Postgres) {
            self.postgres.forget();
        }
        let Some(kafka) = &mut self.kafka else { return };
        for chunk in chunks.iter().filter(|chunk| chunk.feed == Feed::Kafka) {
            let moved = outcome
                .stale
                .iter()
                .find(|(feed, partition, _)| *feed == Feed::Kafka && *partition == chunk.partition);
            kafka.resume(chunk.partition, moved.map_or(chunk.next, |(_, _, place)| *place));
        }
    }

    /// After an error nothing in memory is worth keeping: Postgres knows where everything stands.
    fn forget(&mut self) {
        self.feeding.clear();
        self.job = None;
        self.kafka = None;
        self.mend = None;
        self.postgres.forget();
    }
}
