//! The second destination: every event once more, into another topic or cluster, while a deployment
//! moves there. Nothing runs where none is set.
//!
//! It follows `events` as a projector does, with a place per partition and a version per wallet
//! that are its own: commands and the first publisher neither wait for it nor write anything for
//! it, and an outage of one cluster does not touch the other. A wallet's events go in the order of their
//! versions, one request in flight per partition; after an unknown outcome the topic is read back.

mod mend;
mod report;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{OutboxSettings, ProducerSettings, SecondSettings};
use crate::instance::{Instance, Term};
use crate::kafka::admin::Admin;
use crate::kafka::topics::TopicSpec;
use crate::kafka::{self, Breaker, BreakerState, Connection, Producer};
use crate::pressure::{Pressure, Round};
use crate::publisher::pause::Pause;
use crate::publisher::send::Form;
use crate::status::Status;
use crate::store::checkpoints::Subscription;
use crate::store::clusters::{self, Pass};
use crate::store::leases::{self, Leased};
use crate::store::second::{self, Destination, SECOND};
use crate::store::{self, Pool};
use crate::wallet::TenantId;

/// At the end the partitions are given up; where Postgres is slow to take that, they run out.
const LEAVE: Duration = Duration::from_secs(2);

/// What `app` wires it with.
#[derive(Debug)]
pub struct Parts {
    pub pool: Pool,
    pub tenant: TenantId,
    pub first_topic: String,
    /// The count that wallets are hashed over.
    pub partitions: i32,
    /// Whose events they are.
    pub deployment: Option<Uuid>,
    pub second: SecondSettings,
    pub producer: ProducerSettings,
    pub outbox: OutboxSettings,
    pub status: Status,
    pub instance: Arc<Instance>,
    /// Fired after each commit that wrote events, here or elsewhere.
    pub wake: Arc<Notify>,
    pub pressure: Pressure,
}

/// Follows one topic.
#[derive(Debug)]
pub struct Follower {
    parts: Parts,
    of: Subscription,
    leased: Leased,
    breaker: Arc<Breaker>,
    connection: Arc<Connection>,
    producer: Producer,
    form: Form,
    term: Term,
    held: BTreeMap<i32, Held>,
    /// How far each partition was seen above running transactions.
    ahead: BTreeMap<i32, i64>,
    /// The partitions whose places were looked at: whose cluster are they of?
    judged: BTreeSet<i32>,
    /// They are of another: all wallets are gone through.
    pass: Option<Pass>,
    /// The topic is there, and it is known which one it is.
    prepared: bool,
    pause: Pause,
    measure_due: Instant,
}

/// A partition that is this instance's.
#[derive(Debug, Clone, Copy)]
struct Held {
    epoch: i64,
    last_offset: Option<i64>,
    /// The topic may hold more than is noted.
    doubtful: bool,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    #[error("{0}")]
    Topic(String),
}

impl Follower {
    pub fn new(parts: Parts) -> Self {
        let kafka = &parts.second.kafka;
        let breaker = Breaker::aside(&kafka.breaker);
        let connection = Connection::behind(kafka, Arc::clone(&breaker));
        let topic = kafka.events_topic.clone();
        let codec = parts.producer.compression;
        Self {
            producer: Producer::new(Arc::clone(&connection), &topic, codec),
            connection,
            breaker,
            of: Subscription {
                tenant: parts.tenant.clone(),
                projector: SECOND,
                topic: topic.clone(),
            },
            leased: Leased {
                tenant: parts.tenant.as_str().to_owned(),
                role: SECOND,
                topic,
                partitions: parts.partitions,
            },
            form: Form {
                max_bytes: parts.producer.max_request_bytes,
                cloud_events: parts.producer.cloud_events,
                deployment: parts.deployment,
            },
            term: parts.instance.term(),
            held: BTreeMap::new(),
            ahead: BTreeMap::new(),
            judged: BTreeSet::new(),
            pass: None,
            prepared: false,
            pause: Pause::default(),
            measure_due: Instant::now(),
            parts,
        }
    }

    /// Follows until told to stop; a round that runs by then is finished.
    pub async fn run(mut self, token: CancellationToken) {
        self.report_running(true);
        while !token.is_cancelled() {
            let begun = Instant::now();
            let poll = self.parts.outbox.poll_interval;
            let next = match self.round().await {
                Ok(more) => {
                    let round = Round { took: begun.elapsed(), more, follows: false };
                    let rested = self.parts.pressure.rested(round);
                    let _ = token.run_until_cancelled(rested).await;
                    if more {
                        continue;
                    }
                    Instant::now() + poll
                }
                Err(trouble) => {
                    self.failed(&trouble);
                    if self.breaker.state() != BreakerState::Closed {
                        self.pause.rest_until(self.breaker.probe_due());
                    }
                    self.pause.until().unwrap_or(begun + poll)
                }
            };
            let paused = self.pause.until().is_some_and(|until| Instant::now() < until);
            let until = if paused { next } else { next.min(self.term.due()) };
            tokio::select! {
                () = token.cancelled() => {}
                () = self.parts.wake.notified(), if !paused => {}
                () = sleep_until(until) => {}
                () = self.term.moved() => self.term.hurry(),
            }
        }
        self.leave().await;
        self.report_running(false);
    }

