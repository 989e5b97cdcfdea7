//! A transaction by its id: the events that one command made, found at once and by any instance.
//!
//! The index is one of block ranges (migrations/0032): it costs commands nearly nothing, and stands on events being
//! appended in the order of their transactions' ids. What is not summarized yet is read.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::recorded::EventRow;
use super::{Connection, Error, Pool, Result};
use crate::wallet::{Event, TenantId};

/// An event's time is that in its transaction's id, or that of its wallet's event before where clocks went back.
const NEAR: TimeDelta = TimeDelta::days(1);

/// How far the index is summarized: by index, the next block range to look at.
pub type Summarized = HashMap<i64, i64>;

/// The events of a transaction in the order in which they were made; none where there is no such transaction.
pub async fn events_of(
    connection: &mut Connection,
    tenant: &TenantId,
    id: Uuid,
) -> Result<Vec<Event>> {
    // Of a table in parts only those of the id's time are looked into, then all: a clock may have been wrong.
    if let Some(at) = made_at(id) {
        let found = between(connection, tenant, id, at - NEAR, at + NEAR).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    between(connection, tenant, id, DateTime::UNIX_EPOCH, FAR).await
}

/// No event is of a later time.
const FAR: DateTime<Utc> = match DateTime::from_timestamp(253_402_300_799, 0) {
    Some(end_of_9999) => end_of_9999,
    None => DateTime::UNIX_EPOCH,
};

/// The time in an id of version 7.
fn made_at(id: Uuid) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = id.get_timestamp().filter(|_| id.get_version_num() == 7)?.to_unix();
    let at = DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)?;
    (at < FAR - NEAR).then_some(at)
}

async fn between(
    connection: &mut Connection,
    tenant: &TenantId,
    id: Uuid,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<Event>> {
    // The tenant is compared outside: inside, the primary key would look as good as the index that is meant.
    let rows: Vec<EventRow> = sqlx::query_as(
        "select e.* from (select tenant_id, wallet_id, version, event_id, event_type, \
             schema_version, payload::text as payload, transaction_id, partition, created_at \
             from events where transaction_id = $2 and created_at >= $3 and created_at < $4 \
             offset 0) e \
         where e.tenant_id = $1 order by e.event_id",
    )
    .bind(tenant.as_str())
    .bind(id)
    .bind(from)
    .bind(to)
    .fetch_all(connection)
    .await?;
    let read = |row: EventRow| row.event().map_err(|unreadable| Error::corrupt(unreadable.cause));
    rows.into_iter().map(read).collect()
}

/// Summarizes complete block ranges behind those that were reached, at most so many. How many ranges it came to;
/// none while another instance is at it.
pub async fn summarize(pool: &Pool, reached: &mut Summarized, most: i32) -> Result<i64> {
    let (indexes, ranges): (Vec<i64>, Vec<i64>) = reached.iter().unzip();
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "select leaf::bigint, next_range from \
             wallex_summarize('events', $1::bigint[]::oid[], $2::bigint[], $3)",
    )
    .bind(indexes)
    .bind(ranges)
    .bind(most)
    .fetch_all(pool)
    .await?;
    let mut walked = 0;
    for (leaf, next_range) in rows {
        let before = reached.insert(leaf, next_range).unwrap_or(0);
        walked += next_range - before;
    }
    Ok(walked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_id_is_known_where_the_id_has_one() {
        let id = Uuid::parse_str("01a1fde1-a5c8-7436-8657-71087131ae3a").unwrap();
        assert_eq!(made_at(id).map(|at| at.timestamp_millis()), Some(0x01a1_fde1_a5c8));
        assert_eq!(made_at(Uuid::from_u128(7)), None);
        // A caller's own: the 48 bits go beyond every calendar.
        let late = Uuid::parse_str("ffffffff-ffff-7000-8000-000000000000").unwrap();
        assert_eq!(made_at(late), None);
    }
}
