//! Work that is due, as rows: added in the transaction of whatever makes it necessary, taken by one
//! instance at a time. Each function is one statement; times are the database's.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::time::millis;
use super::{Connection, Pool, Result};
use crate::wallet::TenantId;

/// What is to be done, to what.
#[derive(Debug, Clone, Copy)]
pub struct NewJob<'a> {
    pub kind: &'a str,
    /// Unique within the kind.
    pub key: &'a str,
    /// None: now.
    pub due_at: Option<DateTime<Utc>>,
    /// JSON.
    pub payload: Option<&'a str>,
}

/// A job that this instance has taken.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Job {
    pub tenant_id: String,
    pub kind: String,
    pub key: String,
    pub payload: Option<String>,
    /// Which attempt this is, from 1.
    pub attempts: i32,
    pub epoch: i64,
}

/// A job as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ListedJob {
    pub kind: String,
    pub key: String,
    pub due_at: DateTime<Utc>,
    pub attempts: i32,
    pub last_error: Option<String>,
    pub dead_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// How many jobs of a kind there are to do.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct JobCounts {
    pub kind: String,
    /// Due and not taken.
    pub due: i64,
    /// Set aside.
    pub dead: i64,
}

/// Adds a job; false where there is one with this key. In the caller's transaction.
pub async fn add(connection: &mut Connection, tenant: &TenantId, job: NewJob<'_>) -> Result<bool> {
    let added = sqlx::query(
        "insert into jobs (tenant_id, kind, key, due_at, payload) \
         values ($1, $2, $3, coalesce($4, clock_timestamp()), $5::json) \
         on conflict on constraint jobs_pkey do nothing",
    )
    .bind(tenant.as_str())
    .bind(job.kind)
    .bind(job.key)
    .bind(job.due_at)
    .bind(job.payload)
    .execute(connection)
    .await?;
    Ok(added.rows_affected() > 0)
}

/// Takes what is due of these kinds, the longest-waiting first, for the time `claim`. The attempt is
/// counted before it is made.
pub async fn claim(
    pool: &Pool,
    owner: &str,
    kinds: &[&str],
    limit: usize,
    claim: Duration,
) -> Result<Vec<Job>> {
    Ok(sqlx::query_as(
        "with due as materialized ( \
             select tenant_id, kind, key from jobs \
             where dead_at is null and due_at <= clock_timestamp() and kind = any($1) \
             order by due_at limit $3 for no key update skip locked) \
         update jobs j set attempts = j.attempts + 1, epoch = j.epoch + 1, claimed_by = $2, \
             due_at = clock_timestamp() + $4 * interval '1 ms' \
         from due where j.tenant_id = due.tenant_id and j.kind = due.kind and j.key = due.key \
         returning j.tenant_id, j.kind, j.key, j.payload::text as payload, j.attempts, j.epoch",
    )
    .bind(kinds)
    .bind(owner)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(millis(claim))
    .fetch_all(pool)
    .await?)
}

/// Forgets a job that is done; false where another instance has taken it since. May be part of the
/// transaction that does it.
pub async fn finish(connection: &mut Connection, job: &Job) -> Result<bool> {
    let finished = sqlx::query(
        "delete from jobs where tenant_id = $1 and kind = $2 and key = $3 and epoch = $4",
    )
    .bind(&job.tenant_id)
    .bind(&job.kind)
    .bind(&job.key)
    .bind(job.epoch)
    .execute(connection)
    .await?;
    Ok(finished.rows_affected() > 0)
}

/// Makes a job due again after some time, as if it had not been tried; false where another instance
/// has taken it since. May be part of the transaction that does it.
pub async fn postpone(
    connection: &mut Connection,
    job: &Job,
    wait: Duration,
    payload: Option<&str>,
) -> Result<bool> {
    let postponed = sqlx::query(
        "update jobs set due_at = clock_timestamp() + $5 * interval '1 ms', attempts = 0, \
             claimed_by = null, last_error = null, payload = $6::json \
         where tenant_id = $1 and kind = $2 and key = $3 and epoch = $4",
    )
    .bind(&job.tenant_id)
    .bind(&job.kind)
    .bind(&job.key)
    .bind(job.epoch)
    .bind(millis(wait))
    .bind(payload)
    .execute(connection)
    .await?;
    Ok(postponed.rows_affected() > 0)
}

/// Notes why an attempt failed. It is tried again after `pause`; none: it is set aside.
pub async fn fail(
    connection: &mut Connection,
    job: &Job,
    error: &str,
    pause: Option<Duration>,
) -> Result<bool> {
    let failed = sqlx::query(
        "update jobs set last_error = $5, claimed_by = null, \
             due_at = clock_timestamp() + coalesce($6, 0) * interval '1 ms', \
             dead_at = case when $6 is null then clock_timestamp() end \
         where tenant_id = $1 and kind = $2 and key = $3 and epoch = $4",
    )
    .bind(&job.tenant_id)
    .bind(&job.kind)
    .bind(&job.key)
    .bind(job.epoch)
    .bind(super::dead_letters::printable(error))
    .bind(pause.map(millis))
    .execute(connection)
    .await?;
    Ok(failed.rows_affected() > 0)
}

/// Makes jobs due that were set aside, all of a kind or one of them. How many.
pub async fn retry(
    connection: &mut Connection,
    tenant: &TenantId,
    kind: &str,
    key: Option<&str>,
) -> Result<u64> {
    let retried = sqlx::query(
        "update jobs set dead_at = null, attempts = 0, due_at = clock_timestamp() \
         where tenant_id = $1 and kind = $2 and ($3::text is null or key = $3) \
           and dead_at is not null",
    )
    .bind(tenant.as_str())
    .bind(kind)
    .bind(key)
    .execute(connection)
    .await?;
    Ok(retried.rows_affected())
}

/// The jobs that are due next, or with `dead` those that were set aside, the latest first.
pub async fn list(
    connection: &mut Connection,
    tenant: &TenantId,
    dead: bool,
    limit: i64,
) -> Result<Vec<ListedJob>> {
    Ok(sqlx::query_as(
        "select kind, key, due_at, attempts, last_error, dead_at, created_at from jobs \
         where tenant_id = $1 and (dead_at is not null) = $2 \
         order by dead_at desc, due_at, kind, key limit $3",
    )
    .bind(tenant.as_str())
    .bind(dead)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

/// By kind, of all tenants.
pub async fn counts(pool: &Pool, kinds: &[&str]) -> Result<Vec<JobCounts>> {
    Ok(sqlx::query_as(
        "select kind, count(*) filter (where dead_at is null and due_at <= clock_timestamp()) as due, \
             count(*) filter (where dead_at is not null) as dead \
         from jobs where kind = any($1) and (dead_at is not null or due_at <= clock_timestamp()) \
         group by kind order by kind",
    )
    .bind(kinds)
    .fetch_all(pool)
    .await?)
}
