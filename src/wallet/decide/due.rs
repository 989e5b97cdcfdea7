//! What falls due by itself: it happens before the command that meets it, whatever becomes of that.

use super::{next, still};
use crate::wallet::{
    Command, Details, EventType, Facts, Footprint, Hold, HoldStatus, HoldTaken, NewEvent, Wallet,
    WalletState, World,
};

/// What may be due before a command that has to wait for it. With more the command is not decided.
pub const DUE_MAX: usize = 1000;
/// What a [`Command::Touch`] lets happen at once.
pub const SWEEP_MAX: usize = 500;

/// Whether more is due on the command's wallets than may happen before it.
pub fn overdue(command: &Command, world: &World) -> bool {
    let may_wait = !matches!(command, Command::Touch(_));
    may_wait && world.due_holds(&command.footprint()).len() > DUE_MAX
}

/// What is due on the command's wallets, in the order in which it fell due. Each happens by itself: no two
/// share a transaction.
pub fn due(footprint: &Footprint<'_>, world: &World) -> Vec<NewEvent> {
    let mut left: Vec<Wallet> = Vec::new();
    let mut events = Vec::new();
    for hold in world.due_holds(footprint).into_iter().take(footprint.due_max()) {
        let at = left.iter().position(|wallet| wallet.id == hold.wallet_id);
        let place = match (at, world.wallet(&hold.wallet_id)) {
            (Some(at), _) => left.get_mut(at),
            (None, Some(wallet)) => {
                left.push(wallet.clone());
                left.last_mut()
            }
            (None, None) => None,
        };
        let Some(wallet) = place else { continue };
        let event = expired(wallet, hold);
        wallet.apply(event.version, &event.body, wallet.updated_at);
        events.push(event);
    }
    events
}

/// The end of a hold whose time has come: what remains of it is given back.
fn expired(wallet: &Wallet, hold: &Hold) -> NewEvent {
    let released = hold.remaining();
    let changed = still(wallet, |after: &mut WalletState| after.held_balance -= released);
    let facts = Facts::Expiry(Box::new(HoldTaken {
        hold_id: hold.id,
        captured_total: hold.captured,
        released,
        remaining: hold.currency.scaled(0.into()),
        status: match hold.captured.is_zero() {
            true => HoldStatus::Expired,
            false => HoldStatus::Captured,
        },
        to: None,
    }));
    let details = Details { reference: hold.reference.clone(), ..Details::default() };
    next(wallet, EventType::WalletHoldExpired, facts, changed, &details)
}
