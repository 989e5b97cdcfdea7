//! Commands in, one Postgres transaction for many of them, answers out: group commit.
//!
//! A command waits in the queue of a *lane*, chosen by its wallet. A lane drains what is waiting,
//! bounded by count and bytes, without ever sleeping to fill a batch, and runs it in phases:
//!
//! 1. claim the batch's id; lock its wallets in id order, skipping those that another transaction has locked; read
//!    the clock and the keys that are taken;
//! 2. fold the commands in arrival order, in memory;
//! 3. write events, outbox, wallets and keys in one statement; COMMIT; answer every waiter.
//!
//! | what goes wrong | what happens |
//! |---|---|
//! | another transaction has locked a wallet | its commands wait in a batch of their own ([`contended`]) |
//! | SQLSTATE 22, 23, 54 | the batch runs one by one: only the guilty command fails |
//! | SQLSTATE 40, 55P03 | the batch again, at most three times |
//! | no connection | 503 `database_unavailable`, nothing happened |
//! | COMMIT without an answer | resolved by the batch's id on a new connection ([`in_doubt`]) |
//!
//! A waiter that goes away changes nothing: the lane owns the command, not the request.

mod batch;
mod contended;
mod fold;
mod homes;
mod in_doubt;
mod key;
mod known_keys;
mod lane;
mod reconnect;
mod savepoint;
mod wanted;
mod whole;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::answer::{Failure, Outcomes};
use crate::config::CommandSettings;
use crate::event_cache::EventCache;
use crate::store::Way;
use crate::throttle::Throttle;
use crate::wallet::{Command, Policy, TenantId, WalletId};

pub use contended::SESSIONS_MAX as CONTENDED_SESSIONS;
pub use homes::Homes;
pub use key::Key;
pub use lane::Lane;

/// The id of a wallet whose caller gives none.
pub fn generate_wallet_id() -> WalletId {
    WalletId::stored(&Uuid::now_v7().to_string())
}

/// A command that has waited this long is not begun any more.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(10);

/// One command with its key.
#[derive(Debug, Clone)]
pub struct Operation {
    pub command: Command,
    pub key: Option<Key>,
    /// Its own, where it is not the request's.
    pub context: Option<Context>,
}

/// Operations that run in order in one transaction, with all that their events record of the
/// request. Never empty.
#[derive(Debug, Clone)]
pub struct Request {
    pub tenant: TenantId,
    pub operations: Vec<Operation>,
    /// All of them or none.
    pub atomic: bool,
    pub context: Context,
    /// Of all of them together, beside those of the operations: see [`whole`].
    pub key: Option<Key>,
    /// Only told what it would come to.
    pub dry_run: bool,
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
    database: Way,
    reconnect: reconnect::Reconnect,
    topic: EventsTopic,
    settings: CommandSettings,
    /// Fired after every commit that wrote events.
    committed: Arc<Notifiers>,
    /// How long commands wait, for the pipeline behind them.
    throttle: Throttle,
    /// Where committed events are kept for the projectors.
    event_cache: EventCache,
    homes: Homes,
    /// Contended batches and COMMITs in doubt: short tasks that shutdown waits for.
    tasks: TaskTracker,
    /// Where they run: a lane's own runtime ends with the lane.
    runtime: Handle,
    contended: contended::ContendedWallets,
}

/// Listeners to wake after a commit.
#[derive(Debug, Default)]
pub struct Notifiers(Vec<Arc<Notify>>);

/// The way in: cheap to clone, one for all requests.
#[derive(Debug, Clone)]
pub struct Executor {
    lanes: Arc<[mpsc::UnboundedSender<QueuedRequest>]>,
    places: Arc<Semaphore>,
    queue_max: usize,
    homes: Homes,
}

/// One waiting request.
#[derive(Debug)]
struct QueuedRequest {
    request: Request,
    arrived: Instant,
    respond: oneshot::Sender<Outcomes>,
    /// Its room in the queue, until a lane takes it.
    place: Option<OwnedSemaphorePermit>,
}

