//! The shapes of the health pages. The pages are put together as JSON, field by field; these are
//! for the document alone, and a test holds live answers against them.

#![allow(dead_code, reason = "only the schemas of these shapes are used")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// The process answers.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Alive {
    status: Ok,
}

/// The ledger's routes answer.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LedgerAlive {
    status: Ok,
    #[schema(pattern = "^ledger$")]
    module: String,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Ok {
    Ok,
}

/// Whether this instance may be sent requests.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    #[schema(pattern = "^ready$")]
    status: String,
}

/// Why this instance must not be sent requests.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotReady {
    #[schema(pattern = "^not_ready$")]
    status: String,
    reason: String,
}

/// What commands depend on.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiHealth {
    #[schema(pattern = "^(healthy|unhealthy)$")]
    status: String,
    checks: Checks,
}

#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Checks {
    database: Check,
    /// With `HEALTH_INCLUDE_KAFKA=true` only.
    #[schema(required = false, nullable = false)]
    kafka: Option<Check>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    #[schema(pattern = "^(up|down)$")]
    status: String,
    #[schema(minimum = 0)]
    latency_ms: i64,
    #[schema(value_type = String, required = false)]
    error: Option<String>,
}

/// How events get from the outbox to the projections.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaHealth {
    status: PipelineStatus,
    /// Why it is not `healthy`; what is not known is among them.
    reasons: Vec<String>,
    producer: Producer,
    kafka: KafkaState,
    publisher: Publisher,
    /// The second destination; null where there is none.
    #[schema(required)]
    second: Option<Second>,
    /// By consumer group.
    consumers: BTreeMap<String, Consumer>,
    breaker: Breaker,
    /// Null: nobody could look at them.
    #[schema(required)]
    topics: Option<TopicCounts>,
    #[schema(value_type = String, format = DateTime)]
    timestamp: String,
}

/// *healthy*: connected and less than 30 s behind; *degraded*: not so, but commands go on;
/// *unhealthy*: Postgres unreachable or a background task dead; *disabled*: `KAFKA_ENABLED=false`.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum PipelineStatus {
    Healthy,
    Degraded,
    Unhealthy,
    Disabled,
}

#[derive(ToSchema)]
pub struct Producer {
    connected: bool,
}

#[derive(ToSchema)]
pub struct KafkaState {
    #[schema(pattern = "^(connected|disconnected|disabled)$")]
    status: String,
    /// Why the last attempt to connect failed.
    #[schema(required)]
    error: Option<String>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Publisher {
    is_running: bool,
    /// Null: Postgres did not say.
    #[schema(required, minimum = 0)]
    unprocessed_events: Option<i64>,
    /// There are more than these: no more than 100,000 are counted.
    more: bool,
    /// Age of the oldest unpublished event.
    #[schema(required, minimum = 0)]
    lag_ms: Option<i64>,
    /// The topic lacks events that were applied without Kafka, or that are to be sent again.
    awaits_republication: bool,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SecondDestination)]
pub struct Second {
    topic: String,
    #[schema(pattern = "^(running|stopped)$")]
    state: String,
    /// The last attempt to reach its cluster succeeded.
    connected: bool,
    #[schema(required)]
    error: Option<String>,
    /// Records of this instance since it started.
    #[schema(minimum = 0)]
    published: i64,
    /// Events that it lacks. Null: Postgres did not say.
    #[schema(required, minimum = 0)]
    lag: Option<i64>,
    /// There may be more than these: not all of them were looked at.
    more: bool,
    /// Age of the oldest of them.
    #[schema(required, minimum = 0)]
    lag_ms: Option<i64>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    #[schema(pattern = "^(running|stopped)$")]
    state: String,
    /// Null: it is not known, and `reasons` has why.
    #[schema(required, minimum = 0)]
    lag: Option<i64>,
    /// There may be more than these: not all of them were looked at.
    more: bool,
    #[schema(required, minimum = 0)]
    lag_ms: Option<i64>,
    /// Why what is there to be applied is not; absent where it is.
    #[schema(required = false, nullable = false)]
    error: Option<String>,
}

#[derive(ToSchema)]
pub struct Breaker {
    #[schema(pattern = "^(open|closed|half_open)$")]
    state: String,
}

/// How many topics there should be, and how many of them are not as they should be.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicCounts {
    #[schema(minimum = 0)]
    wanted: i32,
    #[schema(minimum = 0)]
    missing: i32,
    /// With partitions that have no leader.
    #[schema(minimum = 0)]
    offline: i32,
    /// With partitions that lack replicas in sync.
    #[schema(minimum = 0)]
    under_replicated: i32,
    /// With other partitions, replicas or configurations than they should have.
    #[schema(minimum = 0)]
    drifted: i32,
}

/// The same in detail.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaStats {
    status: PipelineStatus,
    /// Why it is not `healthy`; what is not known is among them.
    reasons: Vec<String>,
    producer: Producer,
    kafka: KafkaState,
    publisher: Publisher,
    #[schema(required)]
    second: Option<Second>,
    /// By consumer group.
    consumers: BTreeMap<String, Consumer>,
    breaker: Breaker,
    /// Null: nobody could look at them.
    #[schema(required)]
    topics: Option<TopicCounts>,
    #[schema(value_type = String, format = DateTime)]
    timestamp: String,
    /// The name of this instance among the owners of partitions.
    instance: String,
    /// Null: it did not answer the last question.
    #[schema(required)]
    cluster: Option<Cluster>,
    /// Null: it does not answer.
    #[schema(required)]
    database: Option<Database>,
    outbox: Outbox,
    /// By consumer group.
    groups: BTreeMap<String, Group>,
    /// Dead letters that nobody has replayed or settled. Null: Postgres did not say.
    #[schema(required, minimum = 0)]
    dead_letters: Option<i64>,
    /// Wallets that some projector has parked.
    #[schema(required, minimum = 0)]
    parked_wallets: Option<i64>,
    /// Each topic that should be there. Null: nobody could look at them.
    #[schema(required)]
    topic_states: Option<Vec<TopicHealth>>,
    schemas: Schemas,
    /// Background tasks that ended although they must not.
    dead_tasks: Vec<String>,
    /// Who has held a snapshot or a transaction for five seconds or more, the longest first, at most three.
    /// Where the age is not known, as of a replication slot: for 10,000 transactions or more.
    oldest_snapshots: Vec<HeldSnapshot>,
}

