//! Dual publishing: which topic the second is, how far it has come, and what is next. It has positions
//! among `events` as a projector has, so that nothing is written for it but its own progress.

pub mod cutover;

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::checkpoints::Subscription;
use super::lag::{ProjectionLag, projection_lags};
use super::leases::Leased;
use super::outbox::{Found, OutboxRow};
use super::{Connection, Error, PIPELINE, Pool, Result, archives, columns, wallet_key};
use crate::wallet::{TenantId, WalletKey};

/// The second publisher's name among projectors and roles.
pub const DUAL_PUBLISHER: &str = "second-publisher";

/// What may be asked of Postgres at once is answered within this, or not.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(1);
/// Events of one wallet that are sent in one round, at most: after a gap there may be many.
const WALLET_EVENTS_MAX: i64 = 500;

/// A topic to follow the events into.
#[derive(Debug, Clone)]
pub struct Destination<'a> {
    pub topic: &'a str,
    pub topic_id: Uuid,
    pub first_topic: &'a str,
    pub partitions: i32,
    /// Where it is new: from now on, not from the beginning.
    pub from_now: bool,
}

/// What waits for the second destination.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecondBacklog {
    pub topic: String,
    /// Events that it lacks. Null: its places are of another Postgres cluster, and are being corrected.
    #[schema(required, minimum = 0)]
    pub backlog: Option<i64>,
    /// It may lack more than these: not all of them were looked at.
    pub more: bool,
    /// Age of the oldest of them.
    #[schema(required, minimum = 0)]
    pub oldest_ms: Option<i64>,
}

/// What became of one partition's rows.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    pub partition: i32,
    pub epoch: i64,
    /// The last offset known to hold a record of the service's.
    pub last_offset: Option<i64>,
    /// The cursor, from and to; none: it stays.
    pub feed_xid: Option<(i64, i64)>,
    /// The last version of each wallet that the topic holds.
    pub versions: Vec<(WalletKey, i64)>,
}

/// The topic that is the second destination, or was it last.
pub async fn known_topic(pool: &Pool, tenant: &TenantId) -> Result<Option<String>> {
    Ok(sqlx::query_scalar("select topic from second_destinations where tenant_id = $1")
        .bind(tenant.as_str())
        .fetch_optional(pool)
        .await?)
}

/// What the second destination lacks; none where there is none yet.
pub async fn backlog(pool: &Pool, tenant: &TenantId) -> Result<Option<SecondBacklog>> {
    let Some(topic) = known_topic(pool, tenant).await? else { return Ok(None) };
    let lags = projection_lags(pool, &[DUAL_PUBLISHER], BACKLOG_TIMEOUT).await?;
    let oldest_ms = |lag: &ProjectionLag| i64::try_from(lag.oldest.as_millis()).unwrap_or(i64::MAX);
    Ok(lags.into_iter().next().map(|lag| SecondBacklog {
        topic,
        backlog: Some(lag.events).filter(|_| lag.unknown.is_none()),
        more: lag.more,
        oldest_ms: Some(oldest_ms(&lag)).filter(|_| lag.unknown.is_none()),
    }))
}

