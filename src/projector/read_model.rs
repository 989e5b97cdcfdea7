//! The read-model projection: each wallet as its events left it.

use std::collections::BTreeMap;

use super::projection::Written;
use crate::store::checkpoints::Standing;
use crate::store::read_model::Change;
use crate::store::{self, Connection};
use crate::wallet::{Event, Facts, TenantId, Wallet, WalletKey};

const UNOPENED: &str = "the wallet's first event does not open it";

/// What some events left of wallets.
#[derive(Debug, Default)]
struct Folded {
    opened: BTreeMap<WalletKey, Wallet>,
    changes: BTreeMap<WalletKey, Change>,
    /// Wallets that are not in the table, and that none of the events opens.
    unopened: Vec<WalletKey>,
}

/// Folds events, which are in (wallet, version) order, and writes what they left. Must run in the
/// transaction that has locked the wallets as they stood `before`.
pub async fn write(
    connection: &mut Connection,
    events: &[Event],
    before: &Standing,
) -> store::Result<Written> {
    let Folded { opened, changes, unopened } = fold(events, before);
    let probes = events.is_empty();
    let wallets = opened.len() + changes.len();
    if !opened.is_empty() || probes {
        let opened: Vec<(TenantId, Wallet)> =
            opened.into_iter().map(|((tenant, _), wallet)| (tenant, wallet)).collect();
        store::read_model::open(connection, &opened).await?;
    }
    if !changes.is_empty() || probes {
        let changes: Vec<Change> = changes.into_values().collect();
        store::read_model::change(connection, &changes).await?;
    }
    let refused = unopened.into_iter().map(|wallet| (wallet, UNOPENED)).collect();
    Ok(Written { wallets, totals: None, refused })
}

fn fold(events: &[Event], before: &Standing) -> Folded {
    let mut folded = Folded::default();
    for event in events {
        let (wallet_id, after, at) = (&event.wallet_id, event.body.after, event.created_at);
        let (wallet, version) = (event.wallet(), event.version);
        if version == 1
            && let Some(opened) = Wallet::opened(wallet_id.clone(), &event.body, at)
        {
            folded.opened.insert(wallet, opened);
        } else if let Some(opened) = folded.opened.get_mut(&wallet) {
            opened.apply(version, &event.body, at);
        } else if let Some(place) = before.get(&wallet).and_then(|stands| stands.place.clone()) {
            // What an earlier event of these set stands until a later one does.
            let before = folded.changes.remove(&wallet).and_then(|change: Change| change.metadata);
            let metadata = match event.body.facts {
                Facts::Metadata => Some(event.body.metadata.clone()),
                _ => before,
            };
            let change = Change { version, after, metadata, updated_at: at, place };
            folded.changes.insert(wallet, change);
        } else if folded.unopened.last() != Some(&wallet) {
            folded.unopened.push(wallet);
        }
    }
    folded
}
