//! Strongly consistent reads from the write side.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::Row as _;
use sqlx::types::Json;
use uuid::Uuid;

use super::commands::wallet_of;
use super::{Connection, Error, Result};
use crate::envelope::{AGGREGATE_TYPE, Envelope, timestamp};
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
    let rows = sqlx::query(
        "select version, event_id, event_type, schema_version, payload, correlation_id, \
         causation_id, created_at from events \
         where tenant_id = $1 and wallet_id = $2 and version > $3 order by version limit $4",
    )
    .bind(tenant.as_str())
    .bind(id.as_str())
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let data: Json<Box<RawValue>> = row.try_get("payload")?;
        let version: i64 = row.try_get("version")?;
        let envelope = Envelope {
            event_id: row.try_get::<Uuid, _>("event_id")?,
            event_type: row.try_get("event_type")?,
            aggregate_type: AGGREGATE_TYPE,
            aggregate_id: id.as_str(),
            aggregate_version: version,
            schema_version: row.try_get("schema_version")?,
            tenant_id: tenant.as_str(),
            timestamp: timestamp(row.try_get::<DateTime<Utc>, _>("created_at")?),
            correlation_id: row.try_get("correlation_id")?,
            causation_id: row.try_get("causation_id")?,
            data: &data.0,
        };
        events.push((version, envelope.to_json().map_err(Error::corrupt)?));
    }
    Ok(events)
}
