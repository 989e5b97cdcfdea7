//! The cutover: the second topic becomes the first. All of it in one transaction of the caller's, so that
//! it is done once, whichever instance does it.

use uuid::Uuid;

use super::{DUAL_PUBLISHER, clear};
use crate::store::connect::OVER_ALL;
use crate::store::leases::PUBLISHER;
use crate::store::{Connection, Pool, Result};
use crate::wallet::TenantId;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cutover {
    /// The first topic is none that was the second before.
    NotDue,
    /// So many instances still publish as before: nothing was changed.
    Waiting(i64),
    /// Cut over; `missing` events still have to be published to the new topic.
    Done { missing: u64 },
}

/// How far the first topic of before has come.
struct Progress {
    /// It has all events of transactions below this.
    from_xid: i64,
    /// The last version that it has of each wallet with events from there on.
    versions: Vec<(String, i64)>,
}

/// Makes the second topic the first, where `topic` is it.
///
/// | what | becomes |
/// |---|---|
/// | rows that wait, of events that the topic holds | published |
/// | other rows that wait | rows of this topic |
/// | events that the topic lacks and no row waits for | rows of their own, before all others |
/// | the second's last offsets | the publisher's |
/// | the projectors' positions among `events` | the same; they read the topic from its beginning |
/// | the first topic of before | the second, as far as it has come |
pub async fn cut_over(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
    topic_id: Uuid,
) -> Result<Cutover> {
    sqlx::raw_sql("lock table second_destinations in share row exclusive mode")
        .execute(&mut *connection)
        .await?;
    let known: Option<(String, i64, Option<Uuid>)> = sqlx::query_as(
        "select d.first_topic, (select count(distinct owner) from lease_members m \
             where m.tenant_id = $1 and m.expires_at > clock_timestamp() \
               and (m.role = $3 and m.topic = d.first_topic or m.role = $4)), \
             (select t.topic_id from topics t where t.tenant_id = $1 and t.name = d.first_topic) \
         from second_destinations d where d.tenant_id = $1 and d.topic_id = $2",
    )
    .bind(tenant.as_str())
    .bind(topic_id)
    .bind(PUBLISHER)
    .bind(DUAL_PUBLISHER)
    .fetch_optional(&mut *connection)
    .await?;
    let (before, id_before) = match known {
        None => return Ok(Cutover::NotDue),
        Some((_, others, _)) if others > 0 => return Ok(Cutover::Waiting(others)),
        Some((before, _, id_before)) => (before, id_before),
    };
    // Whole tables are looked at, once.
    sqlx::raw_sql("set local statement_timeout = '30min'").execute(&mut *connection).await?;
    sqlx::raw_sql(OVER_ALL).execute(&mut *connection).await?;
    let progress = progress(connection, tenant, &before).await?;
    let missing = take_over_rows(connection, tenant, topic).await?;
    take_over_positions(connection, tenant, &before, topic).await?;
    name_topic(connection, tenant, &before, topic, topic_id).await?;
    clear(connection, tenant).await?;
    match id_before {
        Some(id) => follow(connection, tenant, (&before, id), topic, &progress).await?,
        // Which topic that was is not known: as a second it begins from scratch.
        None => forget(connection, tenant).await?,
    }
    Ok(Cutover::Done { missing })
}

/// The second has not become the first after all: rows that were written for it meanwhile are the
/// first's again.
pub async fn take_back(pool: &Pool, tenant: &TenantId, first: &str, second: &str) -> Result<()> {
    sqlx::query(
        "update outbox_batches set topic = $2 \
         where tenant_id = $1 and processed_at is null and topic = $3",
    )
    .bind(tenant.as_str())
    .bind(first)
    .bind(second)
    .execute(pool)
    .await?;
    Ok(())
}

/// In one statement, which is one snapshot: commands go on meanwhile.
async fn progress(
    connection: &mut Connection,
    tenant: &TenantId,
    before: &str,
) -> Result<Progress> {
    let rows: Vec<(i64, Option<String>, Option<i64>)> = sqlx::query_as(
        "with unsent as materialized (select u.wallet_id as id, min(u.version) as version \
             from outbox_batches b cross join lateral unnest(b.wallets, b.versions) \
                 as u(wallet_id, version) \
             where b.tenant_id = $1 and b.processed_at is null group by u.wallet_id), \
         place as materialized (select least(min(e.commit_xid), \
                 pg_snapshot_xmin(pg_current_snapshot())) as from_xid \
             from unsent u join events e on e.tenant_id = $1 and e.wallet_id = u.id \
                 and e.version >= u.version) \
         select place.from_xid::text::bigint, late.id, late.version from place \
         left join lateral (select e.wallet_id as id, \
                 coalesce(min(u.version) - 1, max(e.version)) as version \
             from topics t cross join lateral generate_series(0, t.partitions - 1) p \
             join events e on e.tenant_id = $1 and e.partition = p \
                 and e.commit_xid >= place.from_xid \
             left join unsent u on u.id = e.wallet_id \
             where t.tenant_id = $1 and t.name = $2 group by e.wallet_id) late on true",
    )
    .bind(tenant.as_str())
    .bind(before)
    .fetch_all(connection)
    .await?;
    let from_xid = rows.first().map_or(0, |(from_xid, _, _)| *from_xid);
    let versions = rows.into_iter().filter_map(|(_, wallet, version)| Some((wallet?, version?)));
    Ok(Progress { from_xid, versions: versions.collect() })
}

