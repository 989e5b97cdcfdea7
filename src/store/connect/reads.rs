//! Connections that read for callers: each sees one tenant's rows, whatever it is asked.
//!
//! Row-level security (migrations/0017) shows a session the rows of the tenant that it was given, in
//! addition to what every statement says itself. Sessions of the pipeline are given none, and see all.

use std::time::Instant;

use sqlx::postgres::PgPoolOptions;

use super::super::{Class, Connection, Pooled, Result, bounded};
use super::session::{NO_TENANT, Session};
use super::{ACQUIRE_TIMEOUT, Pool, Way, pool_with};
use crate::wallet::TenantId;

/// The pool of them. [`crate::store::session`] is the only way to a connection of it.
#[derive(Debug, Clone)]
pub struct Reads(Pool);

impl Reads {
    pub(super) fn new(way: &Way, session: Session, most: u32) -> Result<Self> {
        // Telling a connection its tenant shows that it lives, in the one round trip of a look.
        let options = PgPoolOptions::new().max_connections(most).test_before_acquire(false);
        Ok(Self(pool_with(options, way, session.confined())?))
    }

    pub(in super::super) async fn session(&self, tenant: &TenantId) -> Result<Pooled> {
        let begun = Instant::now();
        loop {
            let mut connection = self.0.acquire().await?;
            match bounded(ACQUIRE_TIMEOUT, confine(&mut connection, tenant)).await {
                Ok(()) => return Ok(connection),
                // It died while it was idle, and does not go back to the pool. Others may have, too.
                Err(error)
                    if error.class() == Class::Unavailable && begun.elapsed() < ACQUIRE_TIMEOUT => {
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.0
    }
}

async fn confine(connection: &mut Connection, tenant: &TenantId) -> Result<()> {
    // To Postgres an empty setting is none, and without one a session sees all tenants.
    let tenant = if tenant.as_str().is_empty() { NO_TENANT } else { tenant.as_str() };
    let confine = sqlx::query("select set_config('wallex.tenant', $1, false)").bind(tenant);
    Ok(confine.execute(connection).await.map(drop)?)
}
