//! How many partitions a topic's keys are hashed over. Frozen at first use: a broker whose count
//! is raised later must not split a wallet's order. And which topic it is: one that was deleted and
//! recreated has the same name, other records at the same offsets, and another id.

use uuid::Uuid;

use super::{Connection, PIPELINE, Pool, Result};
use crate::wallet::TenantId;

/// The count that wallets are hashed over into the topic of the events. Where there is none yet, `first`
/// is frozen, or what they are hashed over already into a topic of another name, if that is more: an
/// event's partition never changes, and the feeds of a topic walk as many as it has.
pub async fn hashed_over(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
    first: i32,
) -> Result<i32> {
    let before: Option<i64> = sqlx::query_scalar(
        "select max(n) from (select count(*) as n from projector_checkpoints \
         where tenant_id = $1 and projector = 'ledger-projector' and topic <> $2 \
         group by topic) counts",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .fetch_one(&mut *connection)
    .await?;
    let before = before.and_then(|count| i32::try_from(count).ok()).unwrap_or(0);
    partitions_frozen(connection, tenant, topic, first.max(before)).await
}

/// The count that the topic's keys are hashed with; `first` is frozen where there is none yet.
pub async fn partitions_frozen(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
    first: i32,
) -> Result<i32> {
    sqlx::query(
        "insert into topics (tenant_id, name, partitions) values ($1, $2, $3) \
         on conflict on constraint topics_pkey do nothing",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .bind(first)
    .execute(&mut *connection)
    .await?;
    // A statement of its own: the insert's snapshot may be older than the row it found.
    Ok(sqlx::query_scalar("select partitions from topics where tenant_id = $1 and name = $2")
        .bind(tenant.as_str())
        .bind(topic)
        .fetch_one(connection)
        .await?)
}

/// A topic that is known here.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Known {
    pub tenant_id: String,
    pub name: String,
    /// What its keys are hashed over.
    pub partitions: i32,
}

/// All topics of all tenants, by tenant and name.
pub async fn known(pool: &Pool) -> Result<Vec<Known>> {
    let all = "select tenant_id, name, partitions from topics order by tenant_id, name";
    Ok(sqlx::query_as(all).fetch_all(pool).await?)
}

/// What is frozen of one topic: the count, and the id that was noted last. None: nothing yet.
pub async fn frozen(
    pool: &Pool,
    tenant: &TenantId,
    topic: &str,
) -> Result<Option<(i32, Option<Uuid>)>> {
    let one = "select partitions, topic_id from topics where tenant_id = $1 and name = $2";
    Ok(sqlx::query_as(one).bind(tenant.as_str()).bind(topic).fetch_optional(pool).await?)
}

/// Which deployment these books are; it lies with them, wherever they are moved or restored.
pub async fn deployment(connection: &mut Connection) -> Result<Option<Uuid>> {
    Ok(sqlx::query_scalar("select id from deployments where tenant_id = $1")
        .bind(PIPELINE)
        .fetch_optional(connection)
        .await?)
}

/// Forgets topics that are no more.
pub async fn forget(pool: &Pool, tenant: &TenantId, names: &[String]) -> Result<()> {
    sqlx::query("delete from topics where tenant_id = $1 and name = any($2)")
        .bind(tenant.as_str())
        .bind(names)
        .execute(pool)
        .await?;
    Ok(())
}

/// What a topic's id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// No id was noted before, or the topic's partitions are not frozen yet.
    New,
    Same,
    /// It is another topic than it was. Its projectors begin again.
    Changed {
        before: Uuid,
    },
}

/// Notes the id of the topic. Where it is another than before, every projector's place in the topic
/// moves back to its beginning, and what the publisher knows of its end is forgotten: one statement,
/// done once, whichever instance notices first.
pub async fn identify(pool: &Pool, tenant: &TenantId, topic: &str, id: Uuid) -> Result<Identity> {
    // Rows are locked in the order in which projectors lock theirs.
    let before: Option<Option<Uuid>> = sqlx::query_scalar(
        "with seen as materialized ( \
             select topic_id from topics where tenant_id = $1 and name = $2 for no key update), \
         noted as ( \
             update topics set topic_id = $3 where tenant_id = $1 and name = $2 \
               and exists (select from seen where topic_id is distinct from $3)), \
         places as materialized ( \
             select projector, partition from projector_checkpoints \
             where tenant_id = $1 and topic = $2 \
               and exists (select from seen where topic_id <> $3) \
             order by projector, partition for no key update), \
         moved as ( \
             update projector_checkpoints c set next_offset = 0, updated_at = clock_timestamp() \
             from places p where c.tenant_id = $1 and c.topic = $2 \
               and c.projector = p.projector and c.partition = p.partition), \
         forgotten as ( \
             update partition_leases set last_offset = -1 where tenant_id = $1 and topic = $2 \
               and last_offset is not null and exists (select from seen where topic_id <> $3)) \
         select topic_id from seen",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .bind(id)
    .fetch_optional(pool)
    .await?;
    Ok(match before.flatten() {
        None => Identity::New,
        Some(before) if before == id => Identity::Same,
        Some(before) => Identity::Changed { before },
    })
}
