//! The ledger: postings, added by the ledger projector, and read by HTTP as the wallets' entries. Never
//! changed, never deleted. People see both entries of each in the view `ledger_entries`.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::value::RawValue;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::checkpoints::Subscription;
use super::{Connection, Error, Result, columns};
use crate::ledger::{Posting, Side, TransactionType};
use crate::wallet::{Currency, Event, Metadata, TenantId, WalletId, WalletKey};

/// A wallet's own side of one event, as callers read it. Amounts are in the currency's scale.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryRow {
    pub id: Uuid,
    pub wallet_id: String,
    pub transaction_type: TransactionType,
    pub side: Side,
    pub amount: Decimal,
    pub balance_before: Decimal,
    pub balance_after: Decimal,
    pub currency: Currency,
    pub description: Option<String>,
    pub reference_id: String,
    pub related_wallet_id: Option<String>,
    pub metadata: Option<Metadata>,
    pub event_id: Uuid,
    pub version: i64,
    pub created_at: DateTime<Utc>,
    pub grant_id: Option<Uuid>,
    pub hold_id: Option<Uuid>,
    pub effective_at: Option<DateTime<Utc>>,
    pub reverses: Option<Uuid>,
}

/// Which entries, newest first. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct EntryFilter {
    pub transaction_type: Option<TransactionType>,
    /// From this moment on.
    pub start: Option<DateTime<Utc>>,
    /// Up to and with this moment.
    pub end: Option<DateTime<Utc>>,
    pub reference: Option<String>,
    pub currency: Option<Currency>,
    /// At least and at most: both the same, exactly this one.
    pub least: Option<Decimal>,
    pub most: Option<Decimal>,
    pub limit: i64,
    pub offset: i64,
}

/// The last entry of a page over all wallets; the next page goes on behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryCursor {
    pub created_at: DateTime<Utc>,
    pub event_id: Uuid,
}

/// A wallet's totals. Decimal text in the currency's scale: sums may have more digits than a
/// `Decimal` holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub total_credits: String,
    pub total_debits: String,
    pub transaction_count: i64,
    pub last: Option<EntryRow>,
}

#[derive(sqlx::FromRow)]
struct Stored {
    id: Uuid,
    wallet_id: String,
    transaction_type: String,
    side: String,
    amount: Decimal,
    currency: String,
    balance_before: Decimal,
    balance_after: Decimal,
    description: Option<String>,
    reference_id: String,
    related_wallet_id: Option<String>,
    metadata: Option<String>,
    event_id: Uuid,
    version: i64,
    created_at: DateTime<Utc>,
    grant_id: Option<Uuid>,
    hold_id: Option<Uuid>,
    effective_at: Option<DateTime<Utc>>,
    reverses: Option<Uuid>,
}

const COLUMNS: &str = "id, wallet_id, transaction_type, side, amount, currency, balance_before, \
    balance_after, description, reference_id, related_wallet_id, metadata::text as metadata, \
    event_id, version, created_at, grant_id, hold_id, effective_at, reverses";
const NEWEST_FIRST: &str = " order by created_at desc, event_id desc";
const OF_TENANT: &str = " from postings where tenant_id = ";

