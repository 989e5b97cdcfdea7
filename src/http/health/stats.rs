//! The health page in detail: cluster, brokers, topics, and every partition of every group.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::super::HttpState;
use super::super::openapi::health as shapes;
use super::super::openapi::problems::InternalProblems;
use super::{QUESTION, Report, counted, page, within};
use crate::status::{COMMANDS, Pipeline, ProjectorStatus, PublisherStatus, SchemasStatus};
use crate::store::facts::{self, Facts};
use crate::store::group_offsets::{self, Resets};
use crate::store::lag::{self, PartitionLag};
use crate::store::leases::{self, Holder};
use crate::store::snapshots::{self, Snapshot};
use crate::store::{self, Pool};
use crate::wallet::TenantId;

/// What Postgres says of the groups; nothing where it does not answer.
#[derive(Default)]
struct Stored {
    holders: Vec<Holder>,
    lags: Vec<PartitionLag>,
    resets: Vec<Resets>,
    snapshots: Vec<Snapshot>,
}

/// Holders of old snapshots that are shown.
const SNAPSHOTS: i64 = 3;
/// Younger ones are everyday life, in seconds.
pub(super) const YOUNG: i64 = 5;
/// The same in transactions, where the age is not known.
const FAR: i64 = 10_000;

/// How events get to Kafka and back, in detail.
#[utoipa::path(
    get, path = "/health/kafka/stats", tag = "health", operation_id = "getKafkaStats",
    responses((status = 200, description = "The state in detail", body = shapes::KafkaStats), InternalProblems)
)]
pub(in super::super) async fn kafka_stats(State(state): State<HttpState>) -> Response {
    let report = Report::take(&state).await;
    let pipeline = &report.pipeline;
    let mut body = report.summary();
    let stored = match report.answers {
        true => Stored::read(&state.pools.health, pipeline).await,
        false => Stored::default(),
    };
    let groups = pipeline.projectors.iter();
    let groups: Map<String, Value> = groups
        .map(|(name, status)| (report.group(name), stored.group(name, status, &pipeline.instance)))
        .collect();
    let tenant = TenantId::default_tenant();
    let facts = within(facts::look(&state.pools.health)).await.ok();
    let counts = within(store::dead_letters::counts(&state.pools.health, &tenant)).await.ok();
    let details = [
        ("instance", json!(pipeline.instance)),
        ("outbox", stored.outbox(&pipeline.publisher)),
        ("groups", Value::Object(groups)),
        ("cluster", cluster(pipeline)),
        ("database", facts.as_ref().map_or(Value::Null, database)),
        ("deadLetters", json!(counts.map(|counts| counts.open))),
        ("parkedWallets", json!(counts.map(|counts| counts.parked))),
        ("topicStates", topics(pipeline)),
        ("schemas", schemas(&pipeline.schemas)),
        ("deadTasks", json!(pipeline.dead_tasks)),
        ("oldestSnapshots", stored.snapshots.iter().filter(is_old).map(snapshot).collect()),
    ];
    body.extend(details.map(|(name, value)| (name.to_owned(), value)));
    page(StatusCode::OK, &Value::Object(body))
}

/// The database as the service meets it, with what an operator should know.
fn database(facts: &Facts) -> Value {
    json!({
        "login": facts.login,
        "role": facts.role,
        "booksProtected": facts.protected,
        "writable": facts.unwritable().is_none(),
        "durable": facts.is_durable(),
        "warnings": facts.warnings(),
    })
}

async fn lags(pool: &Pool, names: &[&str]) -> store::Result<Vec<PartitionLag>> {
    let mut connection = store::acquire(pool).await?;
    lag::lags(&mut connection, names, QUESTION).await
}

/// Of a slot and of a standby's feedback no age is known, but how many transactions began since.
fn is_old(held: &&Snapshot) -> bool {
    match held.seconds {
        Some(seconds) => seconds >= YOUNG,
        None => held.transactions.is_some_and(|count| count >= FAR),
    }
}

fn snapshot(held: &Snapshot) -> Value {
    json!({
        "kind": held.kind,
        "pid": held.pid,
        "name": held.name,
        "database": held.database,
        "seconds": held.seconds,
        "transactions": held.transactions,
    })
}

/// Each topic that the summary counts. Null where nobody could look.
fn topics(pipeline: &Pipeline) -> Value {
    let topics = pipeline.topics.as_ref().filter(|_| pipeline.connected);
    let Some(topics) = topics else { return Value::Null };
    let topics = topics.iter().map(|topic| {
        json!({
            "name": topic.name,
            "exists": topic.exists,
            "partitions": topic.partitions,
            "underReplicated": topic.under_replicated,
            "offline": topic.offline,
            "drift": topic.drift,
        })
    });
    topics.collect()
}

