//! The ledger projection: every event's postings, added once.

use std::collections::HashMap;

use super::projection::Written;
use crate::ledger::{Totals, postings};
use crate::store::checkpoints::Standing;
use crate::store::{self, Connection};
use crate::wallet::{Event, WalletKey};

/// Adds the postings of some events. Must run in the transaction that notes them as applied.
pub async fn write(
    connection: &mut Connection,
    events: &[Event],
    _before: &Standing,
) -> store::Result<Written> {
    let lines: Vec<_> = events
        .iter()
        .flat_map(|event| postings(event).into_iter().map(move |posting| (event, posting)))
        .collect();
    let mut totals: HashMap<WalletKey, Totals> = HashMap::new();
    for (event, posting) in &lines {
        totals.entry(event.wallet()).or_default().add(posting);
    }
    if !lines.is_empty() || events.is_empty() {
        store::entries::insert(connection, &lines).await?;
    }
    Ok(Written { wallets: totals.len(), totals: Some(totals), refused: Vec::new() })
}
