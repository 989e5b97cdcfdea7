//! The read-model projection: each wallet as its events left it.

use std::collections::BTreeMap;

use super::projection::Written;
use crate::store::read_model::Change;
use crate::store::{self, Connection};
use crate::wallet::{Event, TenantId, Wallet, WalletKey};

const MISSING: &str = "the wallet is missing in wallets_read_model";

/// Folds events, which are in (wallet, version) order, and writes what they left. Must run in the
/// transaction that notes them as applied. Refuses wallets that should be in the table and are not.
pub async fn write(connection: &mut Connection, events: &[Event]) -> store::Result<Written> {
    let (opened, changes) = fold(events);
    let probes = events.is_empty();
    if !opened.is_empty() || probes {
        store::read_model::open(connection, &opened).await?;
    }
    let mut written = Written { wallets: opened.len(), ..Written::default() };
    if !changes.is_empty() || probes {
        let changed = store::read_model::change(connection, &changes).await?;
        written.wallets += changed.len();
        let wallets = changes.into_iter().map(|change| change.wallet);
        let missing = wallets.filter(|wallet| !changed.contains(wallet));
        written.refused = missing.map(|wallet| (wallet, MISSING)).collect();
    }
    Ok(written)
}

/// Wallets that these events opened, and what they left of others.
fn fold(events: &[Event]) -> (Vec<(TenantId, Wallet)>, Vec<Change>) {
    let mut opened: BTreeMap<WalletKey, Wallet> = BTreeMap::new();
    let mut changes: BTreeMap<WalletKey, Change> = BTreeMap::new();
    for event in events {
        let (wallet_id, after, at) = (&event.wallet_id, event.body.after, event.created_at);
        if let Some(wallet) = Wallet::opened(wallet_id.clone(), &event.body, at) {
            opened.insert(event.wallet(), wallet);
        } else if let Some(wallet) = opened.get_mut(&event.wallet()) {
            wallet.apply(event.version, &after, at);
        } else {
            let (wallet, version) = (event.wallet(), event.version);
            let change = Change { wallet, version, after, updated_at: at };
            changes.insert(event.wallet(), change);
        }
    }
    let opened = opened.into_iter().map(|((tenant, _), wallet)| (tenant, wallet));
    (opened.collect(), changes.into_values().collect())
}