/// Notes where events go a second time. Another topic than before begins from scratch; says whether it did.
/// In the caller's transaction.
pub async fn open(
    connection: &mut Connection,
    tenant: &TenantId,
    to: &Destination<'_>,
    cluster: Option<i64>,
) -> Result<bool> {
    // One instance at a time: the others find it done.
    sqlx::raw_sql("lock table second_destinations in share row exclusive mode")
        .execute(&mut *connection)
        .await?;
    // Its keys are hashed as the first's are, and will be once it is the first.
    sqlx::query(
        "insert into topics (tenant_id, name, partitions, topic_id) \
         select $1, $2, $4, $5 where $2 <> $3 \
         on conflict on constraint topics_pkey do update \
             set partitions = excluded.partitions, topic_id = excluded.topic_id",
    )
    .bind(tenant.as_str())
    .bind(to.topic)
    .bind(to.first_topic)
    .bind(to.partitions)
    .bind(to.topic_id)
    .execute(&mut *connection)
    .await?;
    let known: Option<Uuid> =
        sqlx::query_scalar("select topic_id from second_destinations where tenant_id = $1")
            .bind(tenant.as_str())
            .fetch_optional(&mut *connection)
            .await?;
    if known == Some(to.topic_id) {
        sqlx::query(
            "update second_destinations set topic = $2, first_topic = $3 where tenant_id = $1",
        )
        .bind(tenant.as_str())
        .bind(to.topic)
        .bind(to.first_topic)
        .execute(connection)
        .await?;
        return Ok(false);
    }
    if !to.from_now && archives::missing_since(connection, None).await?.is_some() {
        return Err(Error::refused(
            "a second destination from the beginning needs all events, and some are in archives: bring them \
             back by `wallex archive attach`, or begin with KAFKA_SECOND_FROM=now",
        ));
    }
    clear(connection, tenant).await?;
    let from = match to.from_now {
        true => "pg_snapshot_xmin(pg_current_snapshot())",
        false => "'0'::xid8",
    };
    let sql = format!(
        "with placed as (insert into projector_checkpoints \
                (tenant_id, projector, topic, partition, feed_xid, cluster) \
             select $1, '{DUAL_PUBLISHER}', $2, partition, {from}, $6 from generate_series(0, $5 - 1) partition) \
         insert into second_destinations (tenant_id, topic, topic_id, first_topic, from_xid) \
         values ($1, $2, $3, $4, {from}) \
         on conflict on constraint second_destinations_pkey do update set topic = excluded.topic, \
             topic_id = excluded.topic_id, first_topic = excluded.first_topic, \
             from_xid = excluded.from_xid, updated_at = clock_timestamp()"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(tenant.as_str())
        .bind(to.topic)
        .bind(to.topic_id)
        .bind(to.first_topic)
        .bind(to.partitions)
        // From the beginning: whose events there are is looked at before the first of them is sent.
        .bind(cluster.filter(|_| to.from_now))
        .execute(connection)
        .await?;
    Ok(true)
}

/// Forgets all progress. Leases stay, and their owners lose them.
async fn clear(connection: &mut Connection, tenant: &TenantId) -> Result<()> {
    sqlx::query("delete from projected_wallets where projector = $1")
        .bind(DUAL_PUBLISHER)
        .execute(&mut *connection)
        .await?;
    for sql in [
        "delete from projector_checkpoints where tenant_id = $1 and projector = $2",
        "update partition_leases set epoch = epoch + 1, owner = null, last_offset = null \
         where tenant_id = $1 and role = $2",
    ] {
        sqlx::query(sql)
            .bind(tenant.as_str())
            .bind(DUAL_PUBLISHER)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Makes sure that each of `wallets` has its row where it was sent before anything was noted: up to its
/// last event before the destination was new. An event beyond this cluster's numbers came with a dump, and
/// numbers of another cluster may be above those of today: the time sets such apart.
pub async fn seed_versions(
    connection: &mut Connection,
    of: &Subscription,
    wallets: &[&WalletKey],
) -> Result<()> {
    let (tenants, ids) = columns(wallets.iter().copied());
    sqlx::query(
        "insert into projected_wallets (tenant_id, projector, wallet_id, version) \
         select w.tenant, $2, w.id, e.version from second_destinations d \
         cross join unnest($4::text[], $3::text[]) as w(tenant, id) \
         cross join lateral (select version from events \
             where tenant_id = w.tenant and wallet_id = w.id and created_at <= d.updated_at \
               and (commit_xid < d.from_xid \
                 or commit_xid >= pg_snapshot_xmax(pg_current_snapshot())) \
             order by version desc limit 1) e \
         where d.tenant_id = $1 and d.from_xid > '0'::xid8 order by w.tenant, w.id on conflict do nothing",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(ids)
    .bind(tenants)
    .execute(connection)
    .await?;
    Ok(())
}

/// What the topic lacks of each wallet up to a version, in version order. The rows' ids are their
/// places in the answer.
pub async fn unsent_rows(
    connection: &mut Connection,
    of: &Subscription,
    wallets: &[(WalletKey, i64)],
) -> Result<Vec<OutboxRow>> {
    let (tenants, ids) = columns(wallets.iter().map(|(wallet, _)| wallet));
    // A limit on each look-up: plans must not scan all events for it.
    Ok(sqlx::query_as(
        "select w.place * $5 + row_number() over (partition by w.place order by e.version) as id, \
             0::smallint as part, 1::bigint as place, 1 as events, false as refused, \
             e.tenant_id, e.partition, e.wallet_id, e.version, e.event_id, e.event_type, \
             e.schema_version, e.payload::text as payload, e.correlation_id, e.causation_id, \
             e.traceparent, e.created_at \
         from unnest($1::text[], $3::text[], $4::bigint[]) with ordinality \
             as w(tenant, id, up_to, place) \
         cross join lateral (select coalesce((select version from projected_wallets \
             where tenant_id = w.tenant and projector = $2 and wallet_id = w.id), 0) as version) sent \
         cross join lateral (select * from events \
             where tenant_id = w.tenant and wallet_id = w.id and version > sent.version \
               and version <= w.up_to order by version limit $5 - 1) e \
         order by id",
    )
    .bind(tenants)
    .bind(of.projector)
    .bind(ids)
    .bind(wallets.iter().map(|(_, version)| *version).collect::<Vec<_>>())
    .bind(WALLET_EVENTS_MAX + 1)
    .fetch_all(connection)
    .await?)
}

/// Of events that records of the topic name: the last that is one, by wallet.
pub async fn last_known(
    connection: &mut Connection,
    found: &[Found],
) -> Result<Vec<(WalletKey, i64)>> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select g.tenant_id, g.wallet_id, max(g.version) \
         from unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[]) \
             g(tenant_id, wallet_id, version, event_id) \
         cross join lateral (select event_id from events where tenant_id = g.tenant_id \
             and wallet_id = g.wallet_id and version = g.version limit 1) e \
         where e.event_id = g.event_id group by g.tenant_id, g.wallet_id",
    )
    .bind(found.iter().map(|event| event.tenant_id.as_str()).collect::<Vec<_>>())
    .bind(found.iter().map(|event| event.wallet_id.as_str()).collect::<Vec<_>>())
    .bind(found.iter().map(|event| event.version).collect::<Vec<_>>())
    .bind(found.iter().map(|event| event.event_id).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(tenant, id, version)| (wallet_key(&tenant, &id), version)).collect())
}

