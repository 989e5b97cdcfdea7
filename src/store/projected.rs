//! What a projection's table is to the store, and how far projections are, asked for many wallets at once.

use super::{Connection, Result};
use crate::wallet::{TenantId, WalletId};

/// A table that is made of the events, by which its rows are taken away and versions are found.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    pub name: &'static str,
    /// The column of the wallet's id. The tenant's is `tenant_id`.
    pub wallet: &'static str,
    pub versions: Versions,
}

/// Where it is noted which version a projection has reached of each wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// In `projected_wallets`, with the wallet's totals where the projection keeps some.
    Apart,
    /// In the table itself, which has one row a wallet and its `version`. The view `projected_versions`
    /// must show them. No row is ever committed with version 0: within a rebuild it says that nothing
    /// of the row counts.
    InTable,
}

/// Those of the `wanted` versions that a projector has still to apply. A version that the books do
/// not have is none of them: no projector will ever apply it.
pub async fn lacking(
    connection: &mut Connection,
    tenant: &TenantId,
    projector: &str,
    wanted: &[(WalletId, i64)],
) -> Result<Vec<(WalletId, i64)>> {
    let ids: Vec<&str> = wanted.iter().map(|(id, _)| id.as_str()).collect();
    let versions: Vec<i64> = wanted.iter().map(|(_, version)| *version).collect();
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select wanted.id, wanted.version \
         from unnest($3::text[], $4::bigint[]) as wanted(id, version) \
         cross join lateral (select from wallets w where w.tenant_id = $1 and w.id = wanted.id \
             and w.version >= wanted.version limit 1) w \
         where coalesce((select p.version from projected_versions p where p.tenant_id = $1 \
             and p.projector = $2 and p.wallet_id = wanted.id limit 1), 0) < wanted.version",
    )
    .bind(tenant.as_str())
    .bind(projector)
    .bind(ids)
    .bind(versions)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, version)| (WalletId::stored(&id), version)).collect())
}
