//! Partitions of the tables that grow for years: made ahead of time, begun, dropped. The service's role owns no
//! table: it does each by a function of the schema, which does that and nothing else.
//!
//! Each of these waits for locks that commands wait behind. The caller's transaction begins with [`try_lock`],
//! after which no wait is longer than a command bears.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::connect::OVER_ALL;
use super::time::millis;
use super::{Connection, Pool, Result};

/// Tables that are partitioned by month.
pub const BY_MONTH: [&str; 3] = ["events", "postings", "idempotency_keys"];
/// Rows of a default partition that are counted, at most.
pub const STRAYS_MAX: i64 = 10_000;

/// Among the advisory locks of the database: one instance makes and drops partitions at a time.
const LOCK: i64 = 0x7761_6c6c_6578_0002;

/// A day of the outbox that has its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Day {
    pub number: i32,
    /// When the next one began, or earlier: no batch of this one is younger.
    pub ended_at: DateTime<Utc>,
}

/// A month of keys that name their time.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct KeyMonth {
    pub name: String,
    pub begins_at: DateTime<Utc>,
    pub ends_at: DateTime<Utc>,
}

/// How many partitions a table has, and what lies in its default partition.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Extent {
    pub parent: String,
    pub partitions: i64,
    /// Rows for which there is no partition: at most [`STRAYS_MAX`] are counted.
    pub strays: i64,
}

/// Whether this transaction may go on: false while another instance is at it. It waits for no lock longer than
/// `patience`: commands that need one of the tables wait as long behind it.
pub async fn try_lock(connection: &mut Connection, patience: Duration) -> Result<bool> {
    let (locked, _): (bool, String) = sqlx::query_as(
        "select pg_try_advisory_xact_lock($1), set_config('lock_timeout', $2, true)",
    )
    .bind(LOCK)
    .bind(millis(patience).to_string())
    .fetch_one(connection)
    .await?;
    Ok(locked)
}

/// The server's time.
pub async fn clock(connection: &mut Connection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(connection).await?)
}

/// Makes the partition of the month that is `months` after `moment`'s, unless it is there. Returns how many rows
/// came along from the default partition, where one was made.
pub async fn add_month(
    connection: &mut Connection,
    parent: &str,
    moment: DateTime<Utc>,
    months: i32,
) -> Result<Option<i64>> {
    // The default partition is read while it is locked: one that is huge stays as it is, and is reported.
    sqlx::raw_sql("set local statement_timeout = '5s'").execute(&mut *connection).await?;
    Ok(sqlx::query_scalar(
        "select wallex_add_month($1, date_trunc('month', $2::timestamptz) + $3 * interval '1 month')",
    )
    .bind(parent)
    .bind(moment)
    .bind(months)
    .fetch_one(connection)
    .await?)
}

/// The months of events that lie in a default partition, where a clock was wrong: at most `limit`.
pub async fn stray_months(connection: &mut Connection, limit: i64) -> Result<Vec<DateTime<Utc>>> {
    Ok(sqlx::query_scalar(
        "select distinct date_trunc('month', created_at) from ( \
             (select created_at from events_default limit $1) \
             union all (select created_at from postings_default limit $1)) r limit $2",
    )
    .bind(STRAYS_MAX)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

/// Days of the outbox that are there and have not begun.
pub async fn days_ahead(connection: &mut Connection) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from outbox_days where begun_at is null")
        .fetch_one(connection)
        .await?)
}

/// Makes the outbox's next day; its number. It begins later.
pub async fn add_outbox_day(connection: &mut Connection) -> Result<i32> {
    Ok(sqlx::query_scalar("select wallex_add_outbox_day()").fetch_one(connection).await?)
}

/// Begins the next day of the outbox, where the last one began on a day before; its number. It must have been there
/// for `at_least`: a statement that ran when it was made may still not know it.
pub async fn begin_outbox_day(
    connection: &mut Connection,
    now: DateTime<Utc>,
    at_least: Duration,
) -> Result<Option<i32>> {
    Ok(sqlx::query_scalar("select wallex_begin_outbox_day($1, $2 * interval '1 ms')")
        .bind(now)
        .bind(millis(at_least))
        .fetch_one(connection)
        .await?)
}