/// A session, a slot or a prepared transaction keeps the server from cleaning up, and the feed from Postgres from moving its cursors.
#[derive(ToSchema)]
pub struct HeldSnapshot {
    #[schema(pattern = "^(session|prepared transaction|replication slot)$")]
    kind: String,
    #[schema(required)]
    pid: Option<i32>,
    /// Its application, global identifier or slot.
    name: String,
    #[schema(required)]
    database: Option<String>,
    /// Null: no age is known, as of a slot.
    #[schema(required)]
    seconds: Option<i64>,
    /// Transactions that began since.
    #[schema(required)]
    transactions: Option<i64>,
}

/// The database as the service meets it.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Who the service logs in as, and the role that it works as.
    login: String,
    role: String,
    /// That role cannot change or delete events and ledger entries. Null: there are none yet.
    #[schema(required)]
    books_protected: Option<bool>,
    /// False: a standby, or read-only by default.
    writable: bool,
    /// What is committed survives a crash: `fsync` and `full_page_writes` are on.
    durable: bool,
    /// What an operator should know, each with what to do.
    warnings: Vec<String>,
}

/// A topic as it should be there.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicHealth {
    name: String,
    exists: bool,
    #[schema(minimum = 0)]
    partitions: i32,
    #[schema(minimum = 0)]
    under_replicated: i32,
    #[schema(minimum = 0)]
    offline: i32,
    /// `partitions`, `replication.factor` or a configuration's name.
    drift: Vec<String>,
}

/// Whether the registry has the schemas of what is published.
#[derive(ToSchema)]
pub struct Schemas {
    #[schema(pattern = "^(disabled|waiting|registered|incompatible)$")]
    state: String,
    /// Its URL, without what lets one in.
    #[schema(required)]
    registry: Option<String>,
    #[schema(minimum = 0)]
    subjects: i32,
    /// Why it does not have them.
    #[schema(required)]
    error: Option<String>,
}

/// The Kafka cluster as it describes itself.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    id: String,
    controller: i32,
    #[schema(minimum = 0)]
    ping_ms: i64,
    brokers: Vec<Broker>,
    topics: Vec<Topic>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Broker {
    id: i32,
    /// As advertised.
    host: String,
    reachable: bool,
    /// Until that address took a connection from here.
    #[schema(required, minimum = 0)]
    latency_ms: Option<i64>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topic {
    name: String,
    #[schema(minimum = 0)]
    partitions: i32,
    #[schema(minimum = 0)]
    under_replicated: i32,
    #[schema(minimum = 0)]
    offline: i32,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outbox {
    #[schema(minimum = 0)]
    published: i64,
    #[schema(minimum = 0)]
    published_last_minute: i64,
    #[schema(minimum = 0)]
    errors: i64,
    #[schema(required)]
    last_error: Option<String>,
    partitions: Vec<Published>,
}

/// Who publishes a partition.
#[derive(ToSchema)]
pub struct Published {
    #[schema(minimum = 0)]
    partition: i32,
    /// The instance that has its lease; null: nobody has.
    #[schema(required)]
    owner: Option<String>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// How often the set of partitions of this instance changed.
    #[schema(minimum = 0)]
    rebalances: i64,
    /// Resets of the group's offsets that were honoured, by all instances and for ever.
    #[schema(minimum = 0)]
    resets: i64,
    /// Resets beyond the projector's place.
    #[schema(minimum = 0)]
    resets_refused: i64,
    offsets: Offsets,
    #[schema(minimum = 0)]
    applied: i64,
    #[schema(minimum = 0)]
    duplicates: i64,
    #[schema(minimum = 0)]
    healed: i64,
    #[schema(minimum = 0)]
    dead_letters: i64,
    #[schema(required)]
    last_error: Option<String>,
    partitions: Vec<Partition>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    #[schema(minimum = 0)]
    partition: i32,
    #[schema(minimum = 0)]
    committed: i64,
    /// Null: another instance reads the partition.
    #[schema(required, minimum = 0)]
    log_end: Option<i64>,
    #[schema(required, minimum = 0)]
    lag: Option<i64>,
    /// Events that the projection has not applied, whoever reads the partition.
    #[schema(required, minimum = 0)]
    lag_events: Option<i64>,
    /// There may be more than these: not all of them were looked at.
    more: bool,
    /// Age of the oldest of them.
    #[schema(required, minimum = 0)]
    lag_ms: Option<i64>,
    /// The instance that has its lease; null: nobody has.
    #[schema(required)]
    owner: Option<String>,
}

/// The group's offsets, which are committed to Kafka as a copy of the positions in Postgres.
#[derive(ToSchema)]
pub struct Offsets {
    /// This instance commits them.
    copying: bool,
    /// It commits without an error, and looks for resets before each commit.
    watched: bool,
    /// Why they are not committed at the moment.
    #[schema(required)]
    error: Option<String>,
}
