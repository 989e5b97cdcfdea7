//! What the health pages of the pipeline say: their JSON, and with it their schemas.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::status::{ClusterStatus, OffsetsStatus, SchemasStatus, TopicHealth};
use crate::store::snapshots::Snapshot;

/// How events get from the outbox to the projections.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaHealth {
    pub status: PipelineStatus,
    /// Why it is not `healthy`; what is not known is among them.
    pub reasons: Vec<String>,
    pub producer: Producer,
    pub kafka: KafkaState,
    pub publisher: Publisher,
    /// The second destination; null where there is none.
    #[schema(required)]
    pub second: Option<Second>,
    /// By consumer group.
    pub consumers: BTreeMap<String, Consumer>,
    pub breaker: Breaker,
    /// Null: the last look did not succeed.
    #[schema(required)]
    pub topics: Option<TopicCounts>,
    #[schema(format = DateTime)]
    pub timestamp: String,
}

/// *healthy*: connected and less than 30 s behind; *degraded*: not so, but commands go on;
/// *unhealthy*: Postgres unreachable or a background task dead; *disabled*: `KAFKA_ENABLED=false`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PipelineStatus {
    Healthy,
    Degraded,
    Unhealthy,
    Disabled,
}

#[derive(Serialize, ToSchema)]
pub struct Producer {
    pub connected: bool,
}

#[derive(Serialize, ToSchema)]
pub struct KafkaState {
    #[schema(pattern = "^(connected|disconnected|disabled)$")]
    pub status: &'static str,
    /// Why the last attempt to connect failed.
    #[schema(required)]
    pub error: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Publisher {
    pub is_running: bool,
    /// Null: Postgres did not say.
    #[schema(required, minimum = 0)]
    pub unprocessed_events: Option<i64>,
    /// There are more than these: no more than 100,000 are counted.
    pub more: bool,
    /// Age of the oldest unpublished event.
    #[schema(required)]
    pub lag_ms: Option<u64>,
    /// The topic lacks events that were applied without Kafka, or that are to be sent again.
    pub awaits_republication: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SecondDestination)]
pub struct Second {
    pub topic: String,
    #[schema(pattern = "^(running|stopped)$")]
    pub state: &'static str,
    /// The last attempt to reach its cluster succeeded.
    pub connected: bool,
    #[schema(required)]
    pub error: Option<String>,
    /// Records of this instance since it started.
    pub published: u64,
    /// Events that it lacks. Null: Postgres did not say.
    #[schema(required, minimum = 0)]
    pub lag: Option<i64>,
    /// There may be more than these: not all of them were looked at.
    pub more: bool,
    /// Age of the oldest of them.
    #[schema(required, minimum = 0)]
    pub lag_ms: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    #[schema(pattern = "^(running|stopped)$")]
    pub state: &'static str,
    /// Null: it is not known, and `reasons` has why.
    #[schema(required, minimum = 0)]
    pub lag: Option<i64>,
    /// There may be more than these: not all of them were looked at.
    pub more: bool,
    #[schema(required)]
    pub lag_ms: Option<u64>,
    /// Why what is there to be applied is not; absent where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub error: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct Breaker {
    #[schema(pattern = "^(open|closed|half_open)$")]
    pub state: &'static str,
}

/// How many topics there should be, and how many of them are not as they should be.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicCounts {
    pub wanted: usize,
    pub missing: usize,
    /// With partitions that have no leader.
    pub offline: usize,
    /// With partitions that lack replicas in sync.
    pub under_replicated: usize,
    /// With other partitions, replicas or configurations than they should have.
    pub drifted: usize,
}

/// The same in detail.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaStats {
    #[serde(flatten)]
    pub health: KafkaHealth,
    /// The name of this instance among the owners of partitions.
    pub instance: String,
    /// Null: it did not answer the last question.
    #[schema(required)]
    pub cluster: Option<ClusterStatus>,
    /// Null: it does not answer.
    #[schema(required)]
    pub database: Option<Database>,
    pub outbox: Outbox,
    /// By consumer group.
    pub groups: BTreeMap<String, Group>,
    /// Dead letters that no operator has replayed or settled. Null: Postgres did not say.
    #[schema(required, minimum = 0)]
    pub dead_letters: Option<i64>,
    /// Wallets that some projector has parked.
    #[schema(required, minimum = 0)]
    pub parked_wallets: Option<i64>,
    /// Each topic that should be there. Null: the last look did not succeed.
    #[schema(required)]
    pub topic_states: Option<Vec<TopicHealth>>,
    pub schemas: SchemasStatus,
    /// Background tasks that ended although they must not.
    pub dead_tasks: Vec<&'static str>,
    /// Who has held a snapshot or a transaction for five seconds or more, the longest first, at most three.
    /// Where the age is not known, as of a replication slot: for 10,000 transactions or more.
    pub oldest_snapshots: Vec<Snapshot>,
}

/// The database as the service sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Who the service logs in as, and the role that it works as.
    pub login: String,
    pub role: String,
    /// That role cannot change or delete events and ledger entries. Null: there are none yet.
    #[schema(required)]
    pub books_protected: Option<bool>,
    /// False: a standby, or read-only by default.
    pub writable: bool,
    /// What is committed survives a crash: `fsync` and `full_page_writes` are on.
    pub durable: bool,
    /// What an operator should know, each with what to do.
    pub warnings: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outbox {
    pub published: u64,
    pub published_last_minute: u64,
    pub errors: u64,
    #[schema(required)]
    pub last_error: Option<String>,
    pub partitions: Vec<Published>,
}

/// Who publishes a partition.
#[derive(Serialize, ToSchema)]
pub struct Published {
    #[schema(minimum = 0)]
    pub partition: i32,
    /// The instance that has its lease; null: none has.
    #[schema(required)]
    pub owner: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// How often the set of partitions of this instance changed.
    pub rebalances: u64,
    /// Resets of the group's offsets that were honoured, by all instances and for ever.
    #[schema(minimum = 0)]
    pub resets: i64,
    /// Resets beyond the projector's place.
    #[schema(minimum = 0)]
    pub resets_refused: i64,
    pub offsets: OffsetsStatus,
    pub applied: u64,
    pub duplicates: u64,
    pub healed: u64,
    pub dead_letters: u64,
    #[schema(required)]
    pub last_error: Option<String>,
    pub partitions: Vec<Partition>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    #[schema(minimum = 0)]
    pub partition: i32,
    #[schema(minimum = 0)]
    pub committed: i64,
    /// Null: another instance reads the partition.
    #[schema(required, minimum = 0)]
    pub log_end: Option<i64>,
    #[schema(required, minimum = 0)]
    pub lag: Option<i64>,
    /// Events that the projection has not applied, whichever instance reads the partition.
    #[schema(required, minimum = 0)]
    pub lag_events: Option<i64>,
    /// There may be more than these: not all of them were looked at.
    pub more: bool,
    /// Age of the oldest of them.
    #[schema(required, minimum = 0)]
    pub lag_ms: Option<i64>,
    /// The instance that has its lease; null: none has.
    #[schema(required)]
    pub owner: Option<String>,
}
