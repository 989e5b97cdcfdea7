//! The first half of a batch: claim, lock, look up.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Locking, StoredKey, StoredKeys};
use crate::store::time::millis;
use crate::store::{Connection, Error, Result, server};
use crate::wallet::{
    Currency, EventBody, Features, Metadata, Status, TenantId, Upkeep, Wallet, WalletId, World,
};

/// What a batch begins with.
#[derive(Debug)]
pub struct BatchStart {
    /// The database's time, read under the locks.
    pub now: DateTime<Utc>,
    /// The server that the batch is written on: its postmaster's first moment, in microseconds. Another
    /// one, or one that was promoted, has another.
    pub server: i64,
    /// What was found, for each tenant that has something.
    pub tenants: HashMap<TenantId, Loaded>,
}

/// Where a key is looked for: its tenant, its scope, and the time that it names, if it names one.
pub type KeyPlace<'a> = (&'a TenantId, &'a [u8], Option<DateTime<Utc>>);

/// What was found of one tenant.
#[derive(Debug, Default)]
pub struct Loaded {
    pub world: World,
    pub keys: StoredKeys,
}

/// Wallets as they were at some of their versions.
pub type WalletsAtVersion = HashMap<(TenantId, WalletId, i64), Wallet>;

/// The batch's first statement. A unique violation of `command_batches_pkey` says that a batch of
/// this id has committed; while one of this id is in doubt, the statement waits for it.
pub async fn batch_claim(connection: &mut Connection, id: Uuid) -> Result<()> {
    sqlx::query("insert into command_batches (id) values ($1)")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// [`batch_claim`]; then locks the existing wallets among `wallets`, in their order, and reads them;
/// then reads the clock and the keys that are taken: one round trip for all of it.
///
/// The parts run in this order, so the clock is read under the locks. The keys are read as of the
/// statement's begin: a twin that commits while a wallet is waited for is not seen, and meets the
/// key's unique index instead, which has the batch run again. A key that names its time is looked for where such
/// keys lie; one that may have been stored before they did, where all others are, too. Whatever else a command needs is read
/// by statements after this one, under the locks.
///
/// A first answer that is older than `answers` is told as dropped: no key is written again to forget it.
pub async fn batch_start(
    connection: &mut Connection,
    id: Uuid,
    wallets: &[(&TenantId, &WalletId)],
    keys: &[KeyPlace<'_>],
    answers: Duration,
    locking: Locking,
) -> Result<BatchStart> {
    // One look-up an id, in their order, which is the order of the locks. (With "id = any" a plan
    // made while the table is small reads all of a tenant's wallets, or all of its keys.)
    macro_rules! statement {
        ($lock:literal) => {
            concat!(
                "with claimed as (insert into command_batches (id) values ($1) returning 1) \
                 select w.*, null::timestamptz as now, null::bytea as scope_hash, \
                     null::bytea as fingerprint, null::uuid as transaction_id, \
                     null::int2 as key_status, null::text as answer, null::int8 as key_version, \
                     null::int8[] as other_versions, null::text as key_wallet_id, \
                     null::int8 as server \
                 from (select count(*) from claimed) as first \
                 cross join unnest($2::text[], $3::text[]) as wanted(tenant_id, id) \
                 cross join lateral ( \
                     select tenant_id, id, owner_id, currency, status, balance, held_balance, \
                         overdraft_limit, version, metadata, created_at, updated_at, features, \
                         next_due_at \
                     from wallets where tenant_id = wanted.tenant_id and id = wanted.id ",
                $lock,
                ") w \
                 union all \
                 select k.tenant_id, null, null, null, null, null, null, null, null, null, null, \
                     null, null, null, date_trunc('milliseconds', clock_timestamp()), k.scope_hash, \
                     k.fingerprint, k.transaction_id, case when k.created_at >= clock_timestamp() \
                         - $6 * interval '1 ms' then k.status end, k.answer, k.version, \
                     k.other_versions, k.wallet_id, ",
                server!(),
                " from (select 1) as always left join ( \
                     unnest($4::text[], $5::bytea[], $7::timestamptz[]) \
                         as wanted(tenant, scope, keyed_at) cross join lateral ( \
                         (select tenant_id, scope_hash, fingerprint, transaction_id, status, answer, \
                             version, other_versions, wallet_id, created_at from idempotency_keys \
                         where keyed_at = coalesce(wanted.keyed_at, '-infinity') \
                             and tenant_id = wanted.tenant and scope_hash = wanted.scope limit 1) \
                         union all \
                         (select tenant_id, scope_hash, fingerprint, transaction_id, status, answer, \
                             version, other_versions, wallet_id, created_at from idempotency_keys \
                         where wanted.keyed_at < keys_were_unsorted_before() \
                             and keyed_at = '-infinity' \
                             and tenant_id = wanted.tenant and scope_hash = wanted.scope limit 1) \
                         limit 1) k) on true"
            )
        };
    }
    let statement = match locking {
        Locking::Wait => statement!("for no key update"),
        Locking::Skip => statement!("for no key update skip locked"),
    };
    let rows = sqlx::query(statement)
        .bind(id)
        .bind(wallets.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
        .bind(wallets.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(tenant, ..)| tenant.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, scope, _)| *scope).collect::<Vec<_>>())
        .bind(millis(answers))
        .bind(keys.iter().map(|(.., keyed_at)| *keyed_at).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    started(&rows)
}

fn started(rows: &[PgRow]) -> Result<BatchStart> {
    // Every batch has a row with the clock, with or without a key; wallets come before it.
    let clock = rows.last().ok_or_else(|| Error::corrupt("no clock row"))?;
    let now = clock.try_get("now")?;
    let (mut wallets, mut tenants) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Loaded>::new());
    for row in rows {
        let Some(tenant) = row.try_get::<Option<&str>, _>("tenant_id")? else { continue };
        let tenant = TenantId::stored(tenant);
        match row.try_get::<Option<Vec<u8>>, _>("scope_hash")? {
            None => {
                let features = Features(row.try_get("features")?);
                let upkeep = Upkeep { features, next_due_at: row.try_get("next_due_at")? };
                wallets.entry(tenant).or_default().push(Wallet { upkeep, ..wallet_of(row)? });
            }
            Some(scope) => {
                tenants.entry(tenant).or_default().keys.insert(scope, StoredKey::of(row)?);
            }
        }
    }
    for (tenant, wallets) in wallets {
        tenants.entry(tenant).or_default().world = World::new(now, wallets);
    }
    Ok(BatchStart { now, server: clock.try_get("server")?, tenants })
}

/// Which of `wallets` exist: tells a wallet that was skipped from one that is not there.
pub async fn wallets_existing(
    connection: &mut Connection,
    wallets: &[(&TenantId, &WalletId)],
) -> Result<Vec<(TenantId, WalletId)>> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "select tenant_id, id from unnest($1::text[], $2::text[]) as wanted(tenant_id, id) \
         where exists (select from wallets w \
             where w.tenant_id = wanted.tenant_id and w.id = wanted.id)",
    )
    .bind(wallets.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
    .bind(wallets.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let named = |(tenant, id): &(String, String)| (TenantId::stored(tenant), WalletId::stored(id));
    Ok(found.iter().map(named).collect())
}

/// The wallets as these of their events left them, from events alone: from the one that opened the
/// wallet and the one that is meant.
pub async fn wallets_at(
    connection: &mut Connection,
    versions: &[(TenantId, WalletId, i64)],
) -> Result<WalletsAtVersion> {
    let rows: Vec<PastRow> = sqlx::query_as(
        "select p.tenant_id, p.wallet_id, e.version, e.event_type, e.schema_version, e.payload, e.created_at, \
             o.event_type as opening_type, o.schema_version as opening_schema_version, \
             o.payload as opening_payload, o.created_at as opened_at \
         from unnest($1::text[], $2::text[], $3::int8[]) as p(tenant_id, wallet_id, version) \
         cross join lateral (select version, event_type, schema_version, payload::text as payload, \
                 created_at from events \
             where tenant_id = p.tenant_id and wallet_id = p.wallet_id and version = p.version limit 1) e \
         cross join lateral (select event_type, schema_version, payload::text as payload, \
                 created_at from events \
             where tenant_id = p.tenant_id and wallet_id = p.wallet_id and version = 1 limit 1) o",
    )
    .bind(versions.iter().map(|(tenant, ..)| tenant.as_str()).collect::<Vec<_>>())
    .bind(versions.iter().map(|(_, id, _)| id.as_str()).collect::<Vec<_>>())
    .bind(versions.iter().map(|(.., version)| *version).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(PastRow::wallet).collect()
}

/// An event and the one that opened its wallet.
#[derive(sqlx::FromRow)]
struct PastRow {
    tenant_id: String,
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
    /// The wallet as the event left it, with its tenant, id and version.
    fn wallet(self) -> Result<((TenantId, WalletId, i64), Wallet)> {
        let (kind, version) = (&self.opening_type, self.opening_schema_version);
        let opening = EventBody::from_data(kind, version, &self.opening_payload);
        let opening = opening.map_err(Error::corrupt)?;
        let id = WalletId::stored(&self.wallet_id);
        let mut wallet = Wallet::opened(id.clone(), &opening, self.opened_at)
            .ok_or_else(|| Error::corrupt(format!("the first event of {id} opens no wallet")))?;
        if self.version > 1 {
            let (kind, version) = (&self.event_type, self.schema_version);
            let body = EventBody::from_data(kind, version, &self.payload);
            wallet.apply(self.version, &body.map_err(Error::corrupt)?, self.created_at);
        }
        Ok(((TenantId::stored(&self.tenant_id), id, self.version), wallet))
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
        upkeep: Upkeep::default(),
    })
}