/// Adds postings. Those of an event that is in the books already are left as they are: its month's unique index
/// has them, and no index of the whole table.
pub async fn insert(connection: &mut Connection, postings: &[(&Event, Posting)]) -> Result<()> {
    sqlx::query(
        "insert into postings (tenant_id, wallet_id, version, pair, id, event_id, transaction_id, \
             created_at, transaction_type, side, amount, currency, counter_account, \
             related_wallet_id, balance_before, balance_after, reference_id, description, metadata, \
             grant_id, hold_id, effective_at, reverses) \
         select p.* from unnest($1::text[], $2::text[], $3::bigint[], $4::smallint[], $5::uuid[], \
             $6::uuid[], $7::uuid[], $8::timestamptz[], $9::text[], $10::text[], $11::numeric[], \
             $12::text[], $13::text[], $14::text[], $15::numeric[], $16::numeric[], $17::text[], \
             $18::text[], $19::json[], $20::uuid[], $21::uuid[], $22::timestamptz[], $23::uuid[]) p \
         on conflict do nothing",
    )
    .bind(postings.iter().map(|(e, _)| e.tenant.as_str()).collect::<Vec<_>>())
    .bind(postings.iter().map(|(e, _)| e.wallet_id.as_str()).collect::<Vec<_>>())
    .bind(postings.iter().map(|(e, _)| e.version).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.pair).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.id).collect::<Vec<_>>())
    .bind(postings.iter().map(|(e, _)| e.event_id).collect::<Vec<_>>())
    .bind(postings.iter().map(|(e, _)| e.transaction_id).collect::<Vec<_>>())
    .bind(postings.iter().map(|(e, _)| e.created_at).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.transaction_type.as_str()).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.side.as_str()).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.amount).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.currency).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.counter_account.as_str()).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.related_wallet_id.as_deref()).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.balance_before).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.balance_after).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.reference_id.as_str()).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.description.as_deref()).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.metadata.as_ref().map(Metadata::as_str)).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.grant_id).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.hold_id).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.effective_at).collect::<Vec<_>>())
    .bind(postings.iter().map(|(_, p)| p.reverses).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// A page of one wallet's entries, newest first, of versions below `before`.
pub async fn of_wallet(
    connection: &mut Connection,
    tenant: &TenantId,
    wallet: &WalletId,
    filter: &EntryFilter,
    before: Option<i64>,
) -> Result<Vec<EntryRow>> {
    let mut query = filtered(tenant, filter);
    query.push(" and wallet_id = ").push_bind(wallet.as_str());
    if let Some(version) = before {
        query.push(" and version < ").push_bind(version);
    }
    page(connection, query, " order by version desc, pair desc", filter).await
}

/// A page of all wallets' entries, newest first, behind `after`.
pub async fn of_all(
    connection: &mut Connection,
    tenant: &TenantId,
    filter: &EntryFilter,
    after: Option<EntryCursor>,
) -> Result<Vec<EntryRow>> {
    let mut query = filtered(tenant, filter);
    behind(&mut query, after);
    page(connection, query, NEWEST_FIRST, filter).await
}

/// A page of the entries that share a reference, newest first, behind `after`: both sides of a
/// transfer among them.
pub async fn of_reference(
    connection: &mut Connection,
    tenant: &TenantId,
    reference: &str,
    limit: i64,
    after: Option<EntryCursor>,
) -> Result<Vec<EntryRow>> {
    // `offset 0` keeps the order outside: planned in one, the newest entries of all wallets would
    // be walked until enough of the reference are found, which old ones may never be.
    let mut query = QueryBuilder::new("select ");
    query.push(COLUMNS).push(" from (select *").push(OF_TENANT).push_bind(tenant.as_str());
    query.push(" and reference_id = ").push_bind(reference);
    behind(&mut query, after);
    query.push(" offset 0) as found");
    let filter = EntryFilter { limit, ..EntryFilter::default() };
    page(connection, query, NEWEST_FIRST, &filter).await
}

/// Computes the totals of some wallets again, whose rows are locked, where they are behind the version: an
/// instance of an earlier version moved it alone, or an operator by hand. Adds what is missing, or all.
pub async fn total(
    connection: &mut Connection,
    of: &Subscription,
    wallets: &[WalletKey],
) -> Result<()> {
    let (tenants, ids) = columns(wallets);
    sqlx::query(
        "update projected_wallets v set totals_at = v.version, total_credits = t.credits, \
             total_debits = t.debits, transaction_count = t.entries \
         from unnest($1::text[], $3::text[]) wanted(tenant, id) cross join lateral ( \
             select case when p.totals_at <= p.version then p.totals_at end as upto, p.version, \
                 p.total_credits, p.total_debits, p.transaction_count \
             from projected_wallets p where p.tenant_id = wanted.tenant and p.projector = $2 \
               and p.wallet_id = wanted.id limit 1) p \
         cross join lateral ( \
             select case when p.upto is null then 0 else p.total_credits end \
                     + coalesce(sum(amount) filter (where side = 'CREDIT'), 0) as credits, \
                 case when p.upto is null then 0 else p.total_debits end \
                     + coalesce(sum(amount) filter (where side = 'DEBIT'), 0) as debits, \
                 case when p.upto is null then 0 else p.transaction_count end \
                     + count(*) as entries \
             from (select side, amount from postings \
                 where tenant_id = wanted.tenant and wallet_id = wanted.id \
                   and version > case when p.upto is null then 0 else p.upto end \
                   and version <= p.version \
                 order by version limit 1000000000) l) t \
         where v.tenant_id = wanted.tenant and v.projector = $2 and v.wallet_id = wanted.id",
    )
    .bind(tenants)
    .bind(of.projector)
    .bind(ids)
    .execute(connection)
    .await?;
    Ok(())
}

/// A wallet's totals; zeros where it has no entries. They are kept with the version that `projector` has
/// reached; only entries behind them are added up.
pub async fn summary(
    connection: &mut Connection,
    tenant: &TenantId,
    projector: &str,
    wallet: &WalletId,
) -> Result<Summary> {
    // In order and with a limit: a plan made while the ledger is small would read all of it once it is not.
    // No coalesce in a condition: under row-level security Postgres takes it for one that tells secrets, and
    // looks nothing up by it.
    let (credits, debits, count, currency): (String, String, i64, Option<String>) = sqlx::query_as(
        "select (coalesce(p.total_credits, 0) + t.credits)::text, \
             (coalesce(p.total_debits, 0) + t.debits)::text, \
             coalesce(p.transaction_count, 0) + t.entries, \
             (select currency from wallets where tenant_id = $1 and id = $2) \
         from (select 1) always left join lateral ( \
             select totals_at, total_credits, total_debits, transaction_count \
             from projected_wallets where tenant_id = $1 and projector = $3 \
               and wallet_id = $2 and totals_at <= version limit 1) p on true \
         cross join lateral (select coalesce(sum(amount) filter (where side = 'CREDIT'), 0) as credits, \
                 coalesce(sum(amount) filter (where side = 'DEBIT'), 0) as debits, \
                 count(*) as entries \
             from (select side, amount from postings \
                 where tenant_id = $1 and wallet_id = $2 and version > case when p.totals_at is null then 0 else p.totals_at end \
                 order by version limit 1000000000) l) t",
    )
    .bind(tenant.as_str())
    .bind(wallet.as_str())
    .bind(projector)
    .fetch_one(&mut *connection)
    .await?;
    let scale = currency.as_deref().and_then(Currency::parse).unwrap_or(Currency::USD).scale();
    let newest = EntryFilter { limit: 1, ..EntryFilter::default() };
    let last = of_wallet(connection, tenant, wallet, &newest, None).await?.pop();
    Ok(Summary {
        total_credits: scaled_text(&credits, scale),
        total_debits: scaled_text(&debits, scale),
        transaction_count: count,
        last,
    })
}

/// The last version of a wallet that a projector has applied; 0 where it has applied none.
pub async fn projected_version(
    connection: &mut Connection,
    tenant: &TenantId,
    projector: &str,
    wallet: &WalletId,
) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "select coalesce(max(version), 0) from projected_versions \
         where tenant_id = $1 and projector = $2 and wallet_id = $3",
    )
    .bind(tenant.as_str())
    .bind(projector)
    .bind(wallet.as_str())
    .fetch_one(connection)
    .await?)
}

