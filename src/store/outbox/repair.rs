//! The outbox as an operator sees it: what waits, what the broker refused, what was never sent.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::ATTEMPTS_BEFORE_BLOCKED;
use super::republish::{self, Counts};
use crate::store::dual_publish::SecondBacklog;
use crate::store::time::{optional_time, time};
use crate::store::{Connection, Pool, Result};
use crate::wallet::{TenantId, WalletId};

/// Refused rows that are listed; the rest shows in the counts.
const REFUSED_MAX: i64 = 100;

/// The state of the outbox.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OutboxState)]
pub struct State {
    /// Events that wait to be published.
    #[schema(minimum = 0)]
    pub backlog: i64,
    /// Age of the oldest of them.
    #[schema(minimum = 0)]
    pub oldest_ms: i64,
    pub partitions: Vec<PartitionBacklog>,
    /// Rows that the broker refused, at most 100 of them.
    pub refused: Vec<Refused>,
    /// Rows that were applied without Kafka and never sent.
    #[schema(minimum = 0)]
    pub unpublished: i64,
    /// What is to be sent again and has no rows yet.
    pub republication: Counts,
    pub purge: PurgeMark,
    /// What waits for the second destination; null where there is none.
    #[schema(required)]
    pub second: Option<SecondBacklog>,
}

/// What waits in one partition.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionBacklog {
    pub topic: String,
    pub partition: i32,
    pub events: i64,
    /// Of these, those that are sent again.
    pub republished: i64,
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime)]
    pub oldest_at: DateTime<Utc>,
    pub oldest_ms: i64,
}

/// An event that the broker refused.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RefusedRow)]
pub struct Refused {
    /// Of the batch that it is in.
    pub id: i64,
    pub wallet_id: String,
    pub version: i64,
    pub topic: String,
    pub partition: i32,
    pub attempts: i32,
    /// Set aside: it is not sent before an operator asks for it.
    pub held: bool,
    pub last_error: String,
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: DateTime<Utc>,
    /// Rows of the same wallet behind it.
    pub waiting: i64,
}

/// How far the outbox was purged.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PurgeMark {
    /// Events that are not younger may have no row any more.
    #[serde(serialize_with = "optional_time")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub purged_through: Option<DateTime<Utc>>,
    /// Events from here on were purged without having been sent.
    #[serde(serialize_with = "optional_time")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub unpublished_from: Option<DateTime<Utc>>,
}

/// RetrySelector refused rows are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetrySelector {
    Ids(Vec<i64>),
    Wallet(WalletId),
    All,
}

/// Reads the outbox's full state for operators.
pub async fn state(connection: &mut Connection, tenant: &TenantId) -> Result<State> {
    let partitions = backlog_by_partition(connection, tenant).await?;
    Ok(State {
        backlog: partitions.iter().map(|partition| partition.events).sum(),
        oldest_ms: partitions.iter().map(|partition| partition.oldest_ms).max().unwrap_or(0),
        partitions,
        refused: refused(connection, tenant, REFUSED_MAX).await?,
        unpublished: unpublished(connection, tenant).await?,
        republication: republish::listed(connection, tenant).await?,
        purge: purge_mark(connection, tenant).await?,
        second: None,
    })
}

/// What waits, by topic and partition.
pub async fn backlog_by_partition(
    connection: &mut Connection,
    tenant: &TenantId,
) -> Result<Vec<PartitionBacklog>> {
    Ok(sqlx::query_as(
        "select topic, partition, sum(cardinality(versions)) as events, \
             coalesce(sum(cardinality(versions)) filter (where id < 0), 0) as republished, \
             min(created_at) as oldest_at, (greatest(0, \
             extract(epoch from clock_timestamp() - min(created_at))) * 1000)::bigint as oldest_ms \
         from outbox_batches where tenant_id = $1 and processed_at is null \
         group by topic, partition order by topic, partition",
    )
    .bind(tenant.as_str())
    .fetch_all(connection)
    .await?)
}

