//! How far the projections are, asked for many wallets at once.

use super::{Connection, Result};
use crate::wallet::{TenantId, WalletId};

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
         join wallets w on w.tenant_id = $1 and w.id = wanted.id and w.version >= wanted.version \
         left join projected_versions p \
            on p.tenant_id = $1 and p.projector = $2 and p.wallet_id = wanted.id \
         where coalesce(p.version, 0) < wanted.version",
    )
    .bind(tenant.as_str())
    .bind(projector)
    .bind(ids)
    .bind(versions)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, version)| (WalletId::stored(&id), version)).collect())
}
