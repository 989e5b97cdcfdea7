//! The outbox as the publisher sees it: the *set* of unprocessed batches, never "id > last", each with the
//! events of one partition that one batch of commands made.

pub mod floors;
mod found;
pub mod marks;
pub mod repair;
pub mod republish;

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Connection, Pool, Result};
use crate::envelope::{AGGREGATE_TYPE, Envelope, timestamp};
use floors::{Floor, ranges};
pub use found::{Found, waiting};

/// A record refused so many times is set aside; it blocks its own wallet, others flow.
pub const ATTEMPTS_BEFORE_BLOCKED: i32 = 3;

/// Events of the backlog that are counted, at most.
pub const BACKLOG_MAX: i64 = 100_000;

/// Where an event stands in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Slot {
    pub tenant_id: String,
    /// Of the batch, and its part.
    pub id: i64,
    pub part: i16,
    /// Among the events of that part, from 1 on.
    pub place: i64,
    /// How many these are.
    pub events: i32,
}

/// One unprocessed event with all that its record says.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct OutboxRow {
    #[sqlx(flatten)]
    pub slot: Slot,
    /// The broker has refused it before.
    pub refused: bool,
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
        self.slot.id < 0
    }

    /// Its place among the events that wait.
    fn order(&self) -> (i32, i64, i16, i64) {
        (self.partition, self.slot.id, self.slot.part, self.slot.place)
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
            tenant_id: &self.slot.tenant_id,
            timestamp: timestamp(self.created_at),
            correlation_id: self.correlation_id.as_deref(),
            causation_id: self.causation_id.as_deref(),
            data: serde_json::from_str(&self.payload)?,
        })
    }
}

/// An event that the broker will not take, and why.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub tenant_id: String,
    /// Of its batch.
    pub id: i64,
    pub wallet_id: String,
    pub version: i64,
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