impl Shared {
    fn policy(&self) -> Policy {
        let CommandSettings { hold_ttl, money_events, .. } = &self.settings;
        let (hold_ttl, money_events) = (*hold_ttl, *money_events);
        Policy { hold_ttl, money_events, ..Policy::default() }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
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

/// The executor and the lanes to be run. Called within the runtime that tasks of its own is to run on. A
/// lane ends once every clone of the executor is gone and its queue is empty; `tasks` then holds what
/// is still being settled.
pub fn start(
    database: Way,
    topic: EventsTopic,
    settings: CommandSettings,
    committed: Notifiers,
    throttle: Throttle,
    event_cache: EventCache,
    tasks: TaskTracker,
) -> (Executor, Vec<Lane>) {
    let queue_max = settings.queue_max;
    let count = settings.lanes;
    let homes = Homes::default();
    let shared = Arc::new(Shared {
        database,
        reconnect: reconnect::Reconnect::default(),
        topic,
        settings,
        committed: Arc::new(committed),
        throttle,
        event_cache,
        homes: homes.clone(),
        tasks,
        runtime: Handle::current(),
        contended: contended::ContendedWallets::default(),
    });
    let (senders, lanes): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            // Bounded by the places: a request takes as many as it has operations.
            let (sender, receiver) = mpsc::unbounded_channel();
            (sender, Lane::new(Arc::clone(&shared), receiver))
        })
        .unzip();
    let places = Arc::new(Semaphore::new(queue_max));
    (Executor { lanes: senders.into(), places, queue_max, homes }, lanes)
}

impl Executor {
    /// Queues a request and waits for its outcomes. Dropping the future gives up the waiting only.
    pub async fn execute(&self, request: Request) -> Outcomes {
        let count = request.operations.len();
        let all = |failure: Failure| Outcomes::all(&failure, count);
        // A request larger than the queue may still run alone.
        let places = u32::try_from(count.min(self.queue_max)).unwrap_or(u32::MAX);
        let Ok(place) = Arc::clone(&self.places).try_acquire_many_owned(places) else {
            return all(Failure::Overloaded);
        };
        let lane = self.lane_of(&request);
        let (respond, outcomes) = oneshot::channel();
        let queued =
            QueuedRequest { request, arrived: Instant::now(), respond, place: Some(place) };
        let sent = self.lanes.get(lane).is_some_and(|sender| sender.send(queued).is_ok());
        if !sent {
            return all(Failure::Broken);
        }
        // A lane answers every queued it took; if it died, only the key can tell.
        outcomes.await.unwrap_or_else(|_| all(Failure::OutcomeUnknown))
    }

    /// Commands of one wallet meet in one lane; so do retries of a create whose id is made here.
    fn lane_of(&self, request: &Request) -> usize {
        let mut hasher = DefaultHasher::new();
        request.tenant.hash(&mut hasher);
        match request.operations.first().map(|first| (&first.command, &first.key)) {
            Some((command, Some(key))) if command.has_generated_id() => {
                key.scope.hash(&mut hasher);
            }
            Some((command, _)) => command.wallet_id().hash(&mut hasher),
            None => {}
        }
        let lanes = u64::try_from(self.lanes.len()).unwrap_or(1).max(1);
        usize::try_from(hasher.finish() % lanes).unwrap_or(0)
    }

    /// Where holds belong, as far as it is known here.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    /// A view of the queues that keeps no lane alive.
    pub fn queue(&self) -> Queue {
        Queue { places: Arc::clone(&self.places), queue_max: self.queue_max }
    }
}

/// The lanes' queues, to look at.
#[derive(Debug)]
pub struct Queue {
    places: Arc<Semaphore>,
    queue_max: usize,
}

impl Queue {
    /// Operations waiting, in all lanes.
    pub fn waiting(&self) -> usize {
        self.queue_max.saturating_sub(self.places.available_permits())
    }
}

