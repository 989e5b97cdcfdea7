//! What is to be sent, and what was. A row is claimed for a time on the database's clock, so that
//! one instance at a time sends it and no transaction waits for Kafka; a claim that runs out is
//! another's. Each function is one statement.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::store::{PIPELINE, Pool, Result};

/// Longer than a produce request may take.
const CLAIM: Duration = Duration::from_secs(60);
const ROWS_MAX: i64 = 200;

/// A dead letter to be sent.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Due {
    pub id: i64,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Option<String>,
    pub error_class: String,
    pub error_message: String,
    pub attempts: i32,
    pub replay_count: i32,
    pub failed_at: DateTime<Utc>,
    pub published_at: Option<DateTime<Utc>>,
    pub replay_requested_at: Option<DateTime<Utc>>,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

impl Due {
    /// The number of its next replay.
    pub fn next_replay(&self) -> i32 {
        self.replay_count.saturating_add(1)
    }
}

/// Claims the oldest of what is to be sent: about `max_bytes`, but one at least.
pub async fn claim(pool: &Pool, owner: &str, max_bytes: i64) -> Result<Vec<Due>> {
    let mut rows: Vec<Due> = sqlx::query_as(
        "with due as materialized ( \
             select id, coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0) \
                 + coalesce(octet_length(headers::text), 0) as bytes from dead_letters \
             where tenant_id = $1 and refusal is null \
               and (published_at is null or replay_requested_at is not null) \
               and (claimed_until is null or claimed_until < clock_timestamp() or claimed_by = $2) \
             order by id limit $4 for no key update skip locked), \
         fits as (select id, sum(bytes) over (order by id) - bytes as before from due) \
         update dead_letters d set claimed_by = $2, \
             claimed_until = clock_timestamp() + $5 * interval '1 ms' \
         from fits where d.tenant_id = $1 and d.id = fits.id and fits.before < $3 \
         returning d.id, d.topic, d.partition, d.\"offset\", d.key, d.value, \
             d.headers::text as headers, d.error_class, d.error_message, d.attempts, \
             d.replay_count, d.failed_at, d.published_at, d.replay_requested_at, \
             clock_timestamp() as now",
    )
    .bind(PIPELINE)
    .bind(owner)
    .bind(max_bytes)
    .bind(ROWS_MAX)
    .bind(i64::try_from(CLAIM.as_millis()).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    rows.sort_by_key(|due| due.id);
    Ok(rows)
}

/// Notes that the topic of the dead letters holds these, unless they have failed again since.
pub async fn published(pool: &Pool, sent: &[&Due]) -> Result<()> {
    sqlx::query(
        "update dead_letters d set published_at = clock_timestamp(), \
             claimed_until = case when d.replay_requested_at is not null then d.claimed_until end \
         from unnest($2::bigint[], $3::int[]) s(id, attempts) \
         where d.tenant_id = $1 and d.id = s.id and d.attempts = s.attempts",
    )
    .bind(PIPELINE)
    .bind(sent.iter().map(|due| due.id).collect::<Vec<_>>())
    .bind(sent.iter().map(|due| due.attempts).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes that these are in their topic again, once more than before. A later request stands.
pub async fn replayed(pool: &Pool, sent: &[&Due]) -> Result<()> {
    sqlx::query(
        "update dead_letters d set replay_count = greatest(d.replay_count, s.replay), \
             replayed_at = clock_timestamp(), claimed_until = null, replay_requested_at = case \
                 when d.replay_requested_at is distinct from s.requested_at \
                 then d.replay_requested_at end \
         from unnest($2::bigint[], $3::int[], $4::timestamptz[]) s(id, replay, requested_at) \
         where d.tenant_id = $1 and d.id = s.id",
    )
    .bind(PIPELINE)
    .bind(sent.iter().map(|due| due.id).collect::<Vec<_>>())
    .bind(sent.iter().map(|due| due.next_replay()).collect::<Vec<_>>())
    .bind(sent.iter().map(|due| due.replay_requested_at).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes that the broker would not take it. It stays here; a request for a replay is over.
pub async fn refused(pool: &Pool, due: &Due, cause: &str) -> Result<()> {
    sqlx::query(
        "update dead_letters set refusal = $3, replay_requested_at = null, claimed_until = null \
         where tenant_id = $1 and id = $2",
    )
    .bind(PIPELINE)
    .bind(due.id)
    .bind(super::printable(cause))
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives back what was claimed and not sent.
pub async fn release(pool: &Pool, owner: &str) -> Result<()> {
    sqlx::query(
        "update dead_letters set claimed_until = null \
         where tenant_id = $1 and claimed_by = $2 and claimed_until is not null",
    )
    .bind(PIPELINE)
    .bind(owner)
    .execute(pool)
    .await?;
    Ok(())
}
