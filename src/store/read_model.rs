//! The wallets as lists show them: written by the read-model projector, read by HTTP.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use sqlx::{Postgres, QueryBuilder};

use super::{Connection, Error, Result};
use crate::wallet::{Currency, Metadata, Status, TenantId, Upkeep, Wallet, WalletId, WalletState};

/// What some events left of a wallet that is in the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub version: i64,
    pub after: WalletState,
    /// None: they are as they were.
    pub metadata: Option<Option<Metadata>>,
    pub updated_at: DateTime<Utc>,
    /// Where its row lies, which is locked.
    pub place: String,
}

/// Which wallets, newest first. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct WalletFilter {
    pub owner_id: Option<String>,
    pub currency: Option<Currency>,
    pub status: Option<Status>,
    /// Members of the metadata and the text that each must have.
    pub metadata: Vec<(String, String)>,
    pub limit: i64,
    /// The last wallet of the page before: its time of creation and id.
    pub after: Option<(DateTime<Utc>, WalletId)>,
}

#[derive(sqlx::FromRow)]
struct Stored {
    id: String,
    owner_id: String,
    currency: String,
    status: String,
    balance: Decimal,
    held_balance: Decimal,
    overdraft_limit: Decimal,
    version: i64,
    metadata: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// Writes wallets that were opened, as they stand by now. They have no row, or one of which nothing counts:
/// where there is another, it came meanwhile, and this transaction knows nothing of it.
pub async fn open(connection: &mut Connection, opened: &[(TenantId, Wallet)]) -> Result<()> {
    let wallets: Vec<&Wallet> = opened.iter().map(|(_, wallet)| wallet).collect();
    let done = sqlx::query(
        "insert into wallets_read_model (tenant_id, id, owner_id, currency, status, balance, \
             held_balance, overdraft_limit, version, metadata, created_at, updated_at) \
         select w.* from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], \
             $6::numeric[], $7::numeric[], $8::numeric[], $9::bigint[], $10::json[], \
             $11::timestamptz[], $12::timestamptz[]) w \
         on conflict (tenant_id, id) do update set owner_id = excluded.owner_id, \
             currency = excluded.currency, status = excluded.status, \
             balance = excluded.balance, held_balance = excluded.held_balance, \
             overdraft_limit = excluded.overdraft_limit, version = excluded.version, \
             metadata = excluded.metadata, created_at = excluded.created_at, \
             updated_at = excluded.updated_at \
             where wallets_read_model.version = 0",
    )
    .bind(opened.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.id.as_str()).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.owner_id.as_str()).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.currency.code()).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.status.as_str()).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.balance).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.held_balance).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.overdraft_limit).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.version).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.metadata.as_ref().map(Metadata::as_str)).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.created_at).collect::<Vec<_>>())
    .bind(wallets.iter().map(|w| w.updated_at).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    match usize::try_from(done.rows_affected()) {
        Ok(written) if written == opened.len() => Ok(()),
        _ => Err(Error::overtaken("another transaction has opened a wallet in the read model")),
    }
}

/// Writes what changed of wallets whose rows are locked. They are found by their places: the lock has looked
/// them up already. (A place is text no longer where it is compared: under row-level security Postgres looks
/// rows up by a bare comparison only, and would read the table for each of them.)
pub async fn change(connection: &mut Connection, changes: &[Change]) -> Result<()> {
    let done = sqlx::query(
        "update wallets_read_model w set balance = c.balance, held_balance = c.held_balance, \
             overdraft_limit = coalesce(c.overdraft_limit, w.overdraft_limit), \
             status = c.status, version = c.version, \
             metadata = case when c.has_metadata then c.metadata else w.metadata end, \
             updated_at = greatest(w.updated_at, c.updated_at) \
         from unnest($1::text[]::tid[], $2::bigint[], $3::timestamptz[], $4::numeric[], $5::numeric[], \
                 $6::numeric[], $7::text[], $8::bool[], $9::json[]) c(place, version, updated_at, \
             balance, held_balance, overdraft_limit, status, has_metadata, metadata) \
         where w.ctid = c.place",
    )
    .bind(changes.iter().map(|c| c.place.as_str()).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.version).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.updated_at).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.after.balance).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.after.held_balance).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.after.overdraft_limit()).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.after.status.as_str()).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.metadata.is_some()).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.metadata.as_ref()?.as_ref().map(Metadata::as_str)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    match usize::try_from(done.rows_affected()) {
        Ok(written) if written == changes.len() => Ok(()),
        _ => Err(Error::overtaken("a wallet's row in the read model could not be changed")),
    }
}

