//! The ledger projection: every event's entries, added once.

use std::collections::HashMap;

use super::projection::Written;
use crate::ledger::{Totals, entries};
use crate::store::{self, Connection};
use crate::wallet::{Event, WalletKey};

/// Adds the entries of some events. Must run in the transaction that notes them as applied.
pub async fn write(connection: &mut Connection, events: &[Event]) -> store::Result<Written> {
    let lines: Vec<_> = events
        .iter()
        .flat_map(|event| entries(event).into_iter().map(move |entry| (event, entry)))
        .collect();
    let mut totals: HashMap<WalletKey, Totals> = HashMap::new();
    for (event, entry) in &lines {
        if let Some(wallet) = &entry.wallet_id {
            totals.entry((event.tenant.clone(), wallet.clone())).or_default().add(entry);
        }
    }
    if !lines.is_empty() || events.is_empty() {
        store::entries::insert(connection, &lines).await?;
    }
    Ok(Written { wallets: totals.len(), totals: Some(totals), refused: Vec::new() })
}