/// Rows for all that the topic lacks, and for nothing else; how many had none.
async fn take_over_rows(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
) -> Result<u64> {
    // A wallet's processed rows come before those that wait: so do these, by their ids.
    let missing = sqlx::query(
        "with waiting as materialized (select u.wallet_id, u.version from outbox_batches b \
             cross join lateral unnest(b.wallets, b.versions) as u(wallet_id, version) \
             where b.tenant_id = $1 and b.processed_at is null) \
         insert into outbox_batches (id, tenant_id, topic, partition, created_at, wallets, \
             versions) overriding system value \
         select nextval('outbox_republished'), $1, $2, e.partition, e.created_at, \
             array[e.wallet_id], array[e.version] \
         from (select e.wallet_id, e.version, e.partition, e.created_at \
             from projector_checkpoints c \
             join events e on e.tenant_id = $1 and e.partition = c.partition \
                 and e.commit_xid >= case when c.feed_xid > pg_snapshot_xmax(pg_current_snapshot()) \
                     then '0'::xid8 else c.feed_xid end \
             left join projected_wallets v on v.tenant_id = $1 \
                 and v.projector = $3 and v.wallet_id = e.wallet_id \
             where c.tenant_id = $1 and c.projector = $3 \
               and e.version > coalesce(v.version, 0) \
               and not exists (select from waiting w where w.wallet_id = e.wallet_id \
                   and w.version = e.version) \
             order by e.wallet_id, e.version) e",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .bind(DUAL_PUBLISHER)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    take_over_waiting(connection, tenant, topic).await?;
    Ok(missing)
}

/// Marks what the topic holds of the batches that wait, and gives it the rest: another part where a batch has
/// both.
async fn take_over_waiting(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
) -> Result<()> {
    sqlx::query(
        "with judged as materialized (select b.id, b.part, cardinality(b.versions) as events, \
                 array_agg(u.place) filter (where u.version <= v.version) as places \
             from outbox_batches b cross join lateral unnest(b.wallets, b.versions) \
                 with ordinality as u(wallet_id, version, place) \
             left join projected_wallets v on v.tenant_id = $1 \
                 and v.projector = $3 and v.wallet_id = u.wallet_id \
             where b.tenant_id = $1 and b.processed_at is null \
             group by b.tenant_id, b.id, b.part), \
         rest as (insert into outbox_batches (tenant_id, id, part, topic, partition, created_at, \
                 wallets, versions) overriding system value \
             select b.tenant_id, b.id, (select max(part) + 1 from outbox_batches \
                     where tenant_id = $1 and id = b.id), $2, b.partition, b.created_at, \
                 outbox_without(b.wallets, j.places), outbox_without(b.versions, j.places) \
             from judged j join outbox_batches b on b.tenant_id = $1 and b.id = j.id \
                 and b.part = j.part \
             where cardinality(j.places) < j.events) \
         update outbox_batches b set topic = $2, \
             processed_at = case when j.places is not null then clock_timestamp() end, \
             published = j.places is not null, \
             wallets = case when cardinality(j.places) < j.events \
                 then outbox_at(b.wallets, j.places) else b.wallets end, \
             versions = case when cardinality(j.places) < j.events \
                 then outbox_at(b.versions, j.places) else b.versions end \
         from judged j where b.tenant_id = $1 and b.id = j.id and b.part = j.part \
           and b.processed_at is null and (b.topic <> $2 or j.places is not null)",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .bind(DUAL_PUBLISHER)
    .execute(&mut *connection)
    .await?;
    // What it holds was refused by the other broker, if at all.
    sqlx::query(
        "delete from outbox_refusals r using projected_wallets v \
         where r.tenant_id = $1 and v.tenant_id = $1 and v.projector = $2 \
           and v.wallet_id = r.wallet_id and r.version <= v.version",
    )
    .bind(tenant.as_str())
    .bind(DUAL_PUBLISHER)
    .execute(connection)
    .await?;
    Ok(())
}

/// Publisher and projectors go on in the new topic; the old one's positions are forgotten.
async fn take_over_positions(
    connection: &mut Connection,
    tenant: &TenantId,
    before: &str,
    topic: &str,
) -> Result<()> {
    copy_offsets(connection, tenant, (DUAL_PUBLISHER, PUBLISHER), topic).await?;
    let statements = [
        "insert into projector_checkpoints as kept \
             (tenant_id, projector, topic, partition, feed_xid, cluster) \
         select tenant_id, projector, $3, partition, feed_xid, cluster from projector_checkpoints \
         where tenant_id = $1 and projector <> $4 and topic = $2 \
         order by projector, partition \
         on conflict on constraint projector_checkpoints_pkey do update \
             set next_offset = 0, feed_xid = greatest(kept.feed_xid, excluded.feed_xid), \
                 cluster = excluded.cluster",
        "delete from projector_checkpoints where tenant_id = $1 and topic = $2 and $2 <> $3 \
           and projector <> $4",
        "delete from partition_leases where tenant_id = $1 and topic = $2 and $2 <> $3 \
           and role <> $4 and role <> 'publisher'",
    ];
    for sql in statements {
        let moving = sqlx::query(sql).bind(tenant.as_str()).bind(before).bind(topic);
        moving.bind(DUAL_PUBLISHER).execute(&mut *connection).await?;
    }
    Ok(())
}

/// One role goes on behind the last record that the other has sent to the topic.
async fn copy_offsets(
    connection: &mut Connection,
    tenant: &TenantId,
    (from, to): (&str, &str),
    topic: &str,
) -> Result<()> {
    sqlx::query(
        "insert into partition_leases as kept (tenant_id, role, topic, partition, last_offset) \
         select tenant_id, $3, topic, partition, last_offset from partition_leases \
         where tenant_id = $1 and role = $2 and topic = $4 \
         on conflict on constraint partition_leases_pkey do update \
             set last_offset = excluded.last_offset, epoch = kept.epoch + 1, owner = null",
    )
    .bind(tenant.as_str())
    .bind(from)
    .bind(to)
    .bind(topic)
    .execute(connection)
    .await?;
    Ok(())
}

/// The new first topic is known by its id, and hashed over as many partitions as the one before.
async fn name_topic(
    connection: &mut Connection,
    tenant: &TenantId,
    before: &str,
    topic: &str,
    topic_id: Uuid,
) -> Result<()> {
    sqlx::query(
        "insert into topics (tenant_id, name, partitions, topic_id) \
         select $1, $3, partitions, $4 from topics where tenant_id = $1 and name = $2 \
         on conflict on constraint topics_pkey do update \
             set topic_id = excluded.topic_id, partitions = excluded.partitions",
    )
    .bind(tenant.as_str())
    .bind(before)
    .bind(topic)
    .bind(topic_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// The first topic of before becomes the second.
async fn follow(
    connection: &mut Connection,
    tenant: &TenantId,
    (before, id_before): (&str, Uuid),
    topic: &str,
    progress: &Progress,
) -> Result<()> {
    sqlx::query(
        "with placed as (insert into projector_checkpoints \
                (tenant_id, projector, topic, partition, feed_xid) \
             select $1, $8, $2, p, $5::text::xid8 from topics t \
             cross join lateral generate_series(0, t.partitions - 1) p \
             where t.tenant_id = $1 and t.name = $4), \
         noted as (insert into projected_wallets (tenant_id, projector, wallet_id, version) \
             select $1, $8, id, version \
             from unnest($6::text[], $7::bigint[]) v(id, version)) \
         update second_destinations set topic = $2, topic_id = $3, first_topic = $4, \
             from_xid = $5::text::xid8, updated_at = clock_timestamp() where tenant_id = $1",
    )
    .bind(tenant.as_str())
    .bind(before)
    .bind(id_before)
    .bind(topic)
    .bind(progress.from_xid.to_string())
    .bind(progress.versions.iter().map(|(wallet, _)| wallet.as_str()).collect::<Vec<_>>())
    .bind(progress.versions.iter().map(|(_, version)| *version).collect::<Vec<_>>())
    .bind(DUAL_PUBLISHER)
    .execute(&mut *connection)
    .await?;
    if before != topic {
        copy_offsets(connection, tenant, (PUBLISHER, DUAL_PUBLISHER), before).await?;
    }
    Ok(())
}

async fn forget(connection: &mut Connection, tenant: &TenantId) -> Result<()> {
    sqlx::query("delete from second_destinations where tenant_id = $1")
        .bind(tenant.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
