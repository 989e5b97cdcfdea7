//! Wallets that wait: their next event could not be applied. What is behind it stays in `events`
//! and is read from there at release; all other wallets flow on.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::checkpoints::Subscription;
use super::dead_letters::printable;
use super::{Connection, Result, columns, wallet_key};
use crate::wallet::WalletKey;

/// Minutes from each failure to the next attempt; after the last one a person has to ask, unless the
/// wallet waits for a newer version of the service: then the last repeats.
const RETRY_MINUTES: [i32; 3] = [1, 5, 30];

/// Why a wallet is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause<'a> {
    pub text: &'a str,
    /// A newer version of the service can apply its event.
    pub newer: bool,
}

/// What a parked wallet waits for: `retrying` its next attempt, `waiting` for a person.
pub const STATES: [&str; 2] = ["retrying", "waiting"];

/// One wallet that a projector has parked.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Parked {
    pub tenant_id: String,
    pub projector: String,
    pub wallet_id: String,
    /// The version that could not be applied.
    pub version: i64,
    pub cause: String,
    /// One of [`STATES`].
    pub state: String,
    pub attempts: i32,
    pub parked_at: DateTime<Utc>,
    pub last_tried_at: DateTime<Utc>,
    /// None: it waits for a person.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// The number of its events that are not applied.
    pub events: i64,
}

/// Which parked wallets are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub wallet: Option<String>,
    /// One of [`STATES`].
    pub state: Option<String>,
    pub limit: i64,
}

/// Parks a wallet. One that is parked already stays as it is: only its release tries again.
pub async fn park(
    connection: &mut Connection,
    of: &Subscription,
    (tenant, wallet): &WalletKey,
    version: i64,
    cause: Cause<'_>,
) -> Result<()> {
    sqlx::query(
        "insert into parked_wallets \
             (tenant_id, projector, wallet_id, version, cause, newer, next_retry_at) \
         values ($1, $2, $3, $4, $5, $7, \
             clock_timestamp() + ($6::int[])[1] * interval '1 minute') \
         on conflict on constraint parked_wallets_pkey do nothing",
    )
    .bind(tenant.as_str())
    .bind(of.projector)
    .bind(wallet.as_str())
    .bind(version)
    .bind(printable(cause.text))
    .bind(RETRY_MINUTES)
    .bind(cause.newer)
    .execute(connection)
    .await?;
    Ok(())
}

/// Those of some wallets that are parked.
pub async fn parked_of(
    connection: &mut Connection,
    of: &Subscription,
    wallets: &[&WalletKey],
) -> Result<HashSet<WalletKey>> {
    let (tenants, ids) = columns(wallets.iter().copied());
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select p.tenant_id, p.wallet_id from unnest($2::text[], $3::text[]) wanted(tenant, id) \
         cross join lateral (select tenant_id, wallet_id from parked_wallets \
             where tenant_id = wanted.tenant and projector = $1 and wallet_id = wanted.id limit 1) p",
    )
    .bind(of.projector)
    .bind(tenants)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(|(tenant, id)| wallet_key(tenant, id)).collect())
}

/// Wallets whose time for another attempt has come, the longest-waiting first.
pub async fn due(
    connection: &mut Connection,
    of: &Subscription,
    limit: i64,
) -> Result<Vec<WalletKey>> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select tenant_id, wallet_id from parked_wallets \
         where projector = $1 and next_retry_at <= clock_timestamp() \
         order by next_retry_at, tenant_id, wallet_id limit $2",
    )
    .bind(of.projector)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(|(tenant, id)| wallet_key(tenant, id)).collect())
}

/// Takes a wallet for the running transaction's attempt; false where it is not due any more, or
/// another instance is at it.
pub async fn claim(
    connection: &mut Connection,
    of: &Subscription,
    (tenant, wallet): &WalletKey,
) -> Result<bool> {
    let found: Option<i32> = sqlx::query_scalar(
        "select attempts from parked_wallets \
         where tenant_id = $1 and projector = $2 and wallet_id = $3 \
           and next_retry_at <= clock_timestamp() for update skip locked",
    )
    .bind(tenant.as_str())
    .bind(of.projector)
    .bind(wallet.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// The attempt failed, at this version: the next follows later, or when an operator asks.
pub async fn record_failure(
    connection: &mut Connection,
    of: &Subscription,
    (tenant, wallet): &WalletKey,
    version: i64,
    cause: Cause<'_>,
) -> Result<()> {
    // Behind the array's end there is null: no time at all.
    sqlx::query(
        "update parked_wallets set version = $4, cause = $5, newer = $7, \
             attempts = attempts + 1, last_tried_at = clock_timestamp(), \
             next_retry_at = clock_timestamp() + interval '1 minute' * coalesce( \
                 ($6::int[])[attempts + 1], \
                 case when $7 then ($6::int[])[cardinality($6::int[])] end) \
         where tenant_id = $1 and projector = $2 and wallet_id = $3",
    )
    .bind(tenant.as_str())
    .bind(of.projector)
    .bind(wallet.as_str())
    .bind(version)
    .bind(printable(cause.text))
    .bind(RETRY_MINUTES)
    .bind(cause.newer)
    .execute(connection)
    .await?;
    Ok(())
}

/// Those that wait for a newer version of the service are due: this may be it.
pub async fn hurry_newer(connection: &mut Connection, of: &Subscription) -> Result<()> {
    sqlx::query(
        "update parked_wallets set next_retry_at = clock_timestamp() \
         where projector = $1 and newer",
    )
    .bind(of.projector)
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts the wallets that the projector has parked.
pub async fn count(connection: &mut Connection, of: &Subscription) -> Result<i64> {
    let count = "select count(*) from parked_wallets where projector = $1";
    Ok(sqlx::query_scalar(count).bind(of.projector).fetch_one(connection).await?)
}

/// A stretch is applied and there is more: the wallet stays parked at its next version.
pub async fn set_version(
    connection: &mut Connection,
    of: &Subscription,
    (tenant, wallet): &WalletKey,
    version: i64,
) -> Result<()> {
    sqlx::query(
        "update parked_wallets set version = $4 \
         where tenant_id = $1 and projector = $2 and wallet_id = $3",
    )
    .bind(tenant.as_str())
    .bind(of.projector)
    .bind(wallet.as_str())
    .bind(version)
    .execute(connection)
    .await?;
    Ok(())
}

/// The wallet has caught up: from now on it is fed like the others.
pub async fn remove(
    connection: &mut Connection,
    of: &Subscription,
    (tenant, wallet): &WalletKey,
) -> Result<()> {
    sqlx::query(
        "delete from parked_wallets \
         where tenant_id = $1 and projector = $2 and wallet_id = $3",
    )
    .bind(tenant.as_str())
    .bind(of.projector)
    .bind(wallet.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// The longest-parked wallets of all projectors and tenants.
pub async fn list(connection: &mut Connection, filter: &Filter) -> Result<Vec<Parked>> {
    Ok(sqlx::query_as(
        "select p.*, greatest(coalesce(w.version, 0) - p.version + 1, 0) as events from ( \
             select case when next_retry_at is null then 'waiting' else 'retrying' end as state, \
                 * from parked_wallets \
             where $1::text is null or wallet_id = $1) p \
         left join wallets w on w.tenant_id = p.tenant_id and w.id = p.wallet_id \
         where $2::text is null or p.state = $2 \
         order by p.parked_at, p.projector, p.tenant_id, p.wallet_id limit $3",
    )
    .bind(&filter.wallet)
    .bind(&filter.state)
    .bind(filter.limit)
    .fetch_all(connection)
    .await?)
}
