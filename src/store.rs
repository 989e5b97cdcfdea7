//! Postgres: the only SQL. Functions take the caller's connection and neither begin nor commit;
//! the rooms that own a transaction do, through [`begin`] and [`commit`].

pub mod archives;
pub mod checkpoints;
pub mod clusters;
pub mod commands;
pub mod connect;
pub mod dead_letters;
pub mod dual_publish;
pub mod entries;
mod error;
pub mod explain;
pub mod facts;
pub mod feed;
pub mod group_offsets;
pub mod history;
pub mod holds;
pub mod jobs;
pub mod lag;
pub mod leases;
pub mod outbox;
pub mod parked;
pub mod partitions;
pub mod projected;
pub mod read_model;
pub mod rebuild;
pub mod reconcile;
pub mod recorded;
pub mod retention;
pub mod schema;
pub mod signals;
pub mod snapshots;
mod time;
pub mod topics;
pub mod transactions;
pub mod wallets;

use std::time::Duration;

use sqlx::PgConnection;

use crate::wallet::{TenantId, WalletId, WalletKey};

pub use connect::{
    Pool, Pools, Reads, SHARED, Way, check_settings, connect_owner, connect_pool, migrate,
};
pub use error::{Blame, Class, Error, Result};
pub use lag::ping;

/// The rows of the pipeline itself (checkpoints, leases, topics, dead letters) belong to no tenant. The keys
/// of their tables begin with one all the same: this one.
pub const PIPELINE: &str = "default";

/// One connection to Postgres, in or out of a transaction.
pub type Connection = PgConnection;

/// One that goes back to its pool when dropped.
pub type Pooled = sqlx::pool::PoolConnection<sqlx::Postgres>;

/// The running server in SQL: its postmaster's first moment, in microseconds. A standby has another than
/// its primary, also once it is promoted.
macro_rules! server {
    () => {
        "(extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint"
    };
}
pub(crate) use server;

/// Wallets as two columns of a statement: their tenants and their ids.
pub(crate) fn columns<'a>(
    wallets: impl IntoIterator<Item = &'a WalletKey>,
) -> (Vec<&'a str>, Vec<&'a str>) {
    wallets.into_iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).unzip()
}

/// A wallet as two columns of a row.
pub(crate) fn wallet_key(tenant: &str, id: &str) -> WalletKey {
    (TenantId::stored(tenant), WalletId::stored(id))
}

/// Starts a transaction. Must not be dropped while it runs: a cancelled BEGIN leaves the session
/// inside a transaction, so callers run in tasks that are never cancelled.
pub async fn begin(connection: &mut Connection) -> Result<()> {
    Ok(sqlx::raw_sql("begin").execute(connection).await.map(drop)?)
}

/// Commits. An error here is of unknown outcome unless its class says otherwise.
pub async fn commit(connection: &mut Connection) -> Result<()> {
    Ok(sqlx::raw_sql("commit").execute(connection).await.map(drop)?)
}

/// Gives a transaction up.
pub async fn rollback(connection: &mut Connection) -> Result<()> {
    Ok(sqlx::raw_sql("rollback").execute(connection).await.map(drop)?)
}

/// Begins a transaction for an operator's question: the server gives it up after `limit`, so that asking
/// again and again does not pile up.
pub async fn ask(connection: &mut Connection, limit: Duration) -> Result<()> {
    let begin = format!("begin; set local statement_timeout = {}", limit.as_millis());
    Ok(sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(connection).await.map(drop)?)
}

/// Ends it, with its answer.
pub async fn answered<T>(connection: &mut Connection, answer: Result<T>) -> Result<T> {
    match answer {
        Ok(value) => commit(connection).await.map(|()| value),
        Err(error) => {
            // The first error says more; the pool mends the session anyway.
            let _ = rollback(connection).await;
            Err(error)
        }
    }
}

/// A connection to read with for a caller of this tenant: no other tenant's rows are there for it, also
/// where a statement forgets to name its own. Waits at most two seconds for one.
pub async fn session(reads: &Reads, tenant: &TenantId) -> Result<Pooled> {
    reads.session(tenant).await
}

/// A connection of the pool. Waits at most two seconds.
pub async fn acquire(pool: &Pool) -> Result<Pooled> {
    Ok(pool.acquire().await?)
}

/// The server itself ends a statement before this: past it, the server or the way to it is dead.
pub const SILENT: Duration = Duration::from_secs(35);

/// Bounds what a server may take to answer. One that falls silent counts as away; the connection
/// is of no use any more and must be dropped.
pub async fn bounded<T>(limit: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(Error::no_answer(limit)))
}
