//! Inbound commands: other services credit and debit by records of `wallet-commands`, and read what
//! came of each from `wallet-command-results`.
//!
//! ```text
//! wallet-commands ─► parse ─► execute, keyed by commandId ─► result ─► place moved on
//!                      │            └─ undecided ─► .retry.1min ─► .5min ─► .30min ─┐
//!                      └─ no command ─► _dlt  ◄──────────────────── still undecided ┘
//! ```
//!
//! A place moves only when the effects are committed and everything that follows from them is in its
//! topic. So a crash repeats records and never loses one: the id makes the effect happen once and the
//! answer the same. Partitions are leased, as the projectors' are; two owners at once change nothing.
//! While Postgres is away, or the lanes are full, nothing is moved anywhere: the topic waits.

mod batch;
mod consumer;
mod letters;
mod partition;
mod record;
mod report;
mod send;
mod shorter;
mod topics;
mod waves;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::{join, join_all};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{KafkaSettings, ProducerSettings};
use crate::execute::Executor;
use crate::instance::Instance;
use crate::kafka::{Connection, Producer};
use crate::status::{COMMANDS, Status};
use crate::store::Pool;
use crate::wallet::TenantId;

/// Who has a place in the topic of commands, and in each of the retry topics.
const ROLES: [&str; 4] = [
    COMMANDS,
    "wallex-commands.retry.1min",
    "wallex-commands.retry.5min",
    "wallex-commands.retry.30min",
];
/// Commands in the lanes at once, at most: requests over HTTP must find room beside them.
const ROOM_MAX: usize = 1024;

/// What `app` wires the room with.
pub struct Parts {
    pub tenant: TenantId,
    pub kafka: KafkaSettings,
    pub producer: ProducerSettings,
    /// Before the group's name.
    pub group_prefix: String,
    pub connection: Arc<Connection>,
    pub pool: Pool,
    pub executor: Executor,
    /// Commands that the lanes' queues take.
    pub queue_max: usize,
    pub instance: Arc<Instance>,
    pub status: Status,
}

/// Consumes the commands of all partitions that this instance has.
pub struct Inbound {
    shared: Arc<Shared>,
}

/// What the consumers of all stages share.
struct Shared {
    parts: Parts,
    /// The topic of commands, then the retry topics in their order.
    stages: Vec<Stage>,
    results: Topic,
    dead_letters: Topic,
    room: Semaphore,
    room_max: usize,
}

/// A topic that commands are read from.
struct Stage {
    /// As the owner of leases and places.
    role: &'static str,
    /// How long each record waits in it.
    delay: Duration,
    topic: Topic,
}

struct Topic {
    name: String,
    /// As the broker has it; 0: not known yet.
    partitions: AtomicI32,
    producer: Producer,
}

impl Inbound {
    pub fn new(parts: Parts) -> Self {
        let topic = |name: &str| Topic {
            name: name.to_owned(),
            partitions: AtomicI32::new(0),
            producer: Producer::new(
                Arc::clone(&parts.connection),
                name,
                parts.producer.compression,
            ),
        };
        let inbound = &parts.kafka.inbound;
        let names = [inbound.topic.clone()].into_iter().chain(inbound.retry_topics());
        let delays = [Duration::ZERO].into_iter().chain(inbound.delays);
        let stages = ROLES
            .into_iter()
            .zip(names.zip(delays))
            .map(|(role, (name, delay))| Stage { role, delay, topic: topic(&name) })
            .collect();
        let room_max = (parts.queue_max / 2).clamp(1, ROOM_MAX);
        let (results, dead_letters) =
            (topic(&inbound.results_topic), topic(&inbound.dead_letter_topic()));
        let room = Semaphore::new(room_max);
        Self { shared: Arc::new(Shared { parts, stages, results, dead_letters, room, room_max }) }
    }

    /// Works until told to stop; commands that run by then are finished.
    pub async fn run(self, stop: CancellationToken) {
        let shared = self.shared;
        shared.report_running(true);
        if let Some(admin) = Box::pin(topics::prepare(&shared, &stop)).await {
            let stages = 0..shared.stages.len();
            let consumers = stages.map(|stage| consumer::run(&shared, stage, stop.clone()));
            Box::pin(join(topics::watch(&shared, admin, &stop), join_all(consumers))).await;
        }
        shared.report_running(false);
    }
}

/// For delays, and the times of records: nothing that the books know.
#[allow(clippy::disallowed_methods, reason = "records are stamped by their writer")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

impl Topic {
    fn partitions(&self) -> i32 {
        self.partitions.load(Ordering::Relaxed)
    }
}
