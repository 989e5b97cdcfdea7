//! What a batch has to read after its wallets are locked: nothing, while all of its commands are plain.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::QueuedRequest;
use crate::store::commands::{Loaded, Wanted};
use crate::wallet::{Command, TenantId, Wallet, WalletId};

/// What the commands of `requests` need beside the wallets in `tenants`.
pub(super) fn of<'a>(
    requests: &'a [QueuedRequest],
    now: DateTime<Utc>,
    tenants: &'a HashMap<TenantId, Loaded>,
) -> Wanted<'a> {
    let until = wallets(tenants).map(|(_, wallet)| wallet.updated_at).fold(now, DateTime::max);
    let is_due = |wallet: &Wallet| wallet.upkeep.next_due_at.is_some_and(|next| next <= until);
    let due = wallets(tenants).filter(|(_, wallet)| is_due(wallet));
    let due = due.map(|(tenant, wallet)| (tenant, &wallet.id)).collect();
    let (mut holds, mut counted) = (BTreeSet::<(&TenantId, Uuid)>::new(), BTreeSet::new());
    for (tenant, command) in commands(requests) {
        let footprint = command.footprint();
        let needs = footprint.needs();
        holds.extend(needs.hold.map(|hold| (tenant, hold)));
        if needs.open_holds {
            counted.insert((tenant, command.wallet_id()));
        }
    }
    let largest = maybe_refused(requests, tenants);
    let (holds, counted) = (holds.into_iter().collect(), counted.into_iter().collect());
    Wanted { holds, due, until, counted, largest }
}

/// Wallets with money on hold, of which the batch may ask for more than there is: the refusal names the
/// largest holds.
fn maybe_refused<'a>(
    requests: &'a [QueuedRequest],
    tenants: &'a HashMap<TenantId, Loaded>,
) -> Vec<(&'a TenantId, &'a WalletId)> {
    if !wallets(tenants).any(|(_, wallet)| !wallet.held_balance.is_zero()) {
        return Vec::new();
    }
    let mut asked: BTreeMap<(&TenantId, &WalletId), Decimal> = BTreeMap::new();
    for (tenant, command) in commands(requests) {
        let amount = match command {
            Command::Debit(movement) => movement.amount.value(),
            Command::Transfer(transfer) => transfer.amount.value(),
            Command::Hold(place) => place.amount.value(),
            Command::Adjust(adjust) => adjust.amount.map_or(Decimal::ZERO, |a| a.value()),
            Command::Capture(capture) => capture.amount.map_or(Decimal::ZERO, |a| a.value()),
            _ => continue,
        };
        let sum = asked.entry((tenant, command.wallet_id())).or_default();
        *sum = sum.saturating_add(amount);
    }
    let is_short = |((tenant, id), amount): &(&(&TenantId, &WalletId), &Decimal)| {
        let wallet = tenants.get(*tenant).and_then(|loaded| loaded.world.wallet(id));
        wallet.is_some_and(|w| !w.held_balance.is_zero() && **amount > w.available())
    };
    asked.iter().filter(is_short).map(|(key, _)| *key).collect()
}

fn wallets(tenants: &HashMap<TenantId, Loaded>) -> impl Iterator<Item = (&TenantId, &Wallet)> {
    tenants
        .iter()
        .flat_map(|(tenant, loaded)| loaded.world.wallets().map(move |wallet| (tenant, wallet)))
}

fn commands(requests: &[QueuedRequest]) -> impl Iterator<Item = (&TenantId, &Command)> {
    requests.iter().flat_map(|queued| {
        let request = &queued.request;
        request.operations.iter().map(move |operation| (&request.tenant, &operation.command))
    })
}
