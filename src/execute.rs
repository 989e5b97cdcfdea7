//! Commands in, one Postgres transaction for many of them, answers out: group commit.
//!
//! A command waits in the queue of a *lane*, chosen by its wallet. A lane drains what is waiting,
//! bounded by count and bytes, without ever sleeping to fill a batch, and runs it in phases:
//!
//! 1. claim the batch's id; lock its wallets in id order, skipping those that a stranger holds;
//! 2. read the clock and the keys that are taken; fold the commands in arrival order, in memory;
//! 3. write events, outbox, wallets and keys in one statement; COMMIT; answer every waiter.
//!
//! | what goes wrong | what happens |
//! |---|---|
//! | a wallet is held elsewhere | its commands wait in a side batch of their own ([`side`]) |
//! | SQLSTATE 22, 23, 54 | the batch runs one by one: only the guilty command fails |
//! | SQLSTATE 40, 55P03 | the batch again, at most three times |
//! | no connection | 503 `database_unavailable`, nothing happened |
//! | COMMIT without an answer | settled by the batch's id on a new connection ([`doubt`]) |
//!
//! A waiter that goes away changes nothing: the lane owns the command, not the request.

mod batch;
mod doubt;
mod fold;
mod key;
mod lane;
mod side;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::answer::Answer;
use crate::config::{CommandSettings, Secret};
use crate::wallet::{Command, IdOrigin, TenantId};

pub use key::Key;
pub use lane::Lane;

/// A command that has waited this long is not begun any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command with all that its events and its answer record of the request.
#[derive(Debug, Clone)]
pub struct Request {
    pub tenant: TenantId,
    pub command: Command,
    pub key: Option<Key>,
    pub context: Context,
}

/// Where a command came from.
#[derive(Debug, Clone, Default)]
pub struct Context {
    pub request_id: String,
    pub actor: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
}

/// A decided outcome: an effect or a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub answer: Answer,
    /// The first answer under the key, given again.
    pub replayed: bool,
}

/// Why a command was not decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The lane's queue is full. Nothing happened.
    Overloaded,
    /// Postgres cannot be reached. Nothing happened.
    Unavailable,
    /// The command may have taken effect; the same key will tell.
    OutcomeUnknown,
    /// Another transaction holds the wallet. Nothing happened.
    WalletBusy,
    /// A request with the same key is still running. Nothing happened.
    KeyInFlight,
    /// The key belongs to another request. Nothing happened.
    KeyReused,
    /// The first answer is no longer kept; it was about this transaction. Nothing happened again.
    KeyExpired { transaction_id: Uuid },
    /// A mistake of ours. Nothing happened.
    Broken,
}

pub type Outcome = Result<Reply, Failure>;

/// The topic that events will go to, and the partitions that wallets are hashed over.
#[derive(Debug, Clone)]
pub struct EventsTopic {
    pub name: Arc<str>,
    /// The count for a topic that has none frozen yet.
    pub default_partitions: i32,
}

/// What all lanes share.
#[derive(Debug)]
struct Shared {
    database: Secret,
    topic: EventsTopic,
    settings: CommandSettings,
    /// Fired after every commit that wrote events.
    committed: Arc<Notifiers>,
    /// Side batches and settlements: short tasks that shutdown waits for.
    tasks: TaskTracker,
    side: side::SideBatches,
}

/// Everyone who wants to know of a commit.
#[derive(Debug, Default)]
pub struct Notifiers(Vec<Arc<Notify>>);

/// The way in: cheap to clone, one for all requests.
#[derive(Debug, Clone)]
pub struct Executor {
    lanes: Arc<[mpsc::Sender<Job>]>,
}

/// One waiting command.
#[derive(Debug)]
struct Job {
    request: Request,
    arrived: Instant,
    respond: oneshot::Sender<Outcome>,
}

impl Notifiers {
    pub fn new(listeners: Vec<Arc<Notify>>) -> Self {
        Self(listeners)
    }

    fn fire(&self) {
        for listener in &self.0 {
            listener.notify_one();
        }
    }
}

/// The executor and the lanes to be run as tasks. A lane ends once every clone of the executor is
/// gone and its queue is empty; `tasks` then holds what is still being settled.
pub fn start(
    database: Secret,
    topic: EventsTopic,
    settings: CommandSettings,
    committed: Notifiers,
    tasks: TaskTracker,
) -> (Executor, Vec<Lane>) {
    let queue_max = settings.queue_max;
    let count = settings.lanes;
    let shared = Arc::new(Shared {
        database,
        topic,
        settings,
        committed: Arc::new(committed),
        tasks,
        side: side::SideBatches::default(),
    });
    let (senders, lanes): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let (sender, receiver) = mpsc::channel(queue_max);
            (sender, Lane::new(Arc::clone(&shared), receiver))
        })
        .unzip();
    (Executor { lanes: senders.into() }, lanes)
}

impl Executor {
    /// Queues a command and waits for its outcome. Dropping the future gives up the waiting only.
    pub async fn execute(&self, request: Request) -> Outcome {
        let lane = self.lane_of(&request);
        let (respond, outcome) = oneshot::channel();
        let job = Job { request, arrived: Instant::now(), respond };
        let Some(sender) = self.lanes.get(lane) else { return Err(Failure::Broken) };
        sender.try_send(job).map_err(|_| Failure::Overloaded)?;
        // A lane answers every job it took; if it died, only the key can tell.
        outcome.await.unwrap_or(Err(Failure::OutcomeUnknown))
    }

    /// Commands of one wallet meet in one lane; so do retries of a create whose id is made here.
    fn lane_of(&self, request: &Request) -> usize {
        let mut hasher = DefaultHasher::new();
        request.tenant.hash(&mut hasher);
        match (&request.command, &request.key) {
            (Command::Create(create), Some(key)) if create.id.1 == IdOrigin::Made => {
                key.scope.hash(&mut hasher);
            }
            (command, _) => command.wallet_id().hash(&mut hasher),
        }
        let lanes = u64::try_from(self.lanes.len()).unwrap_or(1).max(1);
        usize::try_from(hasher.finish() % lanes).unwrap_or(0)
    }

    /// A view of the queues that keeps no lane alive.
    pub fn queue(&self) -> Queue {
        Queue(self.lanes.iter().map(mpsc::Sender::downgrade).collect())
    }
}

/// The lanes' queues, to look at.
#[derive(Debug)]
pub struct Queue(Vec<mpsc::WeakSender<Job>>);

impl Queue {
    /// Commands waiting, in all lanes.
    pub fn waiting(&self) -> usize {
        let senders = self.0.iter().filter_map(mpsc::WeakSender::upgrade);
        senders.map(|lane| lane.max_capacity() - lane.capacity()).sum()
    }
}

impl Job {
    /// A waiter that is gone needs no answer.
    fn answer(self, outcome: Outcome) {
        let _ = self.respond.send(outcome);
    }

    /// Fails for having waited too long behind another transaction. A create waits for no wallet:
    /// where it has a key, it is the key's first request that it waited for.
    fn fail_busy(self) {
        let keyed_create =
            matches!(self.request.command, Command::Create(_)) && self.request.key.is_some();
        let failure = if keyed_create { Failure::KeyInFlight } else { Failure::WalletBusy };
        self.answer(Err(failure));
    }

    fn is_stale(&self) -> bool {
        self.arrived.elapsed() > PATIENCE
    }
}

/// Fails every job alike.
fn fail_all(jobs: Vec<Job>, failure: &Failure) {
    for job in jobs {
        job.answer(Err(failure.clone()));
    }
}
