//! The two destinations change sides: what was the second is the first from now on. All of it in one
//! transaction of the caller's, so that it is done once, whoever does it.

use uuid::Uuid;

use super::{SECOND, clear};
use crate::store::leases::PUBLISHER;
use crate::store::{Connection, Pool, Result};
use crate::wallet::TenantId;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// The first is no topic that was the second before.
    Same,
    /// So many instances still publish as before: nothing was changed.
    Waiting(i64),
    /// So many events are in the first topic of before, and are to be sent to this one.
    Changed { missing: u64 },
}

/// Makes the second topic the first, where `topic` is it.
///
/// | what | becomes |
/// |---|---|
/// | rows that wait, of events that the topic holds | published |
/// | other rows that wait | rows of this topic |
/// | events that the topic lacks and no row waits for | rows of their own, before all others |
/// | the second's last offsets | the publisher's |
/// | the projectors' places among `events` | the same; they read the topic from its beginning |
/// | the first topic of before | the second, as far as it has come |
pub async fn change(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
    topic_id: Uuid,
) -> Result<Sides> {
    sqlx::raw_sql("lock table second_destinations in share row exclusive mode")
        .execute(&mut *connection)
        .await?;
    let known: Option<(Uuid, String)> = sqlx::query_as(
        "select topic_id, first_topic from second_destinations where tenant_id = $1",
    )
    .bind(tenant.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some((_, before)) = known.filter(|(second, _)| *second == topic_id) else {
        return Ok(Sides::Same);
    };
    let others = running(connection, tenant, &before).await?;
    if others > 0 {
        return Ok(Sides::Waiting(others));
    }
    // Whole tables are looked at, once.
    sqlx::raw_sql("set local statement_timeout = '30min'").execute(&mut *connection).await?;
    let standing = standing(connection, tenant, &before).await?;
    let id_before: Option<Uuid> =
        sqlx::query_scalar("select topic_id from topics where tenant_id = $1 and name = $2")
            .bind(tenant.as_str())
            .bind(&before)
            .fetch_optional(&mut *connection)
            .await?
            .flatten();
    let missing = hand_over(connection, tenant, topic).await?;
    move_places(connection, tenant, &before, topic).await?;
    name_topic(connection, tenant, &before, topic, topic_id).await?;
    clear(connection, tenant).await?;
    match id_before {
        Some(id) => follow(connection, tenant, (&before, id), topic, &standing).await?,
        // Nobody knows which topic that was: as a second it begins anew.
        None => forget(connection, tenant).await?,
    }
    Ok(Sides::Changed { missing })
}

/// The second has not become the first after all: rows that were written for it meanwhile are the
/// first's again.
pub async fn take_back(pool: &Pool, tenant: &TenantId, first: &str, second: &str) -> Result<()> {
    sqlx::query(
        "update outbox set topic = $2 \
         where tenant_id = $1 and processed_at is null and topic = $3",
    )
    .bind(tenant.as_str())
    .bind(first)
    .bind(second)
    .execute(pool)
    .await?;
    Ok(())
}

/// Instances that publish to the first topic of before, or follow into the second.
async fn running(connection: &mut Connection, tenant: &TenantId, before: &str) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "select count(distinct owner) from lease_members where tenant_id = $1 \
           and (role = $2 and topic = $3 or role = $4) and expires_at > clock_timestamp()",
    )
    .bind(tenant.as_str())
    .bind(PUBLISHER)
    .bind(before)
    .bind(SECOND)
    .fetch_one(connection)
    .await?)
}

/// How far the first topic of before has come.
struct Standing {
    /// It has all events of transactions below this.
    from_xid: i64,
    /// The last version that it has of each wallet with events from there on.
    versions: Vec<(String, i64)>,
}