/// Refused rows, the first of them first.
pub async fn refused(
    connection: &mut Connection,
    tenant: &TenantId,
    limit: i64,
) -> Result<Vec<Refused>> {
    Ok(sqlx::query_as(
        "select r.id, r.wallet_id, r.version, b.topic, b.partition, r.attempts, \
             r.attempts >= $3 as held, r.last_error, b.created_at, \
             (select count(*) from outbox_batches l cross join lateral \
                    unnest(l.wallets, l.versions) as e(wallet_id, version) \
                where l.tenant_id = r.tenant_id and l.topic = b.topic \
                  and l.partition = b.partition and l.processed_at is null \
                  and l.wallets @> array[r.wallet_id] and e.wallet_id = r.wallet_id \
                  and (l.id, e.version) > (b.id, r.version)) as waiting \
         from outbox_refusals r cross join lateral (select w.id, w.topic, w.partition, w.created_at \
             from outbox_batches w where w.tenant_id = r.tenant_id and w.id = r.id \
               and w.processed_at is null and w.wallets @> array[r.wallet_id] limit 1) b \
         where r.tenant_id = $1 order by r.id, r.wallet_id, r.version limit $2",
    )
    .bind(tenant.as_str())
    .bind(limit)
    .bind(ATTEMPTS_BEFORE_BLOCKED)
    .fetch_all(connection)
    .await?)
}

/// Counts the rows that were applied without Kafka and never sent, purged ones aside.
pub async fn unpublished(connection: &mut Connection, tenant: &TenantId) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "select coalesce(sum(cardinality(versions)), 0) from outbox_batches \
         where tenant_id = $1 and processed_at is not null and not published",
    )
    .bind(tenant.as_str())
    .fetch_one(connection)
    .await?)
}

/// Whether the topic lacks events that `outbox republish` has yet to send. Cheap: for health pages.
pub async fn awaits_republication(pool: &Pool) -> Result<bool> {
    // In the order of the index of such batches: without statistics the planner would take half of the
    // outbox for unpublished, and read all of it to find none.
    Ok(sqlx::query_scalar(
        "select (select true from outbox_batches where processed_at is not null and not published \
                 order by tenant_id, partition, created_at limit 1) is not null \
             or exists (select from outbox_purges where unpublished_from is not null) \
             or exists (select from outbox_republications)",
    )
    .fetch_one(pool)
    .await?)
}

/// How far the outbox was purged.
pub async fn purge_mark(connection: &mut Connection, tenant: &TenantId) -> Result<PurgeMark> {
    let found = sqlx::query_as(
        "select purged_through, unpublished_from from outbox_purges where tenant_id = $1",
    )
    .bind(tenant.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(found.unwrap_or_default())
}

/// Has refused rows tried again; returns their number. The publisher finds them at its next look.
pub async fn retry(
    connection: &mut Connection,
    tenant: &TenantId,
    which: &RetrySelector,
) -> Result<i64> {
    let (ids, wallet) = match which {
        RetrySelector::Ids(ids) => (Some(ids.as_slice()), None),
        RetrySelector::Wallet(wallet) => (None, Some(wallet.as_str())),
        RetrySelector::All => (None, None),
    };
    Ok(sqlx::query_scalar(
        "with again as (delete from outbox_refusals r where r.tenant_id = $1 \
               and ($2::bigint[] is null or r.id = any($2)) \
               and ($3::text is null or r.wallet_id = $3) \
               and exists (select from outbox_batches b where b.tenant_id = r.tenant_id \
                   and b.id = r.id and b.processed_at is null) \
             returning 1) \
         select count(*) from again",
    )
    .bind(tenant.as_str())
    .bind(ids)
    .bind(wallet)
    .fetch_one(connection)
    .await?)
}

/// The same in a transaction of its own; with `dry_run` it is only a count.
pub async fn retried(
    pool: &Pool,
    tenant: &TenantId,
    which: &RetrySelector,
    dry_run: bool,
) -> Result<i64> {
    let mut connection = pool.acquire().await?;
    crate::store::begin(&mut connection).await?;
    let rows = retry(&mut connection, tenant, which).await;
    if dry_run || rows.is_err() {
        // The first error says more; the pool mends the session anyway.
        let _ = crate::store::rollback(&mut connection).await;
    } else {
        crate::store::commit(&mut connection).await?;
    }
    rows
}