    /// Sends what there is; whether there is more.
    async fn round(&mut self) -> Result<bool, Trouble> {
        if !self.pause.is_over(Instant::now()) {
            return Ok(false);
        }
        self.knock().await?;
        if !self.prepared {
            self.prepare().await?;
        }
        store::bounded(store::SILENT, self.lease()).await?;
        self.read_back().await?;
        let mut more = self.send().await?;
        more |= self.held.values().any(|held| held.doubtful);
        if Instant::now() >= self.measure_due {
            self.measure_due = Instant::now() + self.parts.outbox.poll_interval;
            self.measure().await?;
        }
        self.pause.reset();
        self.report_well();
        Ok(more)
    }

    /// While the breaker is open only a cheap question is asked, when it is due.
    async fn knock(&mut self) -> Result<(), Trouble> {
        if self.breaker.state() == BreakerState::Closed {
            return Ok(());
        }
        if Instant::now() >= self.breaker.probe_due() {
            let asked = Admin::connect(&self.parts.second.kafka).await.map(drop);
            self.breaker.probed(asked.as_ref().copied());
            asked?;
        }
        Ok(self.breaker.allows()?)
    }

    /// Makes the topic where it is missing, and notes which one it is.
    async fn prepare(&mut self) -> Result<(), Trouble> {
        let kafka = &self.parts.second.kafka;
        let spec = TopicSpec::events(kafka, self.parts.producer.compression, self.parts.partitions);
        let admin = self.connection.admin().await?;
        match admin.ensure_topics(&[spec]).await {
            Ok(report) => report.created.iter().for_each(|topic| {
                tracing::info!(topic, "second topic created");
            }),
            Err(error) if error.is_outage() => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "the second topic could not be ensured"),
        }
        let topic = &kafka.events_topic;
        let missing = || Trouble::Topic(format!("the second topic {topic} is not there"));
        let id = admin.topic_id(topic).await?.ok_or_else(missing)?;
        let (has, needs) = (admin.partitions(topic).await?.unwrap_or(0), self.parts.partitions);
        if has < needs {
            let text = format!(
                "the second topic {topic} has {has} partitions and needs {needs}: give it {needs} \
                 (kafka-topics --alter --topic {topic} --partitions {needs}), or delete it, and it is made"
            );
            return Err(Trouble::Topic(text));
        }
        let to = Destination {
            topic,
            topic_id: id,
            first_topic: &self.parts.first_topic,
            partitions: needs,
            from_now: self.parts.second.from_now,
        };
        let opening = open(&self.parts.pool, &self.parts.tenant, &to);
        if store::bounded(store::SILENT, opening).await? {
            let from_now = self.parts.second.from_now;
            tracing::info!(topic, from_now, "a new second topic: it is filled");
        }
        self.prepared = true;
        self.forget();
        Ok(())
    }

    async fn lease(&mut self) -> store::Result<()> {
        let begun = Instant::now();
        if !self.term.is_due(begun) {
            return Ok(());
        }
        let instance = Arc::clone(&self.parts.instance);
        let mut connection = store::acquire(&self.parts.pool).await?;
        if self.held.is_empty() {
            leases::open(&mut connection, &self.leased).await?;
        }
        let standing = leases::renew(&mut connection, &self.leased, &instance.member()).await?;
        instance.note(&standing);
        let mut held = standing.leases;
        let surplus = held.split_off(standing.share.min(held.len()));
        if !surplus.is_empty() {
            let surplus: Vec<i32> = surplus.iter().map(|lease| lease.partition).collect();
            leases::release(&mut connection, &self.leased, instance.owner(), &surplus).await?;
        }
        self.held = held
            .into_iter()
            .map(|lease| match self.held.get(&lease.partition) {
                Some(same) if same.epoch == lease.epoch => (lease.partition, *same),
                _ => {
                    let (epoch, last_offset) = (lease.epoch, lease.last_offset);
                    (lease.partition, Held { epoch, last_offset, doubtful: true })
                }
            })
            .collect();
        self.ahead.retain(|partition, _| self.held.contains_key(partition));
        self.term.renewed(begun);
        self.report_partitions(self.held.len());
        Ok(())
    }

    /// What is in memory may be wrong: Postgres and the topic know.
    fn forget(&mut self) {
        self.held.clear();
        self.ahead.clear();
        self.judged.clear();
        self.term.hurry();
    }

    /// Tells the others that this instance stops.
    async fn leave(&mut self) {
        let leaving = async {
            let mut connection = store::acquire(&self.parts.pool).await?;
            leases::leave(&mut connection, &self.leased, self.parts.instance.owner()).await
        };
        if !matches!(timeout(LEAVE, leaving).await, Ok(Ok(()))) {
            tracing::warn!("second publisher: leases not given up: they run out");
        }
    }
}

async fn open(pool: &Pool, tenant: &TenantId, to: &Destination<'_>) -> store::Result<bool> {
    let mut connection = store::acquire(pool).await?;
    let cluster = clusters::identify(&mut connection).await?;
    store::begin(&mut connection).await?;
    match second::open(&mut connection, tenant, to, cluster).await {
        Ok(anew) => store::commit(&mut connection).await.map(|()| anew),
        Err(error) => {
            // The first error says more; the pool mends the session anyway.
            let _ = store::rollback(&mut connection).await;
            Err(error)
        }
    }
}