// The conditions are spelled out only where they are set: one statement for all of them would get
// one plan for all of them.
fn filtered(tenant: &TenantId, filter: &EntryFilter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("select ");
    query.push(COLUMNS).push(OF_TENANT).push_bind(tenant.as_str().to_owned());
    if let Some(kind) = filter.transaction_type {
        query.push(" and transaction_type = ").push_bind(kind.as_str());
    }
    if let Some(start) = filter.start {
        query.push(" and created_at >= ").push_bind(start);
    }
    if let Some(end) = filter.end {
        query.push(" and created_at <= ").push_bind(end);
    }
    if let Some(reference) = &filter.reference {
        query.push(" and reference_id = ").push_bind(reference.clone());
    }
    if let Some(currency) = filter.currency {
        query.push(" and currency = ").push_bind(currency.code());
    }
    match (filter.least, filter.most) {
        (Some(least), Some(most)) if least == most => {
            _ = query.push(" and amount = ").push_bind(least)
        }
        (least, most) => {
            if let Some(least) = least {
                query.push(" and amount >= ").push_bind(least);
            }
            if let Some(most) = most {
                query.push(" and amount <= ").push_bind(most);
            }
        }
    }
    query
}

/// Behind the last entry of the former page.
fn behind(query: &mut QueryBuilder<Postgres>, after: Option<EntryCursor>) {
    if let Some(cursor) = after {
        query.push(" and (created_at, event_id) < (").push_bind(cursor.created_at);
        query.push(", ").push_bind(cursor.event_id).push(")");
    }
}

