//! The first half of a batch: claim, lock, look up.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::Locking;
use crate::store::{Connection, Error, Result, server};
use crate::wallet::{Currency, EventBody, Metadata, Status, TenantId, Wallet, WalletId};

/// The wallets of a batch as they stand under lock.
pub type Locked = HashMap<WalletId, Wallet>;

/// Keys that are taken, by scope.
pub type Taken = HashMap<Vec<u8>, KeyRow>;

/// What a batch begins with.
#[derive(Debug)]
pub struct Begun {
    pub wallets: Locked,
    /// The database's time, read under the locks.
    pub now: DateTime<Utc>,
    pub taken: Taken,
    /// The server that the batch is written on: its postmaster's first moment, in microseconds. Another
    /// one, or one that was promoted, has another.
    pub server: i64,
}

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

/// [`batch_claim`]; then locks the existing wallets among `ids`, in id order, and reads them; then reads
/// the clock and the keys that are taken: one round trip for all of it.
///
/// The parts run in this order, so the clock is read under the locks. The keys are read as of the
/// statement's begin: a twin that commits while a wallet is waited for is not seen, and meets the
/// key's unique index instead, which has the batch run again.
pub async fn claim_and_read(
    connection: &mut Connection,
    tenant: &TenantId,
    id: Uuid,
    ids: &[&str],
    scopes: &[&[u8]],
    locking: Locking,
) -> Result<Begun> {
    // One look-up an id, in their order, which is the order of the locks. (With "id = any" a plan
    // made while the table is small reads all of a tenant's wallets, or all of its keys.)
    macro_rules! statement {
        ($lock:literal) => {
            concat!(
                "with claimed as ( \
                     insert into command_batches (tenant_id, id) values ($1, $3) returning 1) \
                 select w.*, null::timestamptz as now, null::bytea as scope_hash, \
                     null::bytea as fingerprint, null::uuid as transaction_id, \
                     null::int2 as key_status, null::text as answer, null::int8 as key_version, \
                     null::int8 as second_version, null::int8 as server \
                 from (select count(*) from claimed) as first \
                 cross join unnest($2::text[]) as wanted(id) cross join lateral ( \
                     select id, owner_id, currency, status, balance, held_balance, \
                         overdraft_limit, version, metadata, created_at, updated_at \
                     from wallets where tenant_id = $1 and id = wanted.id ",
                $lock,
                ") w \
                 union all \
                 select null, null, null, null, null, null, null, null, null, null, null, \
                     date_trunc('milliseconds', clock_timestamp()), k.*, ",
                server!(),
                " from (select 1) as always left join ( \
                     unnest($4::bytea[]) as wanted(scope) cross join lateral ( \
                         select scope_hash, fingerprint, transaction_id, status, answer, version, \
                             second_version from idempotency_keys \
                         where tenant_id = $1 and scope_hash = wanted.scope limit 1) k) on true"
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
        .bind(scopes)
        .fetch_all(connection)
        .await?;
    let (mut wallets, mut taken, mut now) = (Locked::new(), Taken::new(), None);
    let mut server = 0;
    for row in &rows {
        let Some(at) = row.try_get("now")? else {
            let wallet = wallet_of(row)?;
            wallets.insert(wallet.id.clone(), wallet);
            continue;
        };
        now = Some(at);
        server = row.try_get("server")?;
        if let Some(scope) = row.try_get::<Option<Vec<u8>>, _>("scope_hash")? {
            taken.insert(scope, key_of(row)?);
        }
    }
    let now = now.ok_or_else(|| Error::corrupt("no clock row"))?;
    Ok(Begun { wallets, now, taken, server })
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

fn key_of(row: &PgRow) -> Result<KeyRow> {
    let status: Option<i16> = row.try_get("key_status")?;
    let status = status.and_then(|status| u16::try_from(status).ok());
    let version: Option<i64> = row.try_get("key_version")?;
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

/// The wallets as these of their events left them, from events alone: from the one that opened the
/// wallet and the one that is meant.
pub async fn wallets_at(
    connection: &mut Connection,
    tenant: &TenantId,
    places: &[(&WalletId, i64)],
) -> Result<Past> {
    let rows: Vec<PastRow> = sqlx::query_as(
        "select p.wallet_id, e.version, e.event_type, e.schema_version, e.payload, e.created_at, \
             o.event_type as opening_type, o.schema_version as opening_schema_version, \
             o.payload as opening_payload, o.created_at as opened_at \
         from unnest($2::text[], $3::bigint[]) as p(wallet_id, version) \
         cross join lateral (select version, event_type, schema_version, payload::text as payload, \
                 created_at from events \
             where tenant_id = $1 and wallet_id = p.wallet_id and version = p.version limit 1) e \
         cross join lateral (select event_type, schema_version, payload::text as payload, \
                 created_at from events \
             where tenant_id = $1 and wallet_id = p.wallet_id and version = 1 limit 1) o",
    )
    .bind(tenant.as_str())
    .bind(places.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
    .bind(places.iter().map(|(_, version)| *version).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(PastRow::wallet).collect()
}

/// An event and the one that opened its wallet.
#[derive(sqlx::FromRow)]
struct PastRow {
    wallet_id: String,
    version: i64,
    event_type: String,
    schema_version: i16,
    payload: String,
    created_at: DateTime<Utc>,
    opening_type: String,
    opening_schema_version: i16,
    opening_payload: String,
    opened_at: DateTime<Utc>,
}

impl PastRow {
    /// The wallet as the event left it, with its id and version.
    fn wallet(self) -> Result<((WalletId, i64), Wallet)> {
        let (kind, version) = (&self.opening_type, self.opening_schema_version);
        let opening = EventBody::from_data(kind, version, &self.opening_payload);
        let opening = opening.map_err(Error::corrupt)?;
        let id = WalletId::stored(&self.wallet_id);
        let mut wallet = Wallet::opened(id.clone(), &opening, self.opened_at)
            .ok_or_else(|| Error::corrupt(format!("the first event of {id} opens no wallet")))?;
        if self.version > 1 {
            let (kind, version) = (&self.event_type, self.schema_version);
            let body = EventBody::from_data(kind, version, &self.payload);
            wallet.apply(self.version, &body.map_err(Error::corrupt)?.after, self.created_at);
        }
        Ok(((id, self.version), wallet))
    }
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
