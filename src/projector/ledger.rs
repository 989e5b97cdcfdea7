//! The ledger projection: every event's entries, added once.

use std::collections::HashSet;

use crate::ledger::{RecordedEvent, entries};
use crate::store::{self, Connection};
use crate::wallet::{TenantId, WalletId};

/// Adds the entries of some events. Must run in the transaction that notes them as applied. Returns of
/// how many wallets.
pub async fn write(
    connection: &mut Connection,
    tenant: &TenantId,
    events: &[RecordedEvent],
) -> store::Result<usize> {
    let lines: Vec<_> = events
        .iter()
        .flat_map(|event| entries(event).into_iter().map(move |entry| (event, entry)))
        .collect();
    if lines.is_empty() {
        return Ok(0);
    }
    store::entries::insert(connection, tenant, &lines).await?;
    let wallets: HashSet<&WalletId> = lines.iter().map(|(event, _)| &event.wallet_id).collect();
    Ok(wallets.len())
}

/// The same without a row.
pub async fn probe(connection: &mut Connection, tenant: &TenantId) -> store::Result<()> {
    store::entries::insert(connection, tenant, &[]).await
}
