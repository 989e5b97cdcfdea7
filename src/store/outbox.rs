//! The outbox as the publisher sees it: the *set* of unprocessed rows, never "id > last". Marks are
//! fenced by the epoch of the partition's lease, and write its last offset in the same statement.

pub mod repair;
pub mod republish;

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::leases::Leased;
use super::{Connection, Pool, Result};
use crate::envelope::{AGGREGATE_TYPE, Envelope, timestamp};

/// A record refused so many times is set aside; it blocks its own wallet, others flow.
pub const ATTEMPTS_BEFORE_BLOCKED: i32 = 3;

/// Rows of the backlog that are counted, at most.
pub const BACKLOG_MAX: i64 = 100_000;

/// One unprocessed row with all that its record says.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct OutboxRow {
    pub id: i64,
    pub tenant_id: String,
    pub partition: i32,
    pub wallet_id: String,
    pub version: i64,
    pub event_id: Uuid,
    pub event_type: String,
    pub schema_version: i16,
    /// JSON, as stored.
    pub payload: String,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
    pub created_at: DateTime<Utc>,
}

impl OutboxRow {
    /// Whether it sends again what was sent before: those ids are below all others.
    pub fn is_again(&self) -> bool {
        self.id < 0
    }

    /// Puts the event into the form in which it is published.
    pub fn envelope(&self) -> std::result::Result<Envelope<'_>, serde_json::Error> {
        Ok(Envelope {
            event_id: self.event_id,
            event_type: &self.event_type,
            aggregate_type: AGGREGATE_TYPE,
            aggregate_id: &self.wallet_id,
            aggregate_version: self.version,
            schema_version: self.schema_version,
            tenant_id: &self.tenant_id,
            timestamp: timestamp(self.created_at),
            correlation_id: self.correlation_id.as_deref(),
            causation_id: self.causation_id.as_deref(),
            data: serde_json::from_str(&self.payload)?,
        })
    }
}

/// Rows of one partition that the topic now holds.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    pub partition: i32,
    pub epoch: i64,
    /// The last of their offsets.
    pub last_offset: i64,
    /// Tenant and id of each row.
    pub rows: Vec<(String, i64)>,
}

/// An event that a record of the topic names.
#[derive(Debug, Clone)]
pub struct Found {
    pub tenant_id: String,
    pub wallet_id: String,
    pub version: i64,
    pub event_id: Uuid,
}

/// A row that the broker will not take, and why.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub tenant_id: String,
    pub id: i64,
    pub cause: String,
}

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    pub events: i64,
    /// There are more than these: [`BACKLOG_MAX`] were counted.
    pub more: bool,
    /// Age of the oldest.
    pub oldest: Duration,
}

/// The next rows of each of `partitions`, at most `limit` of each, in (partition, id) order:
/// one statement for all of them. Rows of a wallet behind a record set aside are left out, and new
/// rows of a wallet whose older events are being sent again.
pub async fn claim(
    pool: &Pool,
    topic: &str,
    partitions: &[i32],
    limit: i64,
) -> Result<Vec<OutboxRow>> {
    // Shaped to be linear whatever the planner believes: the blocked wallets are read once, and the
    // limit on the look-up of the event keeps it from scanning all events.
    Ok(sqlx::query_as(
        "with blocked as materialized ( \
             select tenant_id, aggregate_id, -9223372036854775808 as from_id from outbox \
             where processed_at is null and last_error is not null and attempts >= $4 \
             union all select tenant_id, wallet_id, 0 from outbox_republications where begun) \
         select o.id, o.tenant_id, o.partition, o.aggregate_id as wallet_id, \
             o.event_version as version, e.event_id, e.event_type, e.schema_version, \
             e.payload::text as payload, e.correlation_id, e.causation_id, e.traceparent, \
             e.created_at \
         from unnest($2::integer[]) as wanted(partition) \
         cross join lateral ( \
             select id, tenant_id, partition, aggregate_id, event_version from outbox waiting \
             where topic = $1 and partition = wanted.partition and processed_at is null \
               and not exists ( \
                   select from blocked where blocked.tenant_id = waiting.tenant_id \
                     and blocked.aggregate_id = waiting.aggregate_id \
                     and waiting.id >= blocked.from_id) \
             order by id limit $3) o \
         cross join lateral ( \
             select * from events \
             where tenant_id = o.tenant_id and wallet_id = o.aggregate_id \
               and version = o.event_version limit 1) e \
         order by o.partition, o.id",
    )
    .bind(topic)
    .bind(partitions)
    .bind(limit)
    .bind(ATTEMPTS_BEFORE_BLOCKED)
    .fetch_all(pool)
    .await?)
}

