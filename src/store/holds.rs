//! Holds as callers read them: from the write side, as the last committed command left them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::commands::{HoldRow, hold_columns};
use super::{Connection, Result};
use crate::wallet::{Hold, HoldStatus, TenantId, WalletId};

/// Which holds of a wallet, newest first. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct HoldFilter {
    pub status: Option<HoldStatus>,
    pub reference: Option<String>,
    /// The last hold of the page before.
    pub after: Option<(DateTime<Utc>, Uuid)>,
    pub limit: i64,
}

/// Where a hold belongs, which never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub wallet_id: WalletId,
    /// The wallet that captures go to.
    pub to: Option<WalletId>,
}

pub async fn hold_fetch(
    connection: &mut Connection,
    tenant: &TenantId,
    id: Uuid,
) -> Result<Option<Hold>> {
    let row: Option<HoldRow> = sqlx::query_as(concat!(
        "select ",
        hold_columns!(),
        " from holds where tenant_id = $1 and id = $2"
    ))
    .bind(tenant.as_str())
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.map(HoldRow::hold).transpose()
}

/// Where these holds belong, as far as they exist.
pub async fn homes(
    connection: &mut Connection,
    tenant: &TenantId,
    ids: &[Uuid],
) -> Result<Vec<(Uuid, Home)>> {
    let rows: Vec<(Uuid, String, Option<String>)> = sqlx::query_as(
        "select h.id, h.wallet_id, h.to_wallet_id from unnest($2::uuid[]) as wanted(id) \
         cross join lateral (select id, wallet_id, to_wallet_id from holds \
             where tenant_id = $1 and id = wanted.id limit 1) h",
    )
    .bind(tenant.as_str())
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let home = |(id, wallet, to): (Uuid, String, Option<String>)| {
        let to = to.as_deref().map(WalletId::stored);
        (id, Home { wallet_id: WalletId::stored(&wallet), to })
    };
    Ok(rows.into_iter().map(home).collect())
}

/// A page of a wallet's holds, newest first.
pub async fn of_wallet(
    connection: &mut Connection,
    tenant: &TenantId,
    wallet: &WalletId,
    filter: &HoldFilter,
) -> Result<Vec<Hold>> {
    // Open ones are few, and have an index of their own; the others are walked from the newest on.
    macro_rules! page {
        ($open:literal) => {
            concat!(
                "select ",
                hold_columns!(),
                " from holds where tenant_id = $1 and wallet_id = $2 ",
                $open,
                " and ($3::text is null or status = $3) and ($4::text is null or reference = $4) \
                   and ($5::timestamptz is null or (created_at, id) < ($5, $6)) \
                 order by created_at desc, id desc limit $7"
            )
        };
    }
    let statement = match filter.status {
        Some(HoldStatus::Open) => page!("and status = 'open'"),
        _ => page!(""),
    };
    let rows: Vec<HoldRow> = sqlx::query_as(statement)
        .bind(tenant.as_str())
        .bind(wallet.as_str())
        .bind(filter.status.map(HoldStatus::as_str))
        .bind(filter.reference.as_deref())
        .bind(filter.after.map(|(at, _)| at))
        .bind(filter.after.map(|(_, id)| id))
        .bind(filter.limit)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(HoldRow::hold).collect()
}

/// Wallets on which something may be due by now, the longest due first.
pub async fn due_wallets(
    connection: &mut Connection,
    limit: i64,
) -> Result<Vec<(TenantId, WalletId)>> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select tenant_id, id from wallets where next_due_at is not null \
             and next_due_at <= clock_timestamp() order by next_due_at limit $1",
    )
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let key = |(tenant, id): &(String, String)| (TenantId::stored(tenant), WalletId::stored(id));
    Ok(rows.iter().map(key).collect())
}
