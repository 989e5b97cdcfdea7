//! A wallet at a moment of the past, from its events alone: no index on a time is kept for it.
//!
//! An event's time is never before that of its wallet's event before, so the version at a moment is found by halves:
//! some twenty look-ups in the primary key where a wallet has a million events.

use chrono::{DateTime, Utc};

use super::commands::wallets_at;
use super::{Connection, Error, Result};
use crate::wallet::{TenantId, Wallet, WalletId};

/// How far a wallet had come at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// That of its last event up to and with the moment; 0 before its first.
    pub version: i64,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

/// The database's clock.
pub async fn now(connection: &mut Connection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(connection).await?)
}

/// A wallet's version at a moment; none where there is no such wallet.
pub async fn version_at(
    connection: &mut Connection,
    tenant: &TenantId,
    wallet: &WalletId,
    at: DateTime<Utc>,
) -> Result<Option<Reached>> {
    // An event that is no longer here is older than all that are.
    let found: Option<(i64, DateTime<Utc>)> = sqlx::query_as(
        "with recursive probe(low, high) as ( \
             select 0::bigint, (select version from wallets where tenant_id = $1 and id = $2) \
             union all \
             select case when e.created_at is null or e.created_at <= $3 then m.middle else p.low end, \
                 case when e.created_at is null or e.created_at <= $3 then p.high else m.middle - 1 end \
             from probe p cross join lateral (select (p.low + p.high + 1) / 2 as middle) m \
             left join lateral (select created_at from events \
                 where tenant_id = $1 and wallet_id = $2 and version = m.middle limit 1) e on true \
             where p.low < p.high) \
         select low, clock_timestamp() from probe where low = high",
    )
    .bind(tenant.as_str())
    .bind(wallet.as_str())
    .bind(at)
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|(version, now)| Reached { version, now }))
}

/// A wallet as one of its events left it.
pub async fn wallet_at(
    connection: &mut Connection,
    tenant: &TenantId,
    wallet: &WalletId,
    version: i64,
) -> Result<Wallet> {
    let found = find_wallet_at(connection, tenant, wallet, version).await?;
    found.ok_or_else(|| Error::corrupt(format!("wallet {wallet} has no event {version}")))
}

/// The same; none where there is no such event.
pub async fn find_wallet_at(
    connection: &mut Connection,
    tenant: &TenantId,
    wallet: &WalletId,
    version: i64,
) -> Result<Option<Wallet>> {
    let wanted = [(tenant.clone(), wallet.clone(), version)];
    Ok(wallets_at(connection, &wanted).await?.into_values().next())
}