/// The days of the outbox that ended longer ago than `age`, the oldest first.
pub async fn old_outbox_days(
    connection: &mut Connection,
    now: DateTime<Utc>,
    age: Duration,
) -> Result<Vec<Day>> {
    Ok(sqlx::query_as(
        "select d.number, n.ended_at from outbox_days d cross join lateral ( \
             select begun_at as ended_at from outbox_days \
             where number > d.number and begun_at is not null order by number limit 1) n \
         where d.number > 0 and n.ended_at is not null \
           and n.ended_at < $1::timestamptz - $2 * interval '1 ms' order by d.number",
    )
    .bind(now)
    .bind(millis(age))
    .fetch_all(connection)
    .await?)
}

/// Drops a day of the outbox if all its batches were processed longer ago than `age`, and moves the tenants' purge
/// marks. Returns how many events it had; none where something keeps it.
pub async fn drop_outbox_day(
    connection: &mut Connection,
    day: Day,
    now: DateTime<Utc>,
    age: Duration,
) -> Result<Option<i64>> {
    // All of it is read once, in place of a deletion for each of its rows.
    sqlx::raw_sql(OVER_ALL).execute(&mut *connection).await?;
    sqlx::raw_sql("set local statement_timeout = '10min'").execute(&mut *connection).await?;
    let first = i64::from(day.number) << 40;
    let (is_old, events): (bool, i64) = sqlx::query_as(
        "with day as materialized (select tenant_id, sum(cardinality(versions))::bigint as events, \
                 max(created_at) as through, min(created_at) filter (where not published) as unsent, \
                 coalesce(max(coalesce(processed_at, 'infinity')), '-infinity') as processed \
             from outbox_batches where id >= $1 and id < $2 group by tenant_id), \
         verdict as (select coalesce(max(processed), '-infinity') < $3::timestamptz - $4 * interval '1 ms' as old, \
                 coalesce(sum(events), 0)::bigint as events from day), \
         marked as (insert into outbox_purges as mark (tenant_id, purged_through, unpublished_from) \
             select tenant_id, through, unsent from day, verdict where old order by tenant_id \
             on conflict on constraint outbox_purges_pkey do update set \
                 purged_through = greatest(mark.purged_through, excluded.purged_through), \
                 unpublished_from = least(mark.unpublished_from, excluded.unpublished_from), \
                 updated_at = clock_timestamp()) \
         select old, events from verdict",
    )
    .bind(first)
    .bind(first + (1 << 40))
    .bind(now)
    .bind(millis(age))
    .fetch_one(&mut *connection)
    .await?;
    if !is_old {
        return Ok(None);
    }
    let is_dropped: bool = sqlx::query_scalar("select wallex_drop_outbox_day($1)")
        .bind(day.number)
        .fetch_one(connection)
        .await?;
    Ok(is_dropped.then_some(events))
}

/// Months of keys that ended longer ago than `age`.
pub async fn old_key_months(
    connection: &mut Connection,
    now: DateTime<Utc>,
    age: Duration,
) -> Result<Vec<KeyMonth>> {
    Ok(sqlx::query_as(
        "select name, from_bound::timestamptz as begins_at, to_bound::timestamptz as ends_at \
         from table_partitions where parent = 'idempotency_keys' and name is not null \
           and from_bound is not null \
           and to_bound::timestamptz < $1::timestamptz - $2 * interval '1 ms' order by from_bound::timestamptz",
    )
    .bind(now)
    .bind(millis(age))
    .fetch_all(connection)
    .await?)
}

/// Drops a month of keys, unless one of them was first used within `age`: a key may name a time long before that.
/// Says whether it did.
pub async fn drop_key_month(
    connection: &mut Connection,
    month: &KeyMonth,
    now: DateTime<Utc>,
    age: Duration,
) -> Result<bool> {
    sqlx::raw_sql(OVER_ALL).execute(&mut *connection).await?;
    sqlx::raw_sql("set local statement_timeout = '10min'").execute(&mut *connection).await?;
    let is_used: bool = sqlx::query_scalar(
        "select exists (select from idempotency_keys where keyed_at >= $1 and keyed_at < $2 \
             and created_at >= $3::timestamptz - $4 * interval '1 ms')",
    )
    .bind(month.begins_at)
    .bind(month.ends_at)
    .bind(now)
    .bind(millis(age))
    .fetch_one(&mut *connection)
    .await?;
    if !is_used {
        sqlx::query("select wallex_drop_key_month($1)")
            .bind(&month.name)
            .execute(connection)
            .await?;
    }
    Ok(!is_used)
}

/// A key that names its time: in the order in which such keys lie.
pub type NamedKey = (DateTime<Utc>, String, Vec<u8>);

