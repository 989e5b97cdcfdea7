//! What commands need beside their wallets. Read by a statement after the one that locks these: that
//! one's snapshot is older than its locks, and would show holds as they were before the last command.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::store::{Connection, Error, Result};
use crate::wallet::{
    ClosedBy, Currency, DUE_MAX, Further, Hold, HoldBrief, HoldStatus, Metadata, TenantId, WalletId,
};

/// What is to be read.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// Holds that commands name.
    pub holds: Vec<(&'a TenantId, Uuid)>,
    /// Wallets that something may be due on: their holds that are due at `until`, and when the next
    /// falls due.
    pub due: Vec<(&'a TenantId, &'a WalletId)>,
    pub until: DateTime<Utc>,
    /// Wallets whose open holds are to be counted.
    pub counted: Vec<(&'a TenantId, &'a WalletId)>,
    /// Wallets whose largest open holds explain a refusal.
    pub largest: Vec<(&'a TenantId, &'a WalletId)>,
}

impl Wanted<'_> {
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
            && self.due.is_empty()
            && self.counted.is_empty()
            && self.largest.is_empty()
    }
}

/// The columns of a hold.
macro_rules! hold_columns {
    () => {
        "tenant_id, id, wallet_id, currency, amount, max_capture, captured, released, status, \
         closed_by, expires_at, to_wallet_id, reserved::text as reserved, description, reference, \
         metadata::text as metadata, place_version, created_at, updated_at"
    };
}
pub(in crate::store) use hold_columns;

/// Reads it, by tenant. Must run in the transaction that has locked the wallets.
pub async fn batch_further(
    connection: &mut Connection,
    wanted: &Wanted<'_>,
) -> Result<HashMap<TenantId, Further>> {
    let mut found: HashMap<TenantId, Further> = HashMap::new();
    for (tenant, wallet) in &wanted.due {
        let further = found.entry((*tenant).clone()).or_default();
        further.next_due.insert((*wallet).clone(), None);
    }
    if !wanted.counted.is_empty() {
        for (tenant, wallet, open) in open_holds(connection, &wanted.counted).await? {
            let further = found.entry(TenantId::stored(&tenant)).or_default();
            further.open_holds.insert(WalletId::stored(&wallet), open);
        }
    }
    let Wanted { holds, due, until, largest, .. } = wanted;
    for FoundRow { is_next, hold: row } in rows(connection, holds, due, *until, largest).await? {
        let further = found.entry(TenantId::stored(&row.tenant_id)).or_default();
        let hold = row.hold()?;
        match is_next {
            true => drop(further.next_due.insert(hold.wallet_id, Some(hold.expires_at))),
            false => further.holds.push(hold),
        }
    }
    Ok(found)
}

/// How many open holds wallets have.
async fn open_holds(
    connection: &mut Connection,
    wallets: &[(&TenantId, &WalletId)],
) -> Result<Vec<(String, String, i64)>> {
    Ok(sqlx::query_as(
        "select wanted.tenant, wanted.wallet, (select count(*) from holds \
             where tenant_id = wanted.tenant and wallet_id = wanted.wallet and status = 'open') \
         from unnest($1::text[], $2::text[]) as wanted(tenant, wallet) \
         where wanted.tenant is not null and wanted.wallet is not null",
    )
    .bind(wallets.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
    .bind(wallets.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?)
}

/// All holds in one round trip.
async fn rows(
    connection: &mut Connection,
    holds: &[(&TenantId, Uuid)],
    due: &[(&TenantId, &WalletId)],
    until: DateTime<Utc>,
    largest: &[(&TenantId, &WalletId)],
) -> Result<Vec<FoundRow>> {
    let due_max = i64::try_from(DUE_MAX + 1).unwrap_or(i64::MAX);
    let largest_max = i64::try_from(HoldBrief::MAX).unwrap_or(i64::MAX);
    // One look-up for each, never a join: a plan made while the table is small would read all of it.
    Ok(sqlx::query_as(concat!(
        "select false as is_next, h.* \
         from unnest($1::text[], $2::uuid[]) as wanted(tenant, id) cross join lateral (select ",
        hold_columns!(),
        " from holds where tenant_id = wanted.tenant and id = wanted.id limit 1) h \
         union all \
         select false, h.* from unnest($3::text[], $4::text[]) as wanted(tenant, wallet) \
         cross join lateral (select ",
        hold_columns!(),
        " from holds where tenant_id = wanted.tenant and wallet_id = wanted.wallet \
             and status = 'open' and expires_at <= $5 order by expires_at, id limit $6) h \
         union all \
         select true, h.* from unnest($3::text[], $4::text[]) as wanted(tenant, wallet) \
         cross join lateral (select ",
        hold_columns!(),
        " from holds where tenant_id = wanted.tenant and wallet_id = wanted.wallet \
             and status = 'open' and expires_at > $5 order by expires_at, id limit 1) h \
         union all \
         select false, h.* from unnest($7::text[], $8::text[]) as wanted(tenant, wallet) \
         cross join lateral (select ",
        hold_columns!(),
        " from holds where tenant_id = wanted.tenant and wallet_id = wanted.wallet \
             and status = 'open' order by amount - captured desc limit $9) h"
    ))
    .bind(holds.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
    .bind(holds.iter().map(|(_, id)| *id).collect::<Vec<_>>())
    .bind(due.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
    .bind(due.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>())
    .bind(until)
    .bind(due_max)
    .bind(largest.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
    .bind(largest.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>())
    .bind(largest_max)
    .fetch_all(connection)
    .await?)
}

/// A hold, and whether it is only the next one that falls due.
#[derive(sqlx::FromRow)]
struct FoundRow {
    is_next: bool,
    #[sqlx(flatten)]
    hold: HoldRow,
}

/// A row of `holds`.
#[derive(sqlx::FromRow)]
pub(in crate::store) struct HoldRow {
    tenant_id: String,
    id: Uuid,
    wallet_id: String,
    currency: String,
    amount: Decimal,
    max_capture: Decimal,
    captured: Decimal,
    released: Decimal,
    status: String,
    closed_by: Option<String>,
    expires_at: DateTime<Utc>,
    to_wallet_id: Option<String>,
    reserved: Option<String>,
    description: Option<String>,
    reference: Option<String>,
    metadata: Option<String>,
    place_version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl HoldRow {
    pub fn hold(self) -> Result<Hold> {
        let unknown = |what: &str| Error::corrupt(format!("hold {}: {what}", self.id));
        let currency = Currency::parse(&self.currency).ok_or_else(|| unknown("currency"))?;
        let status = HoldStatus::parse(&self.status).ok_or_else(|| unknown("status"))?;
        let closed_by = match &self.closed_by {
            Some(by) => Some(ClosedBy::parse(by).ok_or_else(|| unknown("closed_by"))?),
            None => None,
        };
        let metadata = self.metadata.map(RawValue::from_string).transpose();
        Ok(Hold {
            id: self.id,
            wallet_id: WalletId::stored(&self.wallet_id),
            currency,
            amount: currency.scaled(self.amount),
            max_capture: currency.scaled(self.max_capture),
            captured: currency.scaled(self.captured),
            released: currency.scaled(self.released),
            status,
            closed_by,
            expires_at: self.expires_at,
            to: self.to_wallet_id.as_deref().map(WalletId::stored),
            reserved: match &self.reserved {
                Some(text) => serde_json::from_str(text).map_err(Error::corrupt)?,
                None => Vec::new(),
            },
            description: self.description,
            reference: self.reference,
            metadata: metadata.map_err(Error::corrupt)?.map(Metadata::stored),
            place_version: self.place_version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}
