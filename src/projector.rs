//! The projectors: topic or Postgres → ledger and read model, once in effect.
//!
//! `events` is the record, the feeds only say what is new. Checkpoint and projection move in one
//! transaction ([`apply`]), so a crash, a replay or two owners at once change nothing. A projector
//! waits for its feeds, applies all that has come by then in one transaction, and goes on. It spawns nothing
//! and keeps nothing that Postgres does not have. Its leases ([`Leases`]) keep several instances from doing
//! the same work; what is right does not hang on them.
//!
//! Where all projections stand near each other and nothing of one of them alone is to be done, they work together
//! ([`together`]): one projector reads for all of them, and one transaction has the effects of all.

pub mod apply;
pub mod chunk;
mod feeds;
mod kafka_feed;
mod ledger;
mod look_up;
mod maintenance;
mod member;
mod mend;
mod narrow;
mod places;
mod postgres_feed;
mod project;
pub mod projection;
mod read_model;
pub mod rebuild;
mod release;
mod report;
mod seen;
mod together;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::config::ConsumerSettings;
use crate::event_cache::EventCache;
use crate::instance::Instance;
use crate::status::Status;
use crate::store::checkpoints::Subscription;
use crate::store::{self, Pool};
use crate::throttle::{Round, Throttle};
use apply::{Outcome, Part, apply_all, apply_apart, apply_one};
use chunk::Chunk;
use kafka_feed::KafkaFeed;
use member::Member;
use postgres_feed::{PostgresFeed, Role};
use seen::Seen;
use together::Seat;

pub use kafka_feed::OpenPartition;
pub use projection::{LEDGER, Projection, READ_MODEL};
pub use together::Projectors;

/// Events of a round that is large enough to go on without a rest.
const EVENTS_OF_A_LARGE_ROUND: u64 = 500;
/// Pause after an error of Postgres, doubled up to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A partition with an event of a newer build is looked at again after this.
const NEWER_PAUSE: Duration = Duration::from_secs(5);
/// What is applied is noted within this time where work ends.
const LEAVE_MAX: Duration = Duration::from_secs(2);
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
#[derive(Clone)]
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

/// The members of one projector apply the same chunks in one transaction; one alone, as it can.
pub struct Projector {
    wiring: Wiring,
    members: Vec<Member>,
    /// None before the first step, and after one that failed: that one's connection goes back to the pool,
    /// which looks whether it can be used again.
    session: Option<Session>,
    /// Of the topic; none before it is known where everything stands.
    partitions: Option<i32>,
    kafka: Option<KafkaFeed>,
    postgres: PostgresFeed,
    /// When the work besides the feeds is due.
    maintenance_due: Instant,
    /// The partitions that the feeds read, and for which members, as bits in their order; none after an
    /// error.
    feeding: BTreeMap<i32, i32>,
    /// Partitions that wait for a newer build, and until when they are not looked at.
    waits: BTreeMap<i32, Instant>,
    /// Where it says that it could work together with others.
    seat: Option<Seat>,
}

/// A connection, and what was read with it.
struct Session {
    connection: store::Pooled,
    seen: Seen,
}

impl Projector {
    pub fn new(wiring: Wiring) -> Self {
        let member = Member::new(&wiring);
        Self::of(wiring, vec![member])
    }

    /// One projector for all of these.
    fn of(wiring: Wiring, members: Vec<Member>) -> Self {
        let role = match (wiring.kafka.is_some() && wiring.consumer.feed_kafka, &wiring.consumer) {
            (false, _) => Role::Sole,
            (true, consumer) if consumer.feed_outbox => Role::Standby,
            (true, _) => Role::Watch,
        };
        let limit = i64::try_from(wiring.consumer.max_poll_records).unwrap_or(500);
        let postgres = PostgresFeed::new(role, limit, wiring.kafka.is_none());
        Self {
            wiring,
            members,
            session: None,
            partitions: None,
            kafka: None,
            postgres,
            feeding: BTreeMap::new(),
            waits: BTreeMap::new(),
            maintenance_due: Instant::now(),
            seat: None,
        }
    }