/// What [`texts_of_named_keys`] did.
#[derive(Debug)]
pub struct Texts {
    pub dropped: i64,
    /// The last key that it looked at, behind which there may be more.
    pub last: Option<NamedKey>,
}

/// Older texts than these were dropped by earlier walks.
const DROPPED_BEFORE: Duration = Duration::from_hours(7 * 24);

/// Drops the texts of answers older than `answers`, which are those of refusals and of whole requests, among the next `limit` of the keys that name
/// their time, behind `after`. Deletes none of them: they go with their month.
pub async fn texts_of_named_keys(
    connection: &mut Connection,
    now: DateTime<Utc>,
    after: Option<&NamedKey>,
    answers: Duration,
    limit: i64,
) -> Result<Texts> {
    let begin = || {
        let back = TimeDelta::from_std(answers.saturating_add(DROPPED_BEFORE)).ok();
        back.and_then(|back| now.checked_sub_signed(back)).unwrap_or(DateTime::UNIX_EPOCH)
    };
    let row: TextsRow = sqlx::query_as(
        "with looked as materialized ( \
            select keyed_at, tenant_id, scope_hash, created_at, answer is not null as kept \
            from idempotency_keys where keyed_at >= '1970-01-01 00:00:00+00' and keyed_at >= $1 \
              and (keyed_at, tenant_id, scope_hash) > ($1, $2, $3) \
              and keyed_at < $4::timestamptz - $5 * interval '1 ms' \
            order by keyed_at, tenant_id, scope_hash limit $6), \
         dropped as (update idempotency_keys k set status = null, answer = null from looked l \
            where k.keyed_at = l.keyed_at and k.tenant_id = l.tenant_id \
              and k.scope_hash = l.scope_hash and k.keyed_at >= '1970-01-01 00:00:00+00' \
              and l.kept and l.created_at < $4::timestamptz - $5 * interval '1 ms' returning 1) \
         select (select count(*) from looked) as seen, (select count(*) from dropped) as dropped, \
            last.keyed_at, last.tenant_id, last.scope_hash \
         from (select 1) always left join lateral (select * from looked \
            order by keyed_at desc, tenant_id desc, scope_hash desc limit 1) last on true",
    )
    .bind(after.map_or_else(begin, |(at, ..)| *at))
    .bind(after.map_or("", |(_, tenant, _)| tenant))
    .bind(after.map_or(&[][..], |(.., scope)| scope))
    .bind(now)
    .bind(millis(answers))
    .bind(limit)
    .fetch_one(connection)
    .await?;
    let last = row.keyed_at.zip(row.tenant_id).zip(row.scope_hash);
    let last = last.map(|((at, tenant), scope)| (at, tenant, scope));
    Ok(Texts { dropped: row.dropped, last: last.filter(|_| row.seen == limit) })
}

#[derive(sqlx::FromRow)]
struct TextsRow {
    seen: i64,
    dropped: i64,
    keyed_at: Option<DateTime<Utc>>,
    tenant_id: Option<String>,
    scope_hash: Option<Vec<u8>>,
}

/// Deletes keys older than `keys` that name a time for which there is no month, far in the past or future: at
/// most `limit`. There are hardly ever any.
pub async fn stray_keys(
    connection: &mut Connection,
    now: DateTime<Utc>,
    keys: Duration,
    limit: i64,
) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "with purged as (delete from idempotency_keys_default where ctid = any(array( \
                select ctid from idempotency_keys_default \
                where created_at < $1::timestamptz - $2 * interval '1 ms' limit $3)) returning 1) \
         select count(*) from purged",
    )
    .bind(now)
    .bind(millis(keys))
    .bind(limit)
    .fetch_one(connection)
    .await?)
}

/// How many partitions each table has, and how many rows lie in its default partition.
pub async fn extents(pool: &Pool) -> Result<Vec<Extent>> {
    Ok(sqlx::query_as(
        "select coalesce(p.parent, '') as parent, count(*) as partitions, max(case p.parent \
             when 'events' then (select count(*) from (select from events_default limit $1) r) \
             when 'postings' then (select count(*) from (select from postings_default limit $1) r) \
             when 'idempotency_keys' then \
                 (select count(*) from (select from idempotency_keys_default limit $1) r) \
             else 0 end)::bigint as strays \
         from table_partitions p group by p.parent order by p.parent",
    )
    .bind(STRAYS_MAX)
    .fetch_all(pool)
    .await?)
}
