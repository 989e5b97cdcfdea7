//! Dual publishing: `events` as a publisher's source, for a second topic or cluster while a deployment
//! moves there. Nothing runs where none is set.
//!
//! It has a position among `events` per partition and a version per wallet, which are its own: commands
//! and the outbox neither wait for it nor write anything for it, and an outage of one cluster does not
//! touch the other. A wallet's events go in the order of their versions.

mod mend;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};

use tokio::sync::Mutex;

use super::Deps;
use super::source::{Batch, Cursor, Mark, Marked, PrepareError, Prepared};
use crate::kafka::admin::Admin;
use crate::kafka::topics::{Report, TopicSpec};
use crate::store::checkpoints::Subscription;
use crate::store::clusters::{self, Pass};
use crate::store::dual_publish::{self, DUAL_PUBLISHER, Destination};
use crate::store::feed::{self, Follower, Start, Walk};
use crate::store::lag::projection_lags;
use crate::store::leases::Leased;
use crate::store::outbox::OutboxRow;
use crate::store::projected::{Table, Versions};
use crate::store::{self, Connection, Pool};
use crate::wallet::{TenantId, WalletKey};

/// How the walk over events finds what the second destination has of a wallet.
const FOLLOWER: Follower = Follower {
    projector: DUAL_PUBLISHER,
    table: Table { name: "projected_wallets", wallet: "wallet_id", versions: Versions::Apart },
};

#[derive(Debug)]
pub struct Dual {
    pool: Pool,
    subscription: Subscription,
    tenant: TenantId,
    leased: Leased,
    spec: TopicSpec,
    first_topic: String,
    from_now: bool,
    /// By partition: everything below was seen and sent, above running transactions too.
    seen_to: std::sync::Mutex<BTreeMap<i32, i64>>,
    /// One claim at a time.
    judged: Mutex<Judged>,
}

/// Whose the positions are.
#[derive(Debug, Default)]
struct Judged {
    /// The partitions whose positions are known to be of this Postgres cluster, or were corrected.
    partitions: BTreeSet<i32>,
    /// The positions are of another cluster: all wallets are gone through.
    pass: Option<Pass>,
}

impl Dual {
    pub fn new(deps: &Deps, leased: &Leased, first_topic: &str, from_now: bool) -> Self {
        Self {
            pool: deps.pool.clone(),
            subscription: Subscription { projector: DUAL_PUBLISHER, topic: leased.topic.clone() },
            tenant: deps.tenant.clone(),
            leased: leased.clone(),
            spec: TopicSpec::events(&deps.kafka, deps.producer.compression, deps.partitions),
            first_topic: first_topic.to_owned(),
            from_now,
            seen_to: std::sync::Mutex::default(),
            judged: Mutex::default(),
        }
    }