    /// Works until it is stopped; a transaction that runs by then is finished.
    pub async fn run(mut self, token: CancellationToken) {
        let leases = self.members.iter().map(|member| member.leases.clone()).collect();
        self.members.iter().for_each(|member| member.report_running(true));
        together::leased(leases, Box::pin(self.work(&token))).await;
        self.members.iter().for_each(|member| member.report_running(false));
    }

    /// Works until it is stopped; several members, until one of them has to work by itself.
    async fn work(&mut self, token: &CancellationToken) {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        while token.run_until_cancelled(self.wait()).await.is_some() {
            let begun = Instant::now();
            match self.step().await {
                Ok(_) if self.is_split() => break,
                Ok(progress) => {
                    backoff.reset();
                    self.sit();
                    if progress.chunks > 0 {
                        let more = progress.outcome.applied >= EVENTS_OF_A_LARGE_ROUND;
                        let follows = self.kafka.is_some();
                        let round = Round { took: begun.elapsed(), more, follows };
                        let _ = token.run_until_cancelled(self.rest(round)).await;
                    }
                }
                Err(error) => {
                    self.report_failure(&error);
                    if self.is_joint() {
                        break;
                    }
                    let _ = token.run_until_cancelled(sleep(backoff.fail())).await;
                }
            }
        }
        self.leave().await;
    }

    fn is_joint(&self) -> bool {
        self.members.len() > 1
    }

    /// One of several members has to work by itself.
    fn is_split(&self) -> bool {
        self.is_joint() && self.members.iter().any(|member| member.is_apart)
    }

    /// Of several members each sees for itself whether it fails, too.
    fn report_failure(&self, error: &store::Error) {
        let told = error.told();
        match &self.members[..] {
            [member] => {
                member.report_failure(error);
                self.rise();
                tracing::warn!(projector = member.kind.name(), error = told, "projecting");
            }
            _ => tracing::info!(error = told, "projecting each by itself"),
        }
    }

    /// Applies all that has come by now. Returns without waiting where there is nothing.
    pub async fn step(&mut self) -> store::Result<Progress> {
        let result = store::bounded(store::SILENT, Box::pin(self.try_step())).await;
        if let Err(error) = &result {
            if let [member] = &mut self.members[..] {
                member.failures.add(error);
            }
            // Some wallets may have been brought to their targets all the same.
            self.wiring.applied.notify_waiters();
            self.forget();
        }
        result
    }

