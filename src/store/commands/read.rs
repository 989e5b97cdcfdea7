//! The first half of a batch: claim, lock, look up.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::Locking;
use crate::store::{Connection, Error, Result};
use crate::wallet::{Currency, EventData, EventType, Metadata, Status, TenantId, Wallet, WalletId};

/// The wallets of a batch as they stand under lock.
pub type Locked = HashMap<WalletId, Wallet>;

/// A key that was used before.
#[derive(Debug, Clone)]
pub struct KeyRow {
    pub fingerprint: Vec<u8>,
    pub transaction_id: Uuid,
    pub kept: Kept,
}

/// How a key's first answer is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Status and body.
    Text(u16, String),
    /// A success: the versions that it left its wallets at, a transfer's source first.
    Versions(i64, Option<i64>),
    /// Its retention has passed.
    Dropped,
}

/// Wallets as they were at some of their versions.
pub type Past = HashMap<(WalletId, i64), Wallet>;

/// The batch's first statement. A unique violation of `command_batches_pkey` says that a batch of
/// this id has committed; while one of this id is in doubt, the statement waits for it.
pub async fn batch_claim(connection: &mut Connection, tenant: &TenantId, id: Uuid) -> Result<()> {
    sqlx::query("insert into command_batches (tenant_id, id) values ($1, $2)")
        .bind(tenant.as_str())
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// [`batch_claim`], and then locks the existing wallets among `ids`, in id order, and reads them: one
/// round trip for both.
pub async fn claim_and_lock(
    connection: &mut Connection,
    tenant: &TenantId,
    id: Uuid,
    ids: &[&str],
    locking: Locking,
) -> Result<Locked> {
    // One look-up an id, in their order, which is the order of the locks. (With "id = any" a plan
    // made while the table is small reads all of a tenant's wallets.)
    macro_rules! statement {
        ($lock:literal) => {
            concat!(
                "with claimed as ( \
                     insert into command_batches (tenant_id, id) values ($1, $3) returning 1) \
                 select w.* from (select count(*) from claimed) as first \
                 cross join unnest($2::text[]) as wanted(id) cross join lateral ( \
                     select id, owner_id, currency, status, balance, held_balance, \
                         overdraft_limit, version, metadata, created_at, updated_at \
                     from wallets where tenant_id = $1 and id = wanted.id ",
                $lock,
                ") w"
            )
        };
    }
    let statement = match locking {
        Locking::Wait => statement!("for no key update"),
        Locking::Skip => statement!("for no key update skip locked"),
    };
    let statement = crate::seeded::statement(statement);
    let rows = sqlx::query(statement)
        .bind(tenant.as_str())
        .bind(ids)
        .bind(id)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| wallet_of(row).map(|wallet| (wallet.id.clone(), wallet))).collect()
}

/// Which of `ids` exist: tells a wallet that was skipped from one that is not there.
pub async fn wallets_existing(
    connection: &mut Connection,
    tenant: &TenantId,
    ids: &[&str],
) -> Result<Vec<WalletId>> {
    let found: Vec<String> = sqlx::query_scalar(
        "select id from unnest($2::text[]) as wanted(id) \
             where exists (select from wallets w where w.tenant_id = $1 and w.id = wanted.id)",
    )
    .bind(tenant.as_str())
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(found.iter().map(|id| WalletId::stored(id)).collect())
}

/// The database's time, read now that the wallets are locked, and the keys that are taken.
/// Looked up after the lock: a key's scope holds its wallet, so no twin can slip in between.
pub async fn keys_lookup(
    connection: &mut Connection,
    tenant: &TenantId,
    scopes: &[&[u8]],
) -> Result<(DateTime<Utc>, HashMap<Vec<u8>, KeyRow>)> {
    let rows = sqlx::query(
        "select date_trunc('milliseconds', clock_timestamp()) as now, \
                k.scope_hash, k.fingerprint, k.transaction_id, k.status, k.answer, k.version, \
                k.second_version \
         from (select 1) as always left join ( \
             unnest($2::bytea[]) as wanted(scope) cross join lateral ( \
                 select scope_hash, fingerprint, transaction_id, status, answer, version, \
                     second_version from idempotency_keys \
                 where tenant_id = $1 and scope_hash = wanted.scope limit 1) k) on true",
    )
    .bind(tenant.as_str())
    .bind(scopes)
    .fetch_all(connection)
    .await?;
    let first = rows.first().ok_or_else(|| Error::corrupt("no clock row"))?;
    let now = first.try_get("now")?;
    let mut taken = HashMap::new();
    for row in &rows {
        if let Some(scope) = row.try_get::<Option<Vec<u8>>, _>("scope_hash")? {
            taken.insert(scope, key_of(row)?);
        }
    }
    Ok((now, taken))
}