/// In one statement, which is one snapshot: commands go on meanwhile.
async fn standing(
    connection: &mut Connection,
    tenant: &TenantId,
    before: &str,
) -> Result<Standing> {
    let rows: Vec<(i64, Option<String>, Option<i64>)> = sqlx::query_as(
        "with unsent as materialized (select aggregate_id as id, min(event_version) as version \
             from outbox where tenant_id = $1 and processed_at is null group by aggregate_id), \
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
    Ok(Standing { from_xid, versions: versions.collect() })
}

/// Rows for all that the topic lacks, and for nothing else; how many had none.
async fn hand_over(connection: &mut Connection, tenant: &TenantId, topic: &str) -> Result<u64> {
    let of_what_it_holds = "update outbox o set processed_at = clock_timestamp(), published = true \
         from projected_versions v where o.tenant_id = $1 and o.processed_at is null \
           and v.tenant_id = $1 and v.projector = 'second-publisher' \
           and v.wallet_id = o.aggregate_id and o.event_version <= v.version";
    sqlx::query(of_what_it_holds).bind(tenant.as_str()).execute(&mut *connection).await?;
    // A wallet's processed rows come before those that wait: so do these, by their ids.
    let missing = sqlx::query(
        "insert into outbox (id, tenant_id, aggregate_id, event_type, event_version, topic, \
             partition, created_at) overriding system value \
         select nextval('outbox_republished'), $1, e.wallet_id, e.event_type, e.version, $2, \
             e.partition, e.created_at \
         from (select e.wallet_id, e.event_type, e.version, e.partition, e.created_at \
             from projector_checkpoints c \
             join events e on e.tenant_id = $1 and e.partition = c.partition \
                 and e.commit_xid >= case when c.feed_xid > pg_snapshot_xmax(pg_current_snapshot()) \
                     then '0'::xid8 else c.feed_xid end \
             left join projected_versions v on v.tenant_id = $1 \
                 and v.projector = 'second-publisher' and v.wallet_id = e.wallet_id \
             where c.tenant_id = $1 and c.projector = 'second-publisher' \
               and e.version > coalesce(v.version, 0) \
               and not exists (select from outbox o where o.tenant_id = $1 \
                   and o.aggregate_id = e.wallet_id and o.event_version = e.version \
                   and o.processed_at is null) \
             order by e.wallet_id, e.version) e",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    sqlx::query(
        "update outbox set topic = $2 \
         where tenant_id = $1 and processed_at is null and topic <> $2",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .execute(&mut *connection)
    .await?;
    Ok(missing)
}

/// Publisher and projectors go on in the new topic; the old one's places are forgotten.
async fn move_places(
    connection: &mut Connection,
    tenant: &TenantId,
    before: &str,
    topic: &str,
) -> Result<()> {
    sqlx::query(
        "insert into partition_leases as held (tenant_id, role, topic, partition, last_offset) \
         select tenant_id, 'publisher', topic, partition, last_offset from partition_leases \
         where tenant_id = $1 and role = 'second-publisher' and topic = $2 \
         on conflict on constraint partition_leases_pkey do update \
             set last_offset = excluded.last_offset, epoch = held.epoch + 1, owner = null",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .execute(&mut *connection)
    .await?;
    let places = [
        "insert into projector_checkpoints as held \
             (tenant_id, projector, topic, partition, feed_xid, cluster) \
         select tenant_id, projector, $3, partition, feed_xid, cluster from projector_checkpoints \
         where tenant_id = $1 and projector <> 'second-publisher' and topic = $2 \
         order by projector, partition \
         on conflict on constraint projector_checkpoints_pkey do update \
             set next_offset = 0, feed_xid = greatest(held.feed_xid, excluded.feed_xid), \
                 cluster = excluded.cluster",
        "delete from projector_checkpoints where tenant_id = $1 and topic = $2 and $2 <> $3 \
           and projector <> 'second-publisher'",
        "delete from partition_leases where tenant_id = $1 and topic = $2 and $2 <> $3 \
           and role not in ('publisher', 'second-publisher')",
    ];
    for sql in places {
        let moving = sqlx::query(sql).bind(tenant.as_str()).bind(before).bind(topic);
        moving.execute(&mut *connection).await?;
    }
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

/// The first topic of before, as a second.
async fn follow(
    connection: &mut Connection,
    tenant: &TenantId,
    (before, id_before): (&str, Uuid),
    topic: &str,
    standing: &Standing,
) -> Result<()> {
    sqlx::query(
        "with placed as (insert into projector_checkpoints \
                (tenant_id, projector, topic, partition, feed_xid) \
             select $1, 'second-publisher', $2, p, $5::text::xid8 from topics t \
             cross join lateral generate_series(0, t.partitions - 1) p \
             where t.tenant_id = $1 and t.name = $4), \
         noted as (insert into projected_versions (tenant_id, projector, wallet_id, version) \
             select $1, 'second-publisher', id, version \
             from unnest($6::text[], $7::bigint[]) v(id, version)) \
         update second_destinations set topic = $2, topic_id = $3, first_topic = $4, \
             from_xid = $5::text::xid8, updated_at = clock_timestamp() where tenant_id = $1",
    )
    .bind(tenant.as_str())
    .bind(before)
    .bind(id_before)
    .bind(topic)
    .bind(standing.from_xid.to_string())
    .bind(standing.versions.iter().map(|(wallet, _)| wallet.as_str()).collect::<Vec<_>>())
    .bind(standing.versions.iter().map(|(_, version)| *version).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into partition_leases as held (tenant_id, role, topic, partition, last_offset) \
         select tenant_id, 'second-publisher', topic, partition, last_offset from partition_leases \
         where tenant_id = $1 and role = 'publisher' and topic = $2 and $2 <> $3 \
         on conflict on constraint partition_leases_pkey do update \
             set last_offset = excluded.last_offset",
    )
    .bind(tenant.as_str())
    .bind(before)
    .bind(topic)
    .execute(connection)
    .await?;
    Ok(())
}

async fn forget(connection: &mut Connection, tenant: &TenantId) -> Result<()> {
    sqlx::query("delete from second_destinations where tenant_id = $1")
        .bind(tenant.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
