//! The read-model projection: each wallet as its events left it.

use std::collections::BTreeMap;

use crate::ledger::RecordedEvent;
use crate::store::read_model::Change;
use crate::store::{self, Connection};
use crate::wallet::{Currency, EventData, TenantId, Wallet, WalletId};

/// Folds events, which are in (wallet, version) order, and writes what they left. Must run in the
/// transaction that notes them as applied. Returns wallets that should be in the table and are not.
pub async fn write(
    connection: &mut Connection,
    tenant: &TenantId,
    events: &[RecordedEvent],
) -> store::Result<Vec<WalletId>> {
    let (opened, changes) = fold(events);
    if !opened.is_empty() {
        store::read_model::open(connection, tenant, &opened).await?;
    }
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let changed = store::read_model::change(connection, tenant, &changes).await?;
    let missing = changes.into_iter().map(|change| change.wallet_id);
    Ok(missing.filter(|wallet| !changed.contains(wallet)).collect())
}

/// The same without a row.
pub async fn probe(connection: &mut Connection, tenant: &TenantId) -> store::Result<()> {
    store::read_model::open(connection, tenant, &[]).await?;
    store::read_model::change(connection, tenant, &[]).await.map(drop)
}

/// Why the read model cannot hold an event, if so.
pub fn objection(event: &RecordedEvent) -> Option<String> {
    match &event.data {
        EventData::WalletCreated(created) if Currency::parse(&created.currency).is_none() => {
            Some(format!("unknown currency {}", created.currency))
        }
        _ => None,
    }
}

/// Wallets that these events opened, and what they changed of others.
fn fold(events: &[RecordedEvent]) -> (Vec<Wallet>, Vec<Change>) {
    let mut opened: BTreeMap<&WalletId, Wallet> = BTreeMap::new();
    let mut changes: BTreeMap<&WalletId, Change> = BTreeMap::new();
    for event in events {
        let wallet_id = &event.wallet_id;
        if let EventData::WalletCreated(created) = &event.data {
            if let Some(currency) = Currency::parse(&created.currency) {
                let wallet = Wallet::open(wallet_id.clone(), currency, created, event.created_at);
                opened.insert(wallet_id, wallet);
            }
        } else if let Some(wallet) = opened.get_mut(wallet_id) {
            wallet.apply(&event.data, event.created_at);
        } else {
            let change = Change {
                wallet_id: wallet_id.clone(),
                balance: event.data.new_balance(),
                version: event.version,
                updated_at: event.created_at,
            };
            changes.insert(wallet_id, change);
        }
    }
    (opened.into_values().collect(), changes.into_values().collect())
}