    /// Makes the topic where it is missing, and notes which one it is.
    pub async fn prepare(&self, admin: &Admin) -> Result<Prepared, PrepareError> {
        let report = match admin.ensure_topics(std::slice::from_ref(&self.spec)).await {
            Ok(report) => report,
            Err(error) if error.is_outage() => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "the second topic could not be ensured");
                Report::default()
            }
        };
        let (topic, needs) = (&self.leased.topic, self.leased.partitions);
        let missing = || PrepareError::Topic(format!("the second topic {topic} is not there"));
        let id = admin.topic_id(topic).await?.ok_or_else(missing)?;
        let has = admin.partitions(topic).await?.unwrap_or(0);
        if has < needs {
            return Err(PrepareError::Topic(format!(
                "the second topic {topic} has {has} partitions and needs {needs}: give it {needs} \
                 (kafka-topics --alter --topic {topic} --partitions {needs}), or delete it, and it is made"
            )));
        }
        let to = Destination {
            topic,
            topic_id: id,
            first_topic: &self.first_topic,
            partitions: needs,
            from_now: self.from_now,
        };
        if store::bounded(store::SILENT, self.open(&to)).await? {
            tracing::info!(topic, from_now = self.from_now, "a new second topic: it is filled");
        }
        *self.judged.lock().await = Judged::default();
        self.seen_to().clear();
        Ok(Prepared { report, is_new: true })
    }

    async fn open(&self, to: &Destination<'_>) -> store::Result<bool> {
        let mut connection = store::acquire(&self.pool).await?;
        let cluster = clusters::identify(&mut connection).await?;
        store::begin(&mut connection).await?;
        match dual_publish::open(&mut connection, &self.tenant, to, cluster).await {
            Ok(is_new) => store::commit(&mut connection).await.map(|()| is_new),
            Err(error) => {
                // The first error says more; the pool mends the session anyway.
                let _ = store::rollback(&mut connection).await;
                Err(error)
            }
        }
    }

    pub async fn claim(
        &self,
        owned: &BTreeSet<i32>,
        asked: &[i32],
        limit: i64,
    ) -> store::Result<Vec<Batch>> {
        let mut judged = self.judged.lock().await;
        let mut connection = store::acquire(&self.pool).await?;
        self.judge(&mut connection, &mut judged, owned).await?;
        let walks = match self.lacking(&mut connection, &mut judged, asked).await? {
            Some(lacking) => lacking,
            None => self.walk(&mut connection, asked, limit).await?,
        };
        if walks.iter().any(|walk| walk.foreign) {
            judged.partitions.clear();
            return Ok(Vec::new());
        }
        let mut rows = self.rows(&mut connection, &walks).await?;
        let batches = walks.into_iter().map(|walk| {
            let rows = rows.remove(&walk.partition).unwrap_or_default();
            batch(&walk, rows)
        });
        Ok(batches.filter_map(|batch| self.worth_marking(batch)).collect())
    }

    async fn walk(
        &self,
        connection: &mut Connection,
        asked: &[i32],
        limit: i64,
    ) -> store::Result<Vec<Walk>> {
        let seen_to = self.seen_to().clone();
        store::begin(connection).await?;
        feed::steady(connection).await?;
        let of = &self.subscription;
        let cursors = feed::cursors(connection, of, asked).await?;
        let from = cursors.into_iter().map(|(partition, cursor)| {
            let ahead = seen_to.get(&partition).copied().unwrap_or(0);
            Start { partition, cursor, ahead, followers: 1 }
        });
        let from: Vec<Start> = from.collect();
        let walks = feed::walk(connection, &of.topic, &[FOLLOWER], &from, limit).await?;
        store::commit(connection).await?;
        Ok(walks)
    }

    /// The events that the topic lacks of what the walks found, by partition.
    async fn rows(
        &self,
        connection: &mut Connection,
        walks: &[Walk],
    ) -> store::Result<BTreeMap<i32, Vec<OutboxRow>>> {
        let wanted = last_versions(walks);
        let mut rows: BTreeMap<i32, Vec<OutboxRow>> = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(rows);
        }
        let ids: Vec<&WalletKey> = wanted.iter().map(|(wallet, _)| wallet).collect();
        dual_publish::seed_versions(connection, &self.subscription, &ids).await?;
        for row in dual_publish::unsent_rows(connection, &self.subscription, &wanted).await? {
            rows.entry(row.partition).or_default().push(row);
        }
        Ok(rows)
    }

    pub async fn mark(&self, marks: &[Mark]) -> store::Result<Marked> {
        let mut connection = store::acquire(&self.pool).await?;
        let mut written = Vec::new();
        for mark in marks {
            let mut versions = match mark.found.as_slice() {
                [] => Vec::new(),
                found => dual_publish::last_known(&mut connection, found).await?,
            };
            versions.extend(mark.versions());
            let moved = mark.cursor.filter(|cursor| cursor.to > cursor.from);
            written.push(dual_publish::Mark {
                partition: mark.partition,
                epoch: mark.epoch,
                last_offset: mark.last_offset,
                feed_xid: moved.map(|cursor| (cursor.from, cursor.to)),
                versions,
            });
        }
        let standing =
            dual_publish::mark(&mut connection, &self.subscription, &self.leased, &written).await?;
        let mut lost = Vec::new();
        for mark in marks {
            match mark.cursor {
                _ if !standing.contains(&mark.partition) => lost.push(mark.partition),
                Some(cursor) => self.saw(mark.partition, cursor),
                None => {}
            }
        }
        Ok(Marked { lost, found: 0 })
    }

    pub async fn measure(&self) -> store::Result<()> {
        let lags = projection_lags(&self.pool, &[DUAL_PUBLISHER], store::SILENT).await?;
        for lag in lags.iter().filter(|lag| lag.unknown.is_none()) {
            let events = u32::try_from(lag.events).unwrap_or(u32::MAX);
            metrics::gauge!("kafka_second_lag_events").set(events);
            metrics::gauge!("kafka_second_lag_seconds").set(lag.oldest);
        }
        Ok(())
    }

    /// Takes note of a batch that neither sends nor moves anything: it is none, unless there is more.
    fn worth_marking(&self, batch: Batch) -> Option<Batch> {
        let Some(cursor) = batch.cursor else { return Some(batch) };
        if !batch.rows.is_empty() || cursor.to > cursor.from {
            return Some(batch);
        }
        self.saw(batch.partition, cursor);
        batch.more.then_some(Batch { cursor: None, ..batch })
    }

    fn saw(&self, partition: i32, cursor: Cursor) {
        let mut all = self.seen_to();
        let seen_to = all.entry(partition).or_default();
        *seen_to = cursor.seen_to.max(*seen_to);
    }

    fn seen_to(&self) -> MutexGuard<'_, BTreeMap<i32, i64>> {
        self.seen_to.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mark {
    /// The last version of each wallet that was sent.
    fn versions(&self) -> Vec<(WalletKey, i64)> {
        // In version order by wallet.
        let sent = self.sent.iter().map(|row| (row.wallet.clone(), row.version));
        let last: HashMap<WalletKey, i64> = sent.collect();
        last.into_iter().collect()
    }
}

/// What the walk found as a batch.
fn batch(walk: &Walk, rows: Vec<OutboxRow>) -> Batch {
    let whole = is_whole(walk, &rows);
    let cursor = Cursor { from: walk.from, to: walk.end, seen_to: walk.seen_to };
    Batch {
        partition: walk.partition,
        rows,
        more: walk.more || !whole,
        cursor: whole.then_some(cursor),
    }
}

/// Each wallet with the last version that the walks found of it.
fn last_versions(walks: &[Walk]) -> Vec<(WalletKey, i64)> {
    let mut wanted: BTreeMap<WalletKey, i64> = BTreeMap::new();
    for (wallet, version, _) in walks.iter().flat_map(|walk| &walk.pending) {
        let last = wanted.entry(wallet.clone()).or_default();
        *last = (*last).max(*version);
    }
    wanted.into_iter().collect()
}

/// Whether `rows` reach as far as the walk has seen, wallet by wallet.
fn is_whole(walk: &Walk, rows: &[OutboxRow]) -> bool {
    let last: HashMap<(&str, &str), i64> = rows
        .iter()
        .map(|row| ((row.slot.tenant_id.as_str(), row.wallet_id.as_str()), row.version))
        .collect();
    walk.pending.iter().all(|((tenant, id), version, _)| {
        // Without a row it was sent before.
        last.get(&(tenant.as_str(), id.as_str())).is_none_or(|last| last >= version)
    })
}