async fn page(
    connection: &mut Connection,
    mut query: QueryBuilder<Postgres>,
    order: &'static str,
    filter: &EntryFilter,
) -> Result<Vec<EntryRow>> {
    query.push(order).push(" limit ").push_bind(filter.limit);
    query.push(" offset ").push_bind(filter.offset);
    // Planned each time: which index leads best is known from what the table holds by now.
    let rows: Vec<Stored> = query.build_query_as().persistent(false).fetch_all(connection).await?;
    rows.into_iter().map(Stored::entry).collect()
}

impl Stored {
    fn entry(self) -> Result<EntryRow> {
        let unknown = |what: &str| Error::corrupt(format!("entry {}: {what}", self.id));
        let currency = Currency::parse(&self.currency).ok_or_else(|| unknown("currency"))?;
        let transaction_type =
            TransactionType::parse(&self.transaction_type).ok_or_else(|| unknown("type"))?;
        let metadata = match self.metadata.map(RawValue::from_string).transpose() {
            Ok(raw) => raw.map(Metadata::stored),
            Err(error) => return Err(Error::corrupt(error)),
        };
        Ok(EntryRow {
            id: self.id,
            wallet_id: self.wallet_id,
            transaction_type,
            side: if self.side == "CREDIT" { Side::Credit } else { Side::Debit },
            amount: currency.scaled(self.amount),
            balance_before: currency.scaled(self.balance_before),
            balance_after: currency.scaled(self.balance_after),
            currency,
            description: self.description,
            reference_id: self.reference_id,
            related_wallet_id: self.related_wallet_id,
            metadata,
            event_id: self.event_id,
            version: self.version,
            created_at: self.created_at,
            grant_id: self.grant_id,
            hold_id: self.hold_id,
            effective_at: self.effective_at,
            reverses: self.reverses,
        })
    }
}

/// Decimal text with exactly `scale` decimals. Only zeros are ever cut off.
fn scaled_text(text: &str, scale: u32) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    if scale == 0 && fraction.is_empty() {
        return whole.to_owned();
    }
    format!("{whole}.{fraction:0<scale$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_any_size_are_printed_in_the_currencys_scale() {
        assert_eq!(scaled_text("0", 2), "0.00");
        assert_eq!(scaled_text("12.50000000", 2), "12.50");
        assert_eq!(scaled_text("1200.00000000", 0), "1200");
        let long = "123456789012345678901234567890.12300000";
        assert_eq!(scaled_text(long, 3), "123456789012345678901234567890.123");
    }
}
