//! Strongly consistent reads from the write side.

use super::commands::wallet_of;
use super::outbox::OutboxRow;
use super::{Connection, Error, Result};
use crate::wallet::{TenantId, Wallet, WalletId};

/// The wallet as its last committed command left it.
pub async fn wallet_fetch(
    connection: &mut Connection,
    tenant: &TenantId,
    id: &WalletId,
) -> Result<Option<Wallet>> {
    let row = sqlx::query(
        "select id, owner_id, currency, status, balance, held_balance, overdraft_limit, version, \
         metadata, created_at, updated_at from wallets where tenant_id = $1 and id = $2",
    )
    .bind(tenant.as_str())
    .bind(id.as_str())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(wallet_of).transpose()
}

/// A wallet's events above a version, as published: version and envelope.
pub async fn wallet_events(
    connection: &mut Connection,
    tenant: &TenantId,
    id: &WalletId,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, Vec<u8>)>> {
    let rows: Vec<OutboxRow> = sqlx::query_as(
        "select tenant_id, 0::bigint as id, 0::smallint as part, 1::bigint as place, 1 as events, \
             false as refused, partition, wallet_id, version, event_id, event_type, \
             schema_version, payload::text as payload, correlation_id, causation_id, traceparent, \
             created_at \
         from events \
         where tenant_id = $1 and wallet_id = $2 and version > $3 order by version limit $4",
    )
    .bind(tenant.as_str())
    .bind(id.as_str())
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let event = |row: &OutboxRow| {
        let envelope = row.envelope().and_then(|envelope| envelope.to_json());
        envelope.map(|json| (row.version, json)).map_err(Error::corrupt)
    };
    rows.iter().map(event).collect()
}
