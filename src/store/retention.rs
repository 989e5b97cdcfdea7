//! Purging what has done its service, a few rows a transaction. Each step looks at the next rows in
//! the order of a primary key, so that commands pay for no index on a time. What is old is told by the
//! [`horizon`], not by the clock.

mod horizon;

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::time::millis;
use super::{Connection, PIPELINE, Result};
pub use horizon::{Clock, Horizon, advance, horizon};

/// Among the advisory locks of the database, the first of those by which one instance purges a table at a time.
const LOCK: i64 = 0x7761_6c6c_6578_0001;

/// What is older than `than`, at the time `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Old {
    pub at: DateTime<Utc>,
    pub than: Duration,
}

/// What one step found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<K> {
    /// Rows looked at.
    pub seen: i64,
    pub purged: i64,
    /// The last row looked at; none where there were none.
    pub last: Option<K>,
    /// What comes behind is too young.
    pub young: bool,
    /// For how long the oldest of what was purged has been due.
    pub late: Duration,
}

/// Stored texts and keys, purged in one walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStep {
    pub answers: i64,
    pub walk: Step<(String, Vec<u8>)>,
}

/// Whether this transaction is the one that purges the table of this number; another instance is at it
/// otherwise.
pub async fn lock(connection: &mut Connection, table: i64) -> Result<bool> {
    Ok(sqlx::query_scalar("select pg_try_advisory_xact_lock($1)")
        .bind(LOCK + table)
        .fetch_one(connection)
        .await?)
}

/// How far the outbox was walked: tenant, batch and part.
pub type BatchKey = (String, i64, i16);

/// Deletes batches of the outbox's first partition (`partitions`) that were processed longer ago than that, among the
/// next `limit` behind
/// `after`, and moves their tenants' purge marks with them. Counts their events as purged.
pub async fn outbox(
    connection: &mut Connection,
    after: Option<&BatchKey>,
    old: Old,
    limit: i64,
) -> Result<Step<BatchKey>> {
    let step: PurgedBatches = sqlx::query_as(
        "with looked as materialized ( \
            select tenant_id, id, part, created_at, processed_at from outbox_batches \
            where (tenant_id, id, part) > ($1, $2, $5) and id < 1099511627776 \
            order by tenant_id, id, part limit $4), \
         given as (select $6::timestamptz - $3 * interval '1 ms' as due), \
         old as (select tenant_id, id, part, processed_at from looked \
            where processed_at < (select due from given)), \
         free as materialized (select o.row from old cross join lateral ( \
            select ctid as row from outbox_batches where tenant_id = old.tenant_id \
              and id = old.id and part = old.part and id < 1099511627776 \
            for update skip locked) o), \
         purged as (delete from outbox_batches o using free f \
            where o.ctid = f.row and o.id < 1099511627776 returning o.tenant_id, o.created_at, o.published, cardinality(o.versions) as events), \
         marked as (insert into outbox_purges as mark (tenant_id, purged_through, unpublished_from) \
            select tenant_id, max(created_at), min(created_at) filter (where not published) \
            from purged group by tenant_id order by tenant_id \
            on conflict on constraint outbox_purges_pkey do update set \
                purged_through = greatest(mark.purged_through, excluded.purged_through), \
                unpublished_from = least(mark.unpublished_from, excluded.unpublished_from), \
                updated_at = clock_timestamp()) \
         select (select count(*) from looked) as seen, \
            (select coalesce(sum(events), 0) from purged) as purged, \
            last.tenant_id, last.id, last.part, coalesce(case when last.id < 0 \
                then coalesce(last.processed_at, 'infinity') >= (select due from given) \
                else last.created_at >= (select due from given) end, true) as young, \
            coalesce((extract(epoch from (select due from given) \
                - (select min(processed_at) from old)) * 1000)::bigint, 0) as late \
         from (select 1) always left join lateral \
            (select * from looked order by tenant_id desc, id desc, part desc limit 1) last on true",
    )
    .bind(after.map_or("", |(tenant, ..)| tenant))
    .bind(after.map_or(i64::MIN, |(_, id, _)| *id))
    .bind(millis(old.than))
    .bind(limit)
    .bind(after.map_or(i16::MIN, |(.., part)| *part))
    .bind(old.at)
    .fetch_one(connection)
    .await?;
    let PurgedBatches { seen, purged, late, .. } = step;
    Ok(Step { seen, purged, last: step.go_on(), young: seen < limit, late: duration(late) })
}

/// What [`outbox`] did, and the last batch that it looked at.
#[derive(sqlx::FromRow)]
struct PurgedBatches {
    seen: i64,
    purged: i64,
    tenant_id: Option<String>,
    id: Option<i64>,
    part: Option<i16>,
    young: bool,
    late: i64,
}

impl PurgedBatches {
    /// The place to go on behind. Batches that send events again come first, in the order of their sending:
    /// behind a young one they are young, and the batches of commands begin. Behind a young one of those
    /// all of the tenant's are.
    fn go_on(self) -> Option<BatchKey> {
        let (tenant, id, part) = (self.tenant_id?, self.id?, self.part?);
        Some(match (self.young, id < 0) {
            (true, true) => (tenant, 0, i16::MAX),
            (true, false) => (tenant, i64::MAX, i16::MAX),
            (false, _) => (tenant, id, part),
        })
    }
}