fn key_of(row: &PgRow) -> Result<KeyRow> {
    let status: Option<i16> = row.try_get("status")?;
    let status = status.and_then(|status| u16::try_from(status).ok());
    let version: Option<i64> = row.try_get("version")?;
    let kept = match (status, row.try_get("answer")?, version) {
        (Some(status), Some(body), _) => Kept::Text(status, body),
        (Some(_), None, Some(version)) => Kept::Versions(version, row.try_get("second_version")?),
        _ => Kept::Dropped,
    };
    Ok(KeyRow {
        fingerprint: row.try_get("fingerprint")?,
        transaction_id: row.try_get("transaction_id")?,
        kept,
    })
}

/// The wallets as these of their events left them. What no event changes is read from `wallets`
/// here, not taken from the rows locked before: a key may have come with a wallet of its own since.
pub async fn wallets_at(
    connection: &mut Connection,
    tenant: &TenantId,
    places: &[(&WalletId, i64)],
) -> Result<Past> {
    let rows = sqlx::query(
        "select w.*, e.version as event_version, e.event_type, e.payload::text as payload, \
             e.created_at as event_at \
         from unnest($2::text[], $3::bigint[]) as p(wallet_id, version) \
         cross join lateral (select version, event_type, payload, created_at from events \
             where tenant_id = $1 and wallet_id = p.wallet_id and version = p.version limit 1) e \
         cross join lateral (select id, owner_id, currency, status, balance, held_balance, \
                overdraft_limit, version, metadata, created_at, updated_at from wallets \
             where tenant_id = $1 and id = p.wallet_id limit 1) w",
    )
    .bind(tenant.as_str())
    .bind(places.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
    .bind(places.iter().map(|(_, version)| *version).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter().map(past_of).collect()
}

/// A success found its wallet active, and the event says what it left.
fn past_of(row: &PgRow) -> Result<((WalletId, i64), Wallet)> {
    let name: &str = row.try_get("event_type")?;
    let kind = EventType::parse(name).ok_or_else(|| Error::corrupt(format!("event {name}")))?;
    let data = EventData::from_json(kind, row.try_get("payload")?).map_err(Error::corrupt)?;
    let now = wallet_of(row)?;
    let past = Wallet {
        balance: now.currency.scaled(data.new_balance()),
        version: row.try_get("event_version")?,
        updated_at: row.try_get("event_at")?,
        status: Status::Active,
        ..now
    };
    Ok(((past.id.clone(), past.version), past))
}

/// A row of `wallets` or `wallets_read_model`.
pub(in crate::store) fn wallet_of(row: &PgRow) -> Result<Wallet> {
    let code: &str = row.try_get("currency")?;
    let currency =
        Currency::parse(code).ok_or_else(|| Error::corrupt(format!("currency {code}")))?;
    let status: &str = row.try_get("status")?;
    let metadata: Option<sqlx::types::Json<Box<serde_json::value::RawValue>>> =
        row.try_get("metadata")?;
    Ok(Wallet {
        id: WalletId::stored(row.try_get("id")?),
        owner_id: row.try_get("owner_id")?,
        currency,
        status: Status::parse(status).ok_or_else(|| Error::corrupt(format!("status {status}")))?,
        balance: currency.scaled(row.try_get("balance")?),
        held_balance: currency.scaled(row.try_get("held_balance")?),
        overdraft_limit: currency.scaled(row.try_get("overdraft_limit")?),
        version: row.try_get("version")?,
        metadata: metadata.map(|json| Metadata::stored(json.0)),
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