/// A page of wallets, newest first.
pub async fn list(
    connection: &mut Connection,
    tenant: &TenantId,
    filter: &WalletFilter,
) -> Result<Vec<Wallet>> {
    // What few wallets have leads, in the order of the page; the rest is held against what it leads to.
    let term = match filter.owner_id {
        None => rarest(connection, tenant, &filter.metadata).await?,
        Some(_) => None,
    };
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(
        "select w.id, w.owner_id, w.currency, w.status, w.balance, w.held_balance, \
         w.overdraft_limit, w.version, w.metadata::text as metadata, w.created_at, w.updated_at from ",
    );
    match term {
        None => query.push("wallets_read_model w where w.tenant_id = ").push_bind(tenant.as_str()),
        Some((key, value)) => query
            .push(
                "wallet_terms t cross join lateral (select * from wallets_read_model w \
                 where w.tenant_id = t.tenant_id and w.id = t.wallet_id limit 1) w \
                 where t.tenant_id = ",
            )
            .push_bind(tenant.as_str())
            .push(" and t.term = ")
            .push_bind(term_of(key, value)),
    };
    if let Some(owner) = &filter.owner_id {
        query.push(" and w.owner_id = ").push_bind(owner);
    }
    if let Some(currency) = filter.currency {
        query.push(" and w.currency = ").push_bind(currency.code());
    }
    if let Some(status) = filter.status {
        query.push(" and w.status = ").push_bind(status.as_str());
    }
    for (key, value) in &filter.metadata {
        query.push(" and w.metadata ->> ").push_bind(key).push(" = ").push_bind(value);
    }
    let place = match term {
        None => "(w.created_at, w.id)",
        Some(_) => "(t.created_at, t.wallet_id)",
    };
    if let Some((created_at, id)) = &filter.after {
        query.push(" and ").push(place).push(" < (").push_bind(created_at);
        query.push(", ").push_bind(id.as_str()).push(")");
    }
    query.push(match term {
        None => " order by w.created_at desc, w.id desc limit ",
        Some(_) => " order by t.created_at desc, t.wallet_id desc limit ",
    });
    query.push_bind(filter.limit);
    // Planned each time: which index leads best is known from what the table holds by now.
    let rows: Vec<Stored> = query.build_query_as().persistent(false).fetch_all(connection).await?;
    rows.into_iter().map(Stored::wallet).collect()
}

/// The member of metadata that the fewest wallets have.
async fn rarest<'m>(
    connection: &mut Connection,
    tenant: &TenantId,
    metadata: &'m [(String, String)],
) -> Result<Option<&'m (String, String)>> {
    if metadata.len() < 2 {
        return Ok(metadata.first());
    }
    let terms: Vec<i64> = metadata.iter().map(|(key, value)| term_of(key, value)).collect();
    // Counted no further than it helps.
    let place: i64 = sqlx::query_scalar(
        "select t.place from unnest($2::bigint[]) with ordinality t(term, place) \
         cross join lateral (select count(*) as wallets from (select from wallet_terms w \
             where w.tenant_id = $1 and w.term = t.term order by w.created_at limit 1000) w) n \
         order by n.wallets, t.place limit 1",
    )
    .bind(tenant.as_str())
    .bind(terms)
    .fetch_one(connection)
    .await?;
    // Counted from one.
    Ok(usize::try_from(place - 1).ok().and_then(|place| metadata.get(place)))
}

/// A member of metadata as `wallet_terms` has it.
fn term_of(key: &str, value: &str) -> i64 {
    let digest = Sha256::digest(format!("{key}={value}"));
    digest.first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}

impl Stored {
    fn wallet(self) -> Result<Wallet> {
        let unknown = |what: &str| Error::corrupt(format!("read model, {}: {what}", self.id));
        let currency = Currency::parse(&self.currency).ok_or_else(|| unknown("currency"))?;
        let status = Status::parse(&self.status).ok_or_else(|| unknown("status"))?;
        let metadata = match self.metadata.map(RawValue::from_string).transpose() {
            Ok(raw) => raw.map(Metadata::stored),
            Err(error) => return Err(Error::corrupt(error)),
        };
        Ok(Wallet {
            id: WalletId::stored(&self.id),
            owner_id: self.owner_id,
            currency,
            status,
            balance: currency.scaled(self.balance),
            held_balance: currency.scaled(self.held_balance),
            overdraft_limit: currency.scaled(self.overdraft_limit),
            version: self.version,
            metadata,
            created_at: self.created_at,
            updated_at: self.updated_at,
            upkeep: Upkeep::default(),
        })
    }
}
