//! The ledger projection: every event's entries, added once.

use std::collections::HashMap;

use crate::ledger::{Totals, entries};
use crate::store::{self, Connection};
use crate::wallet::{Event, TenantId, WalletId};

/// Adds the entries of some events. Must run in the transaction that notes them as applied. Returns what
/// they add to the totals of each wallet that has some.
pub async fn write(
    connection: &mut Connection,
    tenant: &TenantId,
    events: &[Event],
) -> store::Result<HashMap<WalletId, Totals>> {
    let lines: Vec<_> = events
        .iter()
        .flat_map(|event| entries(event).into_iter().map(move |entry| (event, entry)))
        .collect();
    let mut totals: HashMap<WalletId, Totals> = HashMap::new();
    for (_, entry) in &lines {
        if let Some(wallet) = &entry.wallet_id {
            totals.entry(wallet.clone()).or_default().add(entry);
        }
    }
    if !lines.is_empty() {
        store::entries::insert(connection, tenant, &lines).await?;
    }
    Ok(totals)
}

/// The same without a row.
pub async fn probe(connection: &mut Connection, tenant: &TenantId) -> store::Result<()> {
    store::entries::insert(connection, tenant, &[]).await
}