impl Request {
    /// Every wallet that the operations touch, as often as they do.
    fn wallets(&self) -> impl Iterator<Item = &WalletId> {
        let commands = self.operations.iter().map(|operation| &operation.command);
        commands.flat_map(|command| command.footprint().wallets().collect::<Vec<_>>())
    }

    /// The keys that the request may write.
    fn keys(&self) -> impl Iterator<Item = &Key> {
        let of_operations = self.operations.iter().filter_map(|operation| operation.key.as_ref());
        self.key.iter().chain(of_operations)
    }

    /// About how many bytes the request adds to a batch.
    fn weight(&self) -> usize {
        self.operations.iter().map(|operation| operation.command.weight()).sum()
    }
}

impl QueuedRequest {
    /// A queued whose caller has gone away.
    #[cfg(test)]
    fn unanswered(request: Request) -> Self {
        let (respond, _) = oneshot::channel();
        Self { request, arrived: Instant::now(), respond, place: None }
    }

    /// A waiter that is gone needs no answer.
    fn answer(self, outcomes: Outcomes) {
        let _ = self.respond.send(outcomes);
    }

    /// Every operation fails alike.
    fn all(&self, failure: &Failure) -> Outcomes {
        Outcomes::all(failure, self.request.operations.len())
    }

    fn fail(self, failure: &Failure) {
        let outcomes = self.all(failure);
        self.answer(outcomes);
    }

    /// Fails for having waited too long behind another transaction. A create waits for no wallet:
    /// where it has a key, it is the key's first request that it waited for.
    fn fail_busy(self) {
        let waited_for_key = |operation: &Operation| {
            matches!(operation.command, Command::Create(_)) && operation.key.is_some()
        };
        let keyed_creates = self.request.operations.iter().all(waited_for_key);
        self.fail(if keyed_creates { &Failure::KeyInFlight } else { &Failure::WalletBusy });
    }

    fn can_split(&self) -> bool {
        self.request.operations.len() > 1 && !self.request.atomic
    }

    /// A queued for each operation, and the task that gathers their outcomes into this one's answer.
    fn split(self) -> (Vec<Self>, impl Future<Output = ()> + Send) {
        let Self { request, arrived, respond, .. } = self;
        let Request { tenant, operations, context, key, dry_run, .. } = request;
        let (parts, answers): (Vec<_>, Vec<_>) = operations
            .into_iter()
            .map(|operation| {
                let (tenant, context, key) = (tenant.clone(), context.clone(), key.clone());
                let operations = vec![operation];
                let request = Request { tenant, operations, atomic: false, context, key, dry_run };
                let (respond, answer) = oneshot::channel();
                (Self { request, arrived, respond, place: None }, answer)
            })
            .unzip();
        let gathered = async move {
            let mut parts = Vec::with_capacity(answers.len());
            for answer in answers {
                let unknown = |_| Outcomes::all(&Failure::OutcomeUnknown, 1);
                parts.push(answer.await.unwrap_or_else(unknown));
            }
            let _ = respond.send(Outcomes::gathered(parts));
        };
        (parts, gathered)
    }

    fn is_stale(&self) -> bool {
        self.arrived.elapsed() > QUEUE_WAIT_MAX
    }
}

/// Fails every queued alike.
fn fail_all(requests: Vec<QueuedRequest>, failure: &Failure) {
    requests.into_iter().for_each(|queued| queued.fail(failure));
}

/// The requests of a batch as its log lines name them.
struct RequestIds<'a>(&'a [QueuedRequest]);

impl std::fmt::Display for RequestIds<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// A batch has up to a thousand requests; a line must stay one that can be read.
        const NAMED_MAX: usize = 20;
        let ids = self.0.iter().map(|queued| queued.request.context.request_id.as_str());
        for (at, id) in ids.take(NAMED_MAX).enumerate() {
            write!(f, "{}{id}", if at == 0 { "" } else { " " })?;
        }
        match self.0.len().checked_sub(NAMED_MAX) {
            Some(more) if more > 0 => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}