    async fn try_step(&mut self) -> store::Result<Progress> {
        if self.partitions.is_none() && !self.load().await? {
            return Ok(Progress::default());
        }
        for member in &self.members {
            member.leases.renew().await?;
        }
        let Some(due) = self.due().filter(|_| !self.is_split()) else {
            return Ok(Progress::default());
        };
        // Kept from step to step: the pool would look twice whether it is sound.
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session {
                connection: store::acquire(&self.wiring.pool).await?,
                seen: Seen::default(),
            },
        };
        let (mends, maintains) = (due.mends, due.maintains);
        let Some(mut chunks) = self.read(&mut session, due).await? else {
            self.forget();
            return Ok(Progress::default());
        };
        let mut outcome = Outcome::default();
        if !chunks.is_empty() {
            outcome = self.apply(&mut session, &mut chunks).await?;
        }
        let connection = &mut session.connection;
        self.note_places(connection).await?;
        for member in &self.members {
            member.report_well(self.kafka.as_ref());
        }
        if mends {
            outcome.add(&self.mend_on(connection).await?);
        }
        if maintains {
            outcome.add(&self.maintain(connection).await?);
        }
        let (topic, partitions) = (&self.wiring.topic, self.feeding.keys().copied());
        self.postgres.mark_processed(connection, topic, partitions).await?;
        self.session = Some(session);
        Ok(Progress { outcome, chunks: chunks.len() })
    }

    /// Applies what the feeds brought, and lets them go on.
    async fn apply(
        &mut self,
        session: &mut Session,
        chunks: &mut [Chunk],
    ) -> store::Result<Outcome> {
        let Session { connection, seen } = session;
        let passing = self.members.first().map_or(0, |member| member.failures.passing);
        let parts: Vec<Part<'_>> = self.members.iter().filter_map(Member::part).collect();
        let passed = match &parts[..] {
            [part] if passing < FAILURES_BEFORE_SEARCH => {
                vec![apply_one(connection, part, seen, chunks).await?]
            }
            [part] => vec![apply_apart(connection, part, chunks).await?],
            parts => apply_all(connection, parts, seen, chunks).await?,
        };
        let (now, is_joint) = (Instant::now(), self.is_joint());
        let mut most = Outcome::default();
        for (member, passed) in self.members.iter_mut().zip(&passed) {
            member.failures.passing = 0;
            member.is_apart |= is_joint && !passed.elsewhere.is_empty();
            member.pass(chunks, passed, now);
            member.report_applied(&passed.outcome);
            if passed.outcome.applied >= most.applied {
                most = passed.outcome.clone();
            }
        }
        let foreign = chunks.iter().find_map(|chunk| chunk.foreign);
        if let (Some(member), Some(other)) = (self.members.first(), foreign) {
            member.report_another(&self.wiring.topic, other);
        }
        self.resume(chunks, &most);
        let until = now + NEWER_PAUSE;
        self.waits.extend(most.waiting.keys().map(|partition| (*partition, until)));
        for member in &self.members {
            member.report_waiting(&most.waiting, self.waits.is_empty());
        }
        Ok(most)
    }

    /// Finds out where everything stands; false while the topic is not known yet.
    async fn load(&mut self) -> store::Result<bool> {
        let wiring = &self.wiring;
        let mut connection = store::acquire(&wiring.pool).await?;
        let found = store::checkpoints::partitions(&mut connection, &wiring.topic).await?;
        let Some(partitions) = found else {
            self.postgres.later();
            return Ok(false);
        };
        for member in &mut self.members {
            member.load(&mut connection, wiring, partitions).await?;
            member.is_apart |= member.mend.is_some();
        }
        if let (Some(open), true) = (&wiring.kafka, wiring.consumer.feed_kafka) {
            self.kafka = Some(KafkaFeed::new(Arc::clone(open), &wiring.consumer));
        }
        self.partitions = Some(partitions);
        Ok(true)
    }

    /// Notes what is applied and has waited for long enough.
    async fn note_places(&mut self, connection: &mut store::Connection) -> store::Result<()> {
        let now = Some(Instant::now());
        let mut is_noted = true;
        for member in &mut self.members {
            let noted = member.note_places(connection, now).await?;
            member.is_apart |= !noted;
            is_noted &= noted;
        }
        if !is_noted {
            self.forget();
        }
        Ok(())
    }

    /// Notes what is applied, and keeps no connection: it stops, or goes on in another way.
    async fn leave(&mut self) {
        if let Err(error) = store::bounded(LEAVE_MAX, Box::pin(self.note_all())).await {
            tracing::debug!(%error, "places are not noted: what is applied is applied again");
        }
        self.session = None;
        self.forget();
    }

    async fn note_all(&mut self) -> store::Result<()> {
        if self.members.iter().all(|member| member.places.unnoted(None).is_empty()) {
            return Ok(());
        }
        let mut connection = match self.session.take() {
            Some(session) => session.connection,
            None => store::acquire(&self.wiring.pool).await?,
        };
        for member in &mut self.members {
            member.note_places(&mut connection, None).await?;
        }
        Ok(())
    }
}
