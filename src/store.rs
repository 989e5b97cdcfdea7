//! Postgres: the only SQL. Functions take the caller's connection and neither begin nor commit;
//! the rooms that own a transaction do, through [`begin`] and [`commit`].

pub mod checkpoints;
pub mod connect;
pub mod dead_letters;
pub mod entries;
mod error;
pub mod feed;
pub mod parked;
pub mod read_model;
pub mod reconcile;
pub mod recorded;

use sqlx::PgConnection;

pub use connect::{Pool, connect_pool, migrate, pending_migrations};
pub use error::{Class, Error, Result};

/// One connection to Postgres, in or out of a transaction.
pub type Connection = PgConnection;

/// Starts a transaction. Must not be dropped while it runs: a cancelled BEGIN leaves the session
/// inside a transaction, so callers run in tasks that nobody cancels.
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