/// Notes what the topic holds, in one statement, fenced by the leases' epochs. Returns the partitions
/// whose lease still stands.
pub async fn mark(
    connection: &mut Connection,
    of: &Subscription,
    leased: &Leased,
    marks: &[Mark],
) -> Result<Vec<i32>> {
    let versions = || {
        marks.iter().flat_map(|mark| mark.versions.iter().map(|version| (mark.partition, version)))
    };
    let (tenants, ids) = columns(versions().map(|(_, (wallet, _))| wallet));
    let moved = |mark: &Mark, end: fn((i64, i64)) -> i64| mark.feed_xid.map(end);
    Ok(sqlx::query_scalar(
        "with fenced as materialized ( \
             select held.partition, given.last_offset, given.xid_from, given.xid_to \
             from partition_leases held \
             join unnest($4::int[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[]) \
                 given(partition, epoch, last_offset, xid_from, xid_to) \
                 on held.partition = given.partition and held.epoch = given.epoch \
             where held.tenant_id = $1 and held.role = $2 and held.topic = $3 \
             order by held.partition for no key update of held), \
         placed as (update partition_leases held \
             set last_offset = coalesce(fenced.last_offset, held.last_offset), \
                 updated_at = clock_timestamp() \
             from fenced where held.tenant_id = $1 and held.role = $2 and held.topic = $3 \
               and held.partition = fenced.partition), \
         moved as (update projector_checkpoints c \
             set feed_xid = fenced.xid_to::text::xid8, updated_at = clock_timestamp() \
             from fenced where c.tenant_id = $1 and c.projector = $2 and c.topic = $3 \
               and c.partition = fenced.partition and c.feed_xid = fenced.xid_from::text::xid8), \
         noted as (insert into projected_wallets as held (tenant_id, projector, wallet_id, version) \
             select v.tenant_id, $2, v.wallet_id, v.version \
             from unnest($9::int[], $10::text[], $11::bigint[], $12::text[]) \
                 v(partition, wallet_id, version, tenant_id) \
             join fenced on fenced.partition = v.partition order by v.tenant_id, v.wallet_id \
             on conflict (tenant_id, projector, wallet_id) do update \
                 set version = greatest(held.version, excluded.version)) \
         select partition from fenced",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&leased.topic)
    .bind(marks.iter().map(|mark| mark.partition).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.epoch).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.last_offset).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| moved(mark, |(from, _)| from)).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| moved(mark, |(_, to)| to)).collect::<Vec<_>>())
    .bind(versions().map(|(partition, _)| partition).collect::<Vec<_>>())
    .bind(ids)
    .bind(versions().map(|(_, (_, version))| *version).collect::<Vec<_>>())
    .bind(tenants)
    .fetch_all(connection)
    .await?)
}