/// Marks rows of several partitions as published, in one statement, which is one transaction.
/// Returns the partitions whose lease still stands; the rows of the others are left as they were.
/// The same marks again change nothing.
pub async fn mark(pool: &Pool, leased: &Leased, marks: &[Mark]) -> Result<Vec<i32>> {
    // No "processed_at is null" here: on a table without statistics the planner takes the partial
    // index for empty, and scans the whole backlog for each row.
    let rows = || marks.iter().flat_map(|mark| mark.rows.iter().map(|row| (mark.partition, row)));
    Ok(sqlx::query_scalar(
        "with fenced as materialized ( \
             select held.partition, given.last_offset \
             from partition_leases held \
             join unnest($4::integer[], $5::bigint[], $6::bigint[]) \
                 as given(partition, epoch, last_offset) \
                 on held.partition = given.partition and held.epoch = given.epoch \
             where held.tenant_id = $1 and held.role = $2 and held.topic = $3 \
             order by held.partition for no key update of held), \
         placed as ( \
             update partition_leases held \
             set last_offset = fenced.last_offset, updated_at = clock_timestamp() \
             from fenced where held.tenant_id = $1 and held.role = $2 and held.topic = $3 \
               and held.partition = fenced.partition), \
         marked as ( \
             update outbox sent \
             set processed_at = coalesce(sent.processed_at, clock_timestamp()), published = true \
             from unnest($7::text[], $8::bigint[], $9::integer[]) \
                 as given(tenant_id, id, partition) \
             where sent.tenant_id = given.tenant_id and sent.id = given.id \
               and given.partition in (select partition from fenced)) \
         select partition from fenced",
    )
    .bind(&leased.tenant)
    .bind(leased.role)
    .bind(&leased.topic)
    .bind(marks.iter().map(|mark| mark.partition).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.epoch).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.last_offset).collect::<Vec<_>>())
    .bind(rows().map(|(_, (tenant, _))| tenant.as_str()).collect::<Vec<_>>())
    .bind(rows().map(|(_, (_, id))| *id).collect::<Vec<_>>())
    .bind(rows().map(|(partition, _)| partition).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?)
}

/// The unprocessed rows of a partition whose events were found in the topic: tenant and id. Rows
/// that send an event again are not among them: it is in the topic, but not in its place.
pub async fn waiting(
    pool: &Pool,
    topic: &str,
    partition: i32,
    found: &[Found],
) -> Result<Vec<(String, i64)>> {
    // Grouped, not joined: linear in the backlog whatever the planner believes of it.
    Ok(sqlx::query_as(
        "select both_sides.tenant_id, both_sides.id \
         from ( \
             select tenant_id, wallet_id, version, min(id) as id, array_agg(event_id) as found \
             from ( \
                 select tenant_id, aggregate_id as wallet_id, event_version as version, id, \
                     null::uuid as event_id \
                 from outbox where topic = $1 and partition = $2 and processed_at is null \
                   and id > 0 \
                 union all \
                 select tenant_id, wallet_id, version, null::bigint, event_id \
                 from unnest($3::text[], $4::text[], $5::bigint[], $6::uuid[]) \
                     as given(tenant_id, wallet_id, version, event_id)) side \
             group by tenant_id, wallet_id, version \
             having count(id) > 0 and count(event_id) > 0) both_sides \
         cross join lateral ( \
             select from events \
             where tenant_id = both_sides.tenant_id and wallet_id = both_sides.wallet_id \
               and version = both_sides.version and event_id = any(both_sides.found) limit 1) e",
    )
    .bind(topic)
    .bind(partition)
    .bind(found.iter().map(|event| event.tenant_id.as_str()).collect::<Vec<_>>())
    .bind(found.iter().map(|event| event.wallet_id.as_str()).collect::<Vec<_>>())
    .bind(found.iter().map(|event| event.version).collect::<Vec<_>>())
    .bind(found.iter().map(|event| event.event_id).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?)
}

/// Notes on each row that the broker refused it.
pub async fn record_failures(pool: &Pool, refusals: &[Refusal]) -> Result<()> {
    Ok(sqlx::query(
        "update outbox refused set attempts = refused.attempts + 1, last_error = given.cause \
         from unnest($1::text[], $2::bigint[], $3::text[]) as given(tenant_id, id, cause) \
         where refused.tenant_id = given.tenant_id and refused.id = given.id",
    )
    .bind(refusals.iter().map(|row| row.tenant_id.as_str()).collect::<Vec<_>>())
    .bind(refusals.iter().map(|row| row.id).collect::<Vec<_>>())
    .bind(refusals.iter().map(|row| row.cause.as_str()).collect::<Vec<_>>())
    .execute(pool)
    .await
    .map(drop)?)
}

/// How many events wait, counted up to [`BACKLOG_MAX`], and for how long the oldest has: the first row of
/// each partition says that, so a long backlog is asked for as quickly as a short one.
/// An error after `limit`.
pub async fn backlog(pool: &Pool, limit: Duration) -> Result<Backlog> {
    let mut connection = super::acquire(pool).await?;
    super::ask(&mut connection, limit).await?;
    let asked = ask_backlog(&mut connection).await;
    super::answered(&mut connection, asked).await
}

async fn ask_backlog(connection: &mut Connection) -> Result<Backlog> {
    super::feed::steady(connection).await?;
    let (events, oldest): (i64, i64) = sqlx::query_as(
        // Counted first: where nothing waits, the oldest is not looked for, past all that was marked since
        // the oldest snapshot.
        "with recursive counted as materialized (select count(*) as events from ( \
                 select from outbox where processed_at is null \
                 order by topic, partition, id limit $1) o), \
         waiting as ( \
             (select topic, partition from outbox where processed_at is null \
                   and (select events from counted) > 0 \
                 order by topic, partition limit 1) \
             union all \
             select n.topic, n.partition from waiting w cross join lateral ( \
                 select o.topic, o.partition from outbox o where o.processed_at is null \
                   and (o.topic, o.partition) > (w.topic, w.partition) \
                 order by o.topic, o.partition limit 1) n) \
         select (select events from counted), \
             (select coalesce(greatest(0, extract(epoch from \
                     clock_timestamp() - min(f.created_at)) * 1000), 0)::bigint \
                 from waiting w cross join lateral (select created_at from outbox o \
                     where o.topic = w.topic and o.partition = w.partition \
                       and o.processed_at is null order by o.id limit 1) f)",
    )
    .bind(BACKLOG_MAX + 1)
    .fetch_one(connection)
    .await?;
    Ok(Backlog {
        events: events.min(BACKLOG_MAX),
        more: events > BACKLOG_MAX,
        oldest: Duration::from_millis(u64::try_from(oldest).unwrap_or(0)),
    })
}