/// Deletes the ids of batches older than that. A COMMIT in doubt is settled within seconds, by an
/// INSERT of the same id: an hour is far beyond that.
pub async fn batches(connection: &mut Connection, old: Old, limit: i64) -> Result<Step<()>> {
    // Ids ascend with time, nearly: each instance makes its own from its clock.
    let (seen, purged, late): (i64, i64, i64) = sqlx::query_as(
        "with looked as materialized (select id, created_at from command_batches \
            order by id limit $2), \
         old as (select id, $3::timestamptz - $1 * interval '1 ms' - created_at as late from looked \
            where created_at < $3::timestamptz - $1 * interval '1 ms'), \
         purged as (delete from command_batches where id = any(array(select id from old)) \
            returning 1) \
         select (select count(*) from looked), (select count(*) from purged), \
            (select coalesce((extract(epoch from max(late)) * 1000)::bigint, 0) from old)",
    )
    .bind(millis(old.than))
    .bind(limit)
    .bind(old.at)
    .fetch_one(connection)
    .await?;
    let late = duration(late);
    Ok(Step { seen, purged, last: None, young: purged < limit, late })
}

/// Drops the texts of answers older than `answers`, which are those of refusals and of whole requests, and
/// keys older than `keys`, among the next `limit` keys that name no time, behind `after`, at the time `at`. The narrow row that stays tells a
/// retry that it had its effect; that of a success is narrow from the start, and is not written again:
/// its age is judged when it is read.
pub async fn keys(
    connection: &mut Connection,
    after: Option<&(String, Vec<u8>)>,
    at: DateTime<Utc>,
    (answers, keys): (Duration, Duration),
    limit: i64,
) -> Result<KeyStep> {
    let step: PurgedKeys = sqlx::query_as(
        "with looked as materialized ( \
            select tenant_id, scope_hash, created_at, answer is not null as kept \
            from idempotency_keys_other where (tenant_id, scope_hash) > ($1, $2) \
            order by tenant_id, scope_hash limit $5), \
         given as (select $6::timestamptz - $4 * interval '1 ms' as due, \
            $6::timestamptz - $3 * interval '1 ms' as dropped), \
         free as materialized (select k.*, l.created_at < g.due as old \
            from looked l cross join given g cross join lateral ( \
                select tenant_id, scope_hash from idempotency_keys_other where tenant_id = l.tenant_id \
                  and scope_hash = l.scope_hash for update skip locked) k \
            where l.created_at < g.due or l.kept and l.created_at < g.dropped), \
         purged as (delete from idempotency_keys_other k using free f \
            where k.tenant_id = f.tenant_id and k.scope_hash = f.scope_hash and f.old \
            returning k.created_at), \
         dropped as (update idempotency_keys_other k set status = null, answer = null from free f \
            where k.tenant_id = f.tenant_id and k.scope_hash = f.scope_hash and not f.old \
            returning 1) \
         select (select count(*) from looked) as seen, (select count(*) from dropped) as dropped, \
            (select count(*) from purged) as purged, last.tenant_id, last.scope_hash, \
            coalesce((extract(epoch from (select due from given) \
                - (select min(created_at) from purged)) * 1000)::bigint, 0) as late \
         from (select 1) always left join lateral (select * from looked \
            order by tenant_id desc, scope_hash desc limit 1) last on true",
    )
    .bind(after.map_or("", |(tenant, _)| tenant))
    .bind(after.map_or(&[][..], |(_, scope)| scope))
    .bind(millis(answers))
    .bind(millis(keys))
    .bind(limit)
    .bind(at)
    .fetch_one(connection)
    .await?;
    let PurgedKeys { seen, dropped, purged, .. } = step;
    let (last, late) = (step.tenant_id.zip(step.scope_hash), duration(step.late));
    Ok(KeyStep { answers: dropped, walk: Step { seen, purged, last, young: seen < limit, late } })
}

/// What [`keys`] did, and the last key that it looked at.
#[derive(sqlx::FromRow)]
struct PurgedKeys {
    seen: i64,
    dropped: i64,
    purged: i64,
    tenant_id: Option<String>,
    scope_hash: Option<Vec<u8>>,
    late: i64,
}

/// Deletes dead letters that were settled longer ago than that, or replayed and not failed since, among
/// the next `limit` behind `after`.
pub async fn letters(
    connection: &mut Connection,
    after: Option<i64>,
    old: Old,
    limit: i64,
) -> Result<Step<i64>> {
    let (seen, purged, last, late): (i64, i64, Option<i64>, i64) = sqlx::query_as(
        "with looked as materialized ( \
            select id, $5::timestamptz - $3 * interval '1 ms' - case \
                when replay_requested_at is not null then null \
                when quarantined_at is not null then quarantined_at \
                when replay_count > failed_replay then replayed_at end as late \
            from dead_letters where tenant_id = $1 and id > $2 order by id limit $4), \
         purged as (delete from dead_letters where tenant_id = $1 and id = any(array( \
                select id from dead_letters where tenant_id = $1 \
                    and id = any(array(select id from looked where late > '0')) \
                for update skip locked)) \
            returning 1) \
         select (select count(*) from looked), (select count(*) from purged), \
            (select max(id) from looked), (select coalesce(greatest(0, \
                extract(epoch from max(late)) * 1000)::bigint, 0) from looked)",
    )
    .bind(PIPELINE)
    .bind(after.unwrap_or(i64::MIN))
    .bind(millis(old.than))
    .bind(limit)
    .bind(old.at)
    .fetch_one(connection)
    .await?;
    Ok(Step { seen, purged, last, young: seen < limit, late: duration(late) })
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
