//! What the background tasks say of themselves, pure: written by publisher and projectors, handed
//! to HTTP by `app`. No room has to know another to show its state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

/// The consumer of inbound commands among the projectors, and as a consumer group.
pub const COMMANDS: &str = "wallex-commands";

/// The state that the health pages show. Cheap to clone; readers take copies.
#[derive(Debug, Clone, Default)]
pub struct Status {
    inner: Arc<Mutex<Pipeline>>,
}

/// One moment of the pipeline.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    pub kafka_enabled: bool,
    /// The name of this instance among the owners of partitions.
    pub instance: String,
    /// Before the projectors' names as consumer groups.
    pub group_prefix: String,
    /// The last attempt to reach Kafka succeeded.
    pub connected: bool,
    /// Why it did not.
    pub connection_error: Option<String>,
    pub breaker: BreakerState,
    /// As the last question to it was answered; none where it was not.
    pub cluster: Option<ClusterStatus>,
    pub publisher: PublisherStatus,
    /// None where there is no second destination.
    pub second: Option<SecondStatus>,
    /// By projector name; [`COMMANDS`] among them, where commands are consumed.
    pub projectors: BTreeMap<&'static str, ProjectorStatus>,
    /// Every topic that should be there, as of the last look; none: the cluster did not answer.
    pub topics: Option<Vec<TopicHealth>>,
    pub schemas: SchemasStatus,
    /// What an operator has to do something about.
    pub problems: BTreeMap<Problem, String>,
    /// Names of background tasks that ended although they must not.
    pub dead_tasks: Vec<&'static str>,
    /// Shutting down: not ready for new work.
    pub draining: bool,
}

/// What does not mend by itself, by what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The topic of the events does not fit what is hashed already.
    Topic,
    /// Another deployment writes to it.
    Deployment,
    /// Some of the work that was due is set aside.
    Jobs,
}

/// Whether Kafka is tried at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BreakerState {
    #[default]
    Closed,
    Open,
    HalfOpen,
}

impl BreakerState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The Kafka cluster as it describes itself.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Cluster)]
pub struct ClusterStatus {
    pub id: String,
    pub controller: i32,
    pub ping_ms: u64,
    pub brokers: Vec<BrokerStatus>,
    pub topics: Vec<TopicStatus>,
}

#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Broker)]
pub struct BrokerStatus {
    pub id: i32,
    /// As advertised.
    pub host: String,
    pub reachable: bool,
    /// Until that address took a connection from here.
    #[schema(required)]
    pub latency_ms: Option<u64>,
}

/// A topic as the cluster describes it.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Topic)]
pub struct TopicStatus {
    pub name: String,
    pub partitions: usize,
    /// Partitions with fewer replicas in sync than they should have.
    pub under_replicated: usize,
    /// Partitions without a leader.
    pub offline: usize,
}

/// A topic that should be there, and how it is.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicHealth {
    pub name: String,
    pub exists: bool,
    pub partitions: usize,
    pub under_replicated: usize,
    pub offline: usize,
    /// `partitions`, `replication.factor` or a configuration's name: what is other than it should be.
    pub drift: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct PublisherStatus {
    pub running: bool,
    /// Partitions that this instance publishes.
    pub partitions: usize,
    pub published: u64,
    /// Of these, in about the last minute.
    pub published_last_minute: u64,
    pub errors: u64,
    pub last_error: Option<String>,
}

/// The second destination, where there is one.
#[derive(Debug, Clone, Default)]
pub struct SecondStatus {
    pub topic: String,
    pub running: bool,
    /// The last attempt to reach its cluster succeeded.
    pub connected: bool,
    /// Partitions that this instance follows.
    pub partitions: usize,
    pub published: u64,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct ProjectorStatus {
    pub running: bool,
    /// Its places are of another Postgres cluster, or did not say: it goes through all wallets.
    pub mending: bool,
    pub applied: u64,
    pub duplicates: u64,
    pub healed: u64,
    pub dead_letters: u64,
    /// How often its set of partitions changed after the first time.
    pub rebalances: u64,
    pub partitions: BTreeMap<i32, PartitionStatus>,
    pub offsets: OffsetsStatus,
    pub last_error: Option<String>,
    /// The error is forgotten once all goes well again; others stay for people to see.
    pub error_is_transient: bool,
    /// Why its steps fail: what is there to be applied is not. None: they do not.
    pub failing: Option<String>,
    /// Which partitions wait for a newer build, and for what. None: none does.
    pub newer: Option<String>,
}

/// Its positions committed to Kafka under its group's name.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = Offsets)]
pub struct OffsetsStatus {
    /// This instance commits them.
    pub copying: bool,
    /// It commits without an error, and looks for resets before each commit.
    pub watched: bool,
    /// Why it does not commit them at the moment.
    #[schema(required)]
    pub error: Option<String>,
}

/// Whether the registry has the schemas of what is published.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = Schemas)]
pub struct SchemasStatus {
    pub state: SchemasState,
    /// Its URL, without what lets one in.
    #[schema(required)]
    pub registry: Option<String>,
    /// How many it has.
    pub subjects: usize,
    /// Why it does not have them.
    #[schema(required)]
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SchemasState {
    /// No registry is set.
    #[default]
    Disabled,
    /// It does not answer, or not with a yes: tried again.
    Waiting,
    Registered,
    /// Found while the service ran: at a start it would have stopped that.
    Incompatible,
}

impl SchemasState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Waiting => "waiting",
            Self::Registered => "registered",
            Self::Incompatible => "incompatible",
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub struct PartitionStatus {
    /// The next offset that the projector will apply.
    pub next_offset: i64,
    /// The topic's end as of the last fetch.
    pub high_watermark: i64,
    /// When the record at `next_offset` was written, in ms since 1970, where that is known.
    pub oldest: Option<i64>,
}

impl Pipeline {
    /// Without the consumer of commands.
    pub fn projections(&self) -> Vec<&'static str> {
        self.projectors.keys().copied().filter(|name| *name != COMMANDS).collect()
    }
}

impl Status {
    /// A copy to read from.
    pub fn snapshot(&self) -> Pipeline {
        self.lock().clone()
    }

    /// Changes a few fields. Must not block or await inside.
    pub fn update(&self, change: impl FnOnce(&mut Pipeline)) {
        change(&mut self.lock());
    }

    // A panic while the lock was held leaves plain counters behind: still worth showing.
    fn lock(&self) -> MutexGuard<'_, Pipeline> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TopicHealth {
    pub fn is_well(&self) -> bool {
        self.exists && self.under_replicated + self.offline == 0 && self.drift.is_empty()
    }
}

impl PartitionStatus {
    pub fn lag(self) -> i64 {
        (self.high_watermark - self.next_offset).max(0)
    }
}
