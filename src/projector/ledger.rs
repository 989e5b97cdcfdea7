//! The ledger projection: every event's entries, added once.

use crate::ledger::entries;
use crate::store::{self, Connection};
use crate::wallet::{Event, TenantId};

/// Adds the entries of some events. Must run in the transaction that notes them as applied.
pub async fn write(
    connection: &mut Connection,
    tenant: &TenantId,
    events: &[Event],
) -> store::Result<()> {
    let lines: Vec<_> = events
        .iter()
        .flat_map(|event| entries(event).into_iter().map(move |entry| (event, entry)))
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    store::entries::insert(connection, tenant, &lines).await
}
