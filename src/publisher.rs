//! The publisher: outbox → topic, in order per wallet, woken by commits. A second one publishes `events`
//! into a second topic where there is one (`dual`): the same loop with another [`source`].
//!
//! | task | what | bound |
//! |---|---|---|
//! | read back | what the topic holds behind the last known offset; its rows are marked | once per doubt |
//! | claim | the next rows of every idle partition | one statement |
//! | send | one request per partition, one in flight per partition | rows and bytes |
//! | mark | all that is confirmed, fenced by the lease's epoch | one statement |
//!
//! Every partition is a state machine of its own, drawn in `partition`; which are this instance's, [`Leases`] says beside it. This loop starts the tasks that
//! states, pauses and the breaker allow (`start`), and tells the partitions how they ended (`finish`). All
//! tasks are in one set; none waits for another that does not concern it, and each failure pauses only
//! what it struck: a partition, Kafka as a whole, or Postgres. Nothing is sent on a lease that has run out
//! by the own clock.

mod claims;
mod dual;
mod finish;
mod floors;
mod lease;
mod outbox;
mod partition;
mod pause;
mod read_back;
mod report;
mod send;
mod source;
mod start;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::background::leases::Leases;
use crate::config::{KafkaSettings, OutboxSettings, ProducerSettings};
use crate::instance::Instance;
use crate::kafka::topics::Drift;
use crate::kafka::{Breaker, BreakerState};
use crate::status::Status;
use crate::store::Pool;
use crate::store::leases::Leased;
use crate::throttle::Throttle;
use crate::wallet::TenantId;
use claims::Claims;
use partition::Partition;
use pause::Pause;
use report::Report;
use source::Mark;
pub use source::Role;
use tasks::{Shared, Task};

/// At shutdown, requests and marks in flight get so long. What is cut off is found by read-back.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What `app` wires a publisher with.
#[derive(Debug)]
pub struct Deps {
    pub role: Role,
    pub pool: Pool,
    /// Under which the leases of a topic shared by all tenants are kept.
    pub tenant: TenantId,
    /// The count that keys are hashed over: `store::topics::hashed_over`.
    pub partitions: i32,
    /// Whose events they are, as each of them says.
    pub deployment: Option<Uuid>,
    /// The cluster and the topic that it publishes to.
    pub kafka: KafkaSettings,
    pub breaker: Arc<Breaker>,
    pub producer: ProducerSettings,
    pub outbox: OutboxSettings,
    pub status: Status,
    pub instance: Arc<Instance>,
    /// Fired after each commit that wrote events, here or elsewhere.
    pub wake: Arc<Notify>,
    /// How hard commands press: they come first.
    pub throttle: Throttle,
}

/// Whether the topics are known to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TopicState {
    Due,
    Preparing,
    Ready,
}

/// A task that runs by itself, once at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Due,
    Running,
    Done,
}

/// Publishes one topic.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    tasks: FuturesUnordered<Task>,
    partitions: BTreeMap<i32, Partition>,
    leases: Leases,
    topic: TopicState,
    /// How the topics differ from their settings, as it was logged last.
    drift: Vec<Drift>,
    claims: Claims,
    /// To be written, and whether marks before them are being written.
    marks: Vec<Mark>,
    marking: bool,
    measuring: Turn,
    breaker: Arc<Breaker>,
    kafka_pause: Pause,
    store_pause: Pause,
    retry_max: Duration,
    poll_interval: Duration,
    wake: Arc<Notify>,
    report: Report,
    /// It only finishes what is in flight.
    stopping: bool,
}

impl Publisher {
    pub fn new(mut deps: Deps) -> Self {
        if deps.role != Role::Outbox {
            // A look at the events costs more than a wait for more of them saves.
            deps.producer.linger = Duration::ZERO;
        }
        let leased = Leased {
            tenant: deps.tenant.as_str().to_owned(),
            role: deps.role.lease_role(),
            topic: deps.kafka.events_topic.clone(),
            partitions: deps.partitions,
        };
        let leases = Leases::new(deps.pool.clone(), Arc::clone(&deps.instance), leased.clone());
        Self {
            shared: Arc::new(Shared::new(&deps, leased, leases.clone())),
            tasks: FuturesUnordered::new(),
            partitions: (0..deps.partitions).map(|n| (n, Partition::default())).collect(),
            leases,
            topic: TopicState::Due,
            drift: Vec::new(),
            claims: Claims::new(&deps.outbox, &deps.producer, deps.throttle.clone()),
            marks: Vec::new(),
            marking: false,
            measuring: Turn::Done,
            breaker: Arc::clone(&deps.breaker),
            kafka_pause: Pause::default(),
            store_pause: Pause::default(),
            retry_max: deps.kafka.retry_max,
            poll_interval: deps.outbox.poll_interval,
            wake: Arc::clone(&deps.wake),
            report: Report::new(&deps),
            stopping: false,
        }
    }

    /// Publishes until `token` is cancelled, then finishes what is in flight, within a bound.
    pub async fn run(self, token: CancellationToken) {
        let leases = self.leases.clone();
        leases.beside(Box::pin(self.work(token))).await;
    }

    async fn work(mut self, token: CancellationToken) {
        self.report.running(true);
        let mut tick = interval(self.poll_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut breaker = self.breaker.subscribe();
        let probe = Arc::clone(&self.shared).probe();
        tokio::pin!(probe);
        loop {
            self.start_tasks();
            let retry = self.next_retry();
            tokio::select! {
                () = token.cancelled() => break,
                Some(done) = self.tasks.next(), if !self.tasks.is_empty() => self.finish(done),
                () = self.wake.notified() => self.all_dirty(),
                () = self.leases.changed() => {}
                Ok(()) = breaker.changed() => {
                    if *breaker.borrow_and_update() == BreakerState::Closed {
                        self.shorten_pauses();
                    }
                }
                _ = tick.tick() => {
                    self.all_dirty();
                    if self.measuring == Turn::Done {
                        self.measuring = Turn::Due;
                    }
                }
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
                () = &mut probe => {}
            }
        }
        self.stopping = true;
        if timeout(DRAIN_TIMEOUT, self.drain()).await.is_err() {
            tracing::warn!(
                "publisher stopped with requests in flight; the next start reads them back"
            );
        }
        self.report.running(false);
    }

    async fn drain(&mut self) {
        loop {
            self.start_tasks();
            // A mark that Postgres would not take stays behind for the read-back.
            if !self.marking && !self.is_sending() {
                return;
            }
            if let Some(done) = self.tasks.next().await {
                self.finish(done);
            }
        }
    }

    fn is_sending(&self) -> bool {
        self.partitions.values().any(|partition| partition.state() == partition::State::Sending)
    }

    fn all_dirty(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.dirty = true;
        }
    }

    fn shorten_pauses(&mut self) {
        self.kafka_pause.shorten();
        self.partitions.values_mut().for_each(|partition| partition.pause.shorten());
    }
}