/// The next events of each of these partitions, from their floors on, in the order in which they are sent: whole
/// batches, as many as begin within `limit` events of a partition. Events of a wallet behind a record set
/// aside are left out, and new ones of a wallet whose older events are being sent again. One statement for
/// all of it.
pub async fn claim(
    pool: &Pool,
    topic: &str,
    wanted: &[Floor],
    limit: i64,
) -> Result<Vec<OutboxRow>> {
    // Batches that send events again come first: where some wait, the look begins with those. Shaped to be linear
    // whatever the planner believes: the blocked wallets are read once, and the limit on the look-up of the
    // event keeps it from scanning all events. The batch's time, which is that of its events, says in which
    // month they lie. "offset 0" has each batch
    // counted once, and the last batch is taken whole, so that one larger than the limit passes.
    let mut rows: Vec<OutboxRow> = sqlx::query_as(
        "with refused as materialized ( \
             select r.tenant_id, r.wallet_id, r.version, r.attempts from outbox_refusals r \
             cross join lateral (select from outbox_batches b where b.tenant_id = r.tenant_id \
                 and b.id = r.id and b.processed_at is null limit 1) waits), \
         blocked as materialized ( \
             select tenant_id, wallet_id, -9223372036854775808 as from_id from refused \
             where attempts >= $4 \
             union all select tenant_id, wallet_id, 0 from outbox_republications where begun) \
         select o.tenant_id, o.id, o.part, o.place, o.events, exists ( \
                 select from refused r where r.tenant_id = o.tenant_id \
                   and r.wallet_id = o.wallet_id and r.version = o.version) as refused, \
             o.partition, o.wallet_id, o.version, e.event_id, e.event_type, e.schema_version, \
             e.payload::text as payload, e.correlation_id, e.causation_id, e.traceparent, \
             e.created_at \
         from unnest($2::integer[], $5::bigint[], $6::bigint[]) \
             as wanted(partition, again, commands) \
         cross join lateral (select case when exists (select from outbox_batches b \
                 where b.topic = $1 and b.partition = wanted.partition \
                   and b.processed_at is null and b.id >= wanted.again and b.id < 0) \
             then wanted.again else wanted.commands end as id offset 0) from_there \
         cross join lateral ( \
             select b.tenant_id, b.id, b.part, b.partition, b.created_at, \
                 cardinality(b.versions) as events, u.wallet_id, u.version, u.place \
             from ( \
                 select counted.*, sum(counted.free) over (order by counted.id, counted.part) \
                     - counted.free as before \
                 from ( \
                     select waiting.*, (case when exists (select from blocked) then ( \
                             select count(*) from unnest(waiting.wallets) as w(wallet_id) \
                             where not exists (select from blocked \
                                 where blocked.tenant_id = waiting.tenant_id \
                                   and blocked.wallet_id = w.wallet_id \
                                   and waiting.id >= blocked.from_id)) \
                         else cardinality(waiting.versions) end)::integer as free \
                     from outbox_batches waiting \
                     where topic = $1 and partition = wanted.partition and processed_at is null \
                       and id >= from_there.id \
                     order by id, part offset 0) counted \
                 where counted.free > 0 order by counted.id, counted.part limit $3) b \
             cross join lateral unnest(b.wallets, b.versions) with ordinality \
                 as u(wallet_id, version, place) \
             where b.before < $3 and not exists (select from blocked \
                 where blocked.tenant_id = b.tenant_id and blocked.wallet_id = u.wallet_id \
                   and b.id >= blocked.from_id)) o \
         cross join lateral ( \
             select * from events \
             where tenant_id = o.tenant_id and wallet_id = o.wallet_id \
               and version = o.version and created_at = o.created_at limit 1) e",
    )
    .bind(topic)
    .bind(wanted.iter().map(|floor| floor.partition).collect::<Vec<_>>())
    .bind(limit)
    .bind(ATTEMPTS_BEFORE_BLOCKED)
    .bind(wanted.iter().map(|floor| floor.again).collect::<Vec<_>>())
    .bind(wanted.iter().map(|floor| floor.commands).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?;
    // Here, not there: Postgres would sort whole payloads, on disk where there are many. They come in this
    // order anyway.
    rows.sort_by_key(OutboxRow::order);
    Ok(rows)
}

/// Notes of each event that the broker refused it, unless another instance has sent it meanwhile.
pub async fn record_failures(pool: &Pool, refusals: &[Refusal]) -> Result<()> {
    Ok(sqlx::query(
        "insert into outbox_refusals as known \
             (tenant_id, wallet_id, version, id, attempts, last_error) \
         select given.tenant_id, given.wallet_id, given.version, given.id, 1, given.cause \
         from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[]) \
             as given(tenant_id, wallet_id, version, id, cause) \
         cross join lateral (select from outbox_batches b where b.tenant_id = given.tenant_id \
             and b.id = given.id and b.processed_at is null limit 1) waits \
         order by given.tenant_id, given.wallet_id, given.version \
         on conflict on constraint outbox_refusals_pkey do update set id = excluded.id, \
             attempts = known.attempts + 1, last_error = excluded.last_error",
    )
    .bind(refusals.iter().map(|event| event.tenant_id.as_str()).collect::<Vec<_>>())
    .bind(refusals.iter().map(|event| event.wallet_id.as_str()).collect::<Vec<_>>())
    .bind(refusals.iter().map(|event| event.version).collect::<Vec<_>>())
    .bind(refusals.iter().map(|event| event.id).collect::<Vec<_>>())
    .bind(refusals.iter().map(|event| event.cause.as_str()).collect::<Vec<_>>())
    .execute(pool)
    .await
    .map(drop)?)
}

/// How many events wait, counted up to [`BACKLOG_MAX`], and for how long the oldest has: the first batch of
/// each partition says that, so a long backlog is asked for as quickly as a short one. From the floors on that a
/// publisher has noted; what waits for a topic that is not known any more counts, too.
/// An error after `limit`.
pub async fn backlog(pool: &Pool, limit: Duration) -> Result<Backlog> {
    let mut connection = super::acquire(pool).await?;
    super::ask(&mut connection, limit).await?;
    let asked = ask_backlog(&mut connection).await;
    super::answered(&mut connection, asked).await
}

async fn ask_backlog(connection: &mut Connection) -> Result<Backlog> {
    super::feed::steady(connection).await?;
    let (events, oldest): (i64, i64) = sqlx::query_as(concat!(
        // Names of topics are below '~'.
        "with ranges as materialized (select * from ",
        ranges!(),
        " r), others as materialized ( \
             select above, lead(above) over (order by above) as below \
             from (select ''::text collate \"C\" as above \
                 union all select name from topics where tenant_id = 'default') t), \
         waiting as not materialized ( \
             select w.* from ranges r cross join lateral ( \
                 select cardinality(b.versions) as events from outbox_batches b \
                 where b.topic = r.topic and b.partition = r.partition \
                   and b.processed_at is null and b.id between r.from_id and r.to_id \
                 order by b.id, b.part limit $1) w \
             union all \
             select w.* from others t cross join lateral ( \
                 select cardinality(b.versions) as events from outbox_batches b \
                 where b.processed_at is null and b.topic > t.above \
                   and b.topic < coalesce(t.below, '~') \
                 order by b.topic, b.partition, b.id, b.part limit $1) w), \
         counted as materialized (select coalesce(sum(o.events), 0)::bigint as events \
             from (select w.events from waiting w limit $1) o), \
         first as not materialized ( \
             select f.created_at from ranges r cross join lateral ( \
                 select b.created_at from outbox_batches b \
                 where b.topic = r.topic and b.partition = r.partition \
                   and b.processed_at is null and b.id between r.from_id and r.to_id \
                 order by b.id, b.part limit 1) f where (select events from counted) > 0 \
             union all \
             select f.created_at from others t cross join lateral ( \
                 select b.created_at from outbox_batches b \
                 where b.processed_at is null and b.topic > t.above \
                   and b.topic < coalesce(t.below, '~') \
                 order by b.topic, b.partition, b.id, b.part limit 1) f \
             where (select events from counted) > 0) \
         select (select events from counted), \
             (select coalesce(greatest(0, extract(epoch from \
                     clock_timestamp() - min(f.created_at)) * 1000), 0)::bigint from first f)",
    ))
    .bind(BACKLOG_MAX + 1)
    .fetch_one(connection)
    .await?;
    Ok(Backlog {
        events: events.min(BACKLOG_MAX),
        more: events > BACKLOG_MAX,
        oldest: Duration::from_millis(u64::try_from(oldest).unwrap_or(0)),
    })
}