fn schemas(schemas: &SchemasStatus) -> Value {
    json!({
        "state": schemas.state.as_str(),
        "registry": schemas.registry,
        "subjects": schemas.subjects,
        "error": schemas.error,
    })
}

/// Null where the cluster did not answer the last question.
fn cluster(pipeline: &Pipeline) -> Value {
    let Some(cluster) = &pipeline.cluster else { return Value::Null };
    let brokers = cluster.brokers.iter();
    let brokers: Vec<Value> = brokers
        .map(|broker| {
            json!({
                "id": broker.id,
                "host": broker.host,
                "reachable": broker.latency_ms.is_some(),
                "latencyMs": broker.latency_ms,
            })
        })
        .collect();
    let topics = cluster.topics.iter();
    let topics: Vec<Value> = topics
        .map(|topic| {
            json!({
                "name": topic.name,
                "partitions": topic.partitions,
                "underReplicated": topic.under_replicated,
                "offline": topic.offline,
            })
        })
        .collect();
    json!({
        "id": cluster.id,
        "controller": cluster.controller,
        "pingMs": cluster.ping_ms,
        "brokers": brokers,
        "topics": topics,
    })
}

impl Stored {
    async fn read(pool: &Pool, pipeline: &Pipeline) -> Self {
        let names = pipeline.projectors.keys().copied().filter(|name| *name != COMMANDS);
        let names: Vec<&str> = names.collect();
        Self {
            holders: within(leases::holders(pool)).await.unwrap_or_default(),
            lags: counted(lags(pool, &names)).await.unwrap_or_default(),
            resets: within(group_offsets::resets(pool)).await.unwrap_or_default(),
            snapshots: within(snapshots::oldest(pool, SNAPSHOTS)).await.unwrap_or_default(),
        }
    }

    /// What this instance has published, and which instance publishes which partition.
    fn outbox(&self, publisher: &PublisherStatus) -> Value {
        let publishers = self.holders.iter().filter(|holder| holder.role == leases::PUBLISHER);
        let partitions: Vec<Value> = publishers
            .map(|holder| json!({"partition": holder.partition, "owner": holder.owner}))
            .collect();
        json!({
            "partitions": partitions,
            "published": publisher.published,
            "publishedLastMinute": publisher.published_last_minute,
            "errors": publisher.errors,
            "lastError": publisher.last_error,
        })
    }

    fn group(&self, name: &str, status: &ProjectorStatus, own: &str) -> Value {
        let resets = self.resets.iter().find(|resets| resets.projector == name);
        json!({
            "rebalances": status.rebalances,
            "resets": resets.map_or(0, |resets| resets.honoured),
            "resetsRefused": resets.map_or(0, |resets| resets.refused),
            "offsets": {
                "copying": status.offsets.copying,
                "watched": status.offsets.watched,
                "error": status.offsets.error,
            },
            "applied": status.applied,
            "duplicates": status.duplicates,
            "healed": status.healed,
            "deadLetters": status.dead_letters,
            "lastError": status.last_error,
            "partitions": self.partitions(name, status, own),
        })
    }

    /// The topic's end is known where this instance reads the partition. Of the others the place is
    /// known, from Postgres.
    fn partitions(&self, name: &str, status: &ProjectorStatus, own: &str) -> Vec<Value> {
        let mut partitions: BTreeMap<i32, Value> = BTreeMap::new();
        let holders = self.holders.iter().filter(|holder| holder.role == name);
        for holder in holders.clone() {
            let entry = json!({
                "partition": holder.partition,
                "committed": holder.next_offset.unwrap_or(0),
                "logEnd": null,
                "lag": null,
                "owner": holder.owner,
            });
            partitions.insert(holder.partition, entry);
        }
        // A partition that was given up a moment ago is another's; without Postgres all is as it was.
        let is_own = |partition: &i32| {
            let holder = holders.clone().find(|holder| holder.partition == *partition);
            holder.is_none_or(|holder| holder.owner.as_deref() == Some(own))
        };
        for (partition, at) in status.partitions.iter().filter(|(partition, _)| is_own(partition)) {
            let entry = json!({
                "partition": partition,
                "committed": at.next_offset,
                "logEnd": at.high_watermark,
                "lag": at.lag(),
                "owner": own,
            });
            partitions.insert(*partition, entry);
        }
        for (partition, entry) in &mut partitions {
            let mut lags = self.lags.iter();
            let lag = lags.find(|lag| lag.projector == name && lag.partition == *partition);
            let lag = lag.filter(|lag| lag.unknown.is_none());
            if let Some(fields) = entry.as_object_mut() {
                fields.insert("lagEvents".to_owned(), json!(lag.map(|lag| lag.events)));
                fields.insert("more".to_owned(), json!(lag.is_some_and(|lag| lag.more)));
                fields.insert("lagMs".to_owned(), json!(lag.map(|lag| lag.oldest_ms)));
            }
        }
        partitions.into_values().collect()
    }
}
