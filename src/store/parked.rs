//! Wallets that wait: their next event could not be applied. What is behind it stays in `events`
//! and is read from there at release; all other wallets flow on.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::checkpoints::Subscription;
use super::{Connection, Result};
use crate::wallet::{TenantId, WalletId};

/// One wallet that a projector has parked.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Parked {
    pub projector: String,
    pub wallet_id: String,
    /// The version that could not be applied.
    pub version: i64,
    pub cause: String,
    pub attempts: i32,
    pub parked_at: DateTime<Utc>,
}

/// Parks a wallet; one that is parked already counts an attempt.
pub async fn park(
    connection: &mut Connection,
    of: &Subscription,
    wallet: &WalletId,
    version: i64,
    cause: &str,
) -> Result<()> {
    sqlx::query(
        "insert into parked_wallets (tenant_id, projector, wallet_id, version, cause) \
         values ($1, $2, $3, $4, $5) \
         on conflict (tenant_id, projector, wallet_id) do update \
         set version = excluded.version, cause = excluded.cause, \
             attempts = parked_wallets.attempts + 1",
    )
    .bind(of.tenant.as_str())
    .bind(of.projector)
    .bind(wallet.as_str())
    .bind(version)
    // Postgres takes no NUL in text, and a cause may quote anything.
    .bind(cause.replace('\0', "\u{fffd}"))
    .execute(connection)
    .await?;
    Ok(())
}

/// Those of some wallets that are parked.
pub async fn among(
    connection: &mut Connection,
    of: &Subscription,
    wallets: &[&str],
) -> Result<HashSet<WalletId>> {
    let rows: Vec<String> = sqlx::query_scalar(
        "select wallet_id from parked_wallets \
         where tenant_id = $1 and projector = $2 and wallet_id = any($3)",
    )
    .bind(of.tenant.as_str())
    .bind(of.projector)
    .bind(wallets)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(|wallet| WalletId::stored(wallet)).collect())
}

/// The longest-parked wallets of all projectors.
pub async fn list(
    connection: &mut Connection,
    tenant: &TenantId,
    limit: i64,
) -> Result<Vec<Parked>> {
    Ok(sqlx::query_as(
        "select projector, wallet_id, version, cause, attempts, parked_at from parked_wallets \
         where tenant_id = $1 order by parked_at, projector, wallet_id limit $2",
    )
    .bind(tenant.as_str())
    .bind(limit)
    .fetch_all(connection)
    .await?)
}
