//! The health page in detail: cluster, brokers, topics, and every partition of every group.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::super::HttpState;
use super::super::openapi::problems::InternalProblems;
use super::super::views::answer;
use super::pages::{Database, Group, KafkaStats, Outbox, Partition, Published};
use super::report::Report;
use super::{QUESTION, counted, within};
use crate::status::{Pipeline, ProjectorStatus, PublisherStatus};
use crate::store::facts::{self, Facts};
use crate::store::group_offsets::{self, Resets};
use crate::store::lag::{self, PartitionLag};
use crate::store::leases::{self, Holder};
use crate::store::snapshots::{self, Snapshot};
use crate::store::{self, Pool};

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
    responses((status = 200, description = "The state in detail", body = KafkaStats), InternalProblems)
)]
pub(in super::super) async fn kafka_stats(State(state): State<HttpState>) -> Response {
    let report = Report::take(&state).await;
    let pipeline = &report.pipeline;
    let stored = match report.answers {
        true => Stored::read(&state.pools.health, pipeline).await,
        false => Stored::default(),
    };
    let groups = pipeline.projectors.iter();
    let groups = groups
        .map(|(name, status)| (report.group(name), stored.group(name, status, &pipeline.instance)))
        .collect();
    let facts = within(facts::look(&state.pools.health)).await.ok();
    let counts = within(store::dead_letters::counts(&state.pools.health)).await.ok();
    let stats = KafkaStats {
        health: report.summary(),
        instance: pipeline.instance.clone(),
        cluster: pipeline.cluster.clone(),
        database: facts.as_ref().map(database),
        outbox: stored.outbox(&pipeline.publisher),
        groups,
        dead_letters: counts.map(|counts| counts.open),
        parked_wallets: counts.map(|counts| counts.parked),
        topic_states: report.topics().map(<[_]>::to_vec),
        schemas: pipeline.schemas.clone(),
        dead_tasks: pipeline.dead_tasks.clone(),
        oldest_snapshots: stored.snapshots.into_iter().filter(is_old).collect(),
    };
    answer(StatusCode::OK, &stats)
}

/// The database as the service sees it, with what an operator should know.
fn database(facts: &Facts) -> Database {
    Database {
        login: facts.login.clone(),
        role: facts.role.clone(),
        books_protected: facts.protected,
        writable: facts.unwritable().is_none(),
        durable: facts.is_durable(),
        warnings: facts.warnings(),
    }
}

async fn lags(pool: &Pool, names: &[&str]) -> store::Result<Vec<PartitionLag>> {
    let mut connection = store::acquire(pool).await?;
    lag::lags(&mut connection, names, QUESTION).await
}

/// Of a slot and of a standby's feedback no age is known, but how many transactions began since.
fn is_old(held: &Snapshot) -> bool {
    match held.seconds {
        Some(seconds) => seconds >= YOUNG,
        None => held.transactions.is_some_and(|count| count >= FAR),
    }
}

impl Stored {
    async fn read(pool: &Pool, pipeline: &Pipeline) -> Self {
        let names = pipeline.projections();
        Self {
            holders: within(leases::holders(pool)).await.unwrap_or_default(),
            lags: counted(lags(pool, &names)).await.unwrap_or_default(),
            resets: within(group_offsets::resets(pool)).await.unwrap_or_default(),
            snapshots: within(snapshots::oldest(pool, SNAPSHOTS)).await.unwrap_or_default(),
        }
    }

    /// What this instance has published, and which instance publishes which partition.
    fn outbox(&self, publisher: &PublisherStatus) -> Outbox {
        let publishers = self.holders.iter().filter(|holder| holder.role == leases::PUBLISHER);
        let partitions = publishers
            .map(|holder| Published { partition: holder.partition, owner: holder.owner.clone() });
        Outbox {
            published: publisher.published,
            published_last_minute: publisher.published_last_minute,
            errors: publisher.errors,
            last_error: publisher.last_error.clone(),
            partitions: partitions.collect(),
        }
    }

    fn group(&self, name: &str, status: &ProjectorStatus, own: &str) -> Group {
        let resets = self.resets.iter().find(|resets| resets.projector == name);
        Group {
            rebalances: status.rebalances,
            resets: resets.map_or(0, |resets| resets.honoured),
            resets_refused: resets.map_or(0, |resets| resets.refused),
            offsets: status.offsets.clone(),
            applied: status.applied,
            duplicates: status.duplicates,
            healed: status.healed,
            dead_letters: status.dead_letters,
            last_error: status.last_error.clone(),
            partitions: self.partitions(name, status, own),
        }
    }

    /// The topic's end is known where this instance reads the partition. Of the others the position is
    /// known, from Postgres.
    fn partitions(&self, name: &str, status: &ProjectorStatus, own: &str) -> Vec<Partition> {
        let holders: BTreeMap<i32, &Holder> = self
            .holders
            .iter()
            .filter(|holder| holder.role == name)
            .map(|holder| (holder.partition, holder))
            .collect();
        let all: BTreeSet<i32> = holders.keys().chain(status.partitions.keys()).copied().collect();
        let partition = |partition: i32| {
            let holder = holders.get(&partition);
            let owner = holder.and_then(|holder| holder.owner.as_deref());
            // A partition that was given up a moment ago is another's; without Postgres all is as it was.
            let is_own = holder.is_none() || owner == Some(own);
            let read = status.partitions.get(&partition).filter(|_| is_own);
            let stored = holder.and_then(|holder| holder.next_offset).unwrap_or(0);
            let mut lags = self.lags.iter();
            let lag = lags.find(|lag| lag.projector == name && lag.partition == partition);
            let lag = lag.filter(|lag| lag.unknown.is_none());
            Partition {
                partition,
                committed: read.map_or(stored, |read| read.next_offset),
                log_end: read.map(|read| read.high_watermark),
                lag: read.map(|read| read.lag()),
                lag_events: lag.map(|lag| lag.events),
                more: lag.is_some_and(|lag| lag.more),
                lag_ms: lag.map(|lag| lag.oldest_ms),
                owner: if read.is_some() { Some(own) } else { owner }.map(str::to_owned),
            }
        };
        all.into_iter().map(partition).collect()
    }
}
