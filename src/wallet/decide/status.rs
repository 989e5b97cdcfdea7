//! What a wallet may do: freezing, suspending, activating, closing.

use rust_decimal::Decimal;

use super::transfer::same_currency;
use super::{Rules, Use, at_version, next, still};
use crate::wallet::{
    CloseWallet, Details, EventType, Expected, Facts, NewEvent, Rejection, SetStatus, Status,
    Wallet, WalletId,
};

impl<'a> Rules<'a> {
    pub(super) fn set_status(&self, set: &SetStatus) -> Result<Vec<NewEvent>, Rejection> {
        let wallet = self.unclosed(&set.wallet_id, set.expected_version.as_ref())?;
        let status = set.status.status();
        if wallet.status == status {
            return Err(Rejection::StatusUnchanged { wallet: wallet.id.clone(), status });
        }
        Ok(vec![changed(wallet, status, &set.reason)])
    }

    /// Closes a wallet that nothing is left in; what is left goes to another first, where that is named.
    pub(super) fn close(&self, close: &CloseWallet) -> Result<Vec<NewEvent>, Rejection> {
        let wallet = self.unclosed(&close.wallet_id, close.expected_version.as_ref())?;
        let open = self.world.open_holds(&wallet.id);
        if open > 0 {
            return Err(Rejection::WalletHasHolds { wallet: wallet.id.clone(), open });
        }
        if close.sweep_to.as_ref() == Some(&wallet.id) {
            return Err(Rejection::SameWallet);
        }
        // What is named must be right, also where there is nothing to sweep.
        if let Some(to) = &close.sweep_to {
            let missing = || Rejection::WalletNotFound { wallet: to.clone() };
            same_currency(wallet, self.world.wallet(to).ok_or_else(missing)?)?;
        }
        let balance = wallet.balance;
        let sweep_to = close.sweep_to.as_ref().filter(|_| balance > Decimal::ZERO);
        let Some(to) = sweep_to else {
            return match balance.is_zero() {
                true => Ok(vec![changed(wallet, Status::Closed, &close.reason)]),
                false => Err(Rejection::WalletNotEmpty { wallet: wallet.id.clone(), balance }),
            };
        };
        let mut events = self.sweep(wallet, to, &close.reason)?;
        let mut swept = wallet.clone();
        for event in events.iter().filter(|event| event.wallet_id == wallet.id) {
            swept.apply(event.version, &event.body, swept.updated_at);
        }
        events.push(changed(&swept, Status::Closed, &close.reason));
        Ok(events)
    }

    /// All of a balance to another wallet: a transfer.
    fn sweep(
        &self,
        wallet: &Wallet,
        to: &WalletId,
        reason: &str,
    ) -> Result<Vec<NewEvent>, Rejection> {
        let source = self.usable(&wallet.id, None, Use::Out)?;
        let destination = self.usable(to, None, Use::In)?;
        same_currency(source, destination)?;
        let details = Details { description: Some(reason.to_owned()), ..Details::default() };
        let side = |wallet: &Wallet, kind: EventType, other: &WalletId| -> Result<_, Rejection> {
            let changed = self.changed_by(wallet, source.balance, kind.direction())?;
            Ok(next(wallet, kind, Facts::Transfer { other: other.clone() }, changed, &details))
        };
        Ok(vec![
            side(source, EventType::WalletTransferInitiated, to)?,
            side(destination, EventType::WalletTransferCompleted, &source.id)?,
        ])
    }

    /// The wallet, where it is there, at an expected version, and not closed.
    fn unclosed(
        &self,
        id: &WalletId,
        expected: Option<&Expected>,
    ) -> Result<&'a Wallet, Rejection> {
        let missing = || Rejection::WalletNotFound { wallet: id.clone() };
        let wallet = self.world.wallet(id).ok_or_else(missing)?;
        at_version(wallet, expected)?;
        match wallet.status {
            Status::Closed => Err(Rejection::WalletClosed { wallet: id.clone() }),
            _ => Ok(wallet),
        }
    }
}

fn changed(wallet: &Wallet, status: Status, reason: &str) -> NewEvent {
    let changed = still(wallet, |after| after.status = status);
    let facts = Facts::Status { previous: wallet.status, actor: None };
    let details = Details { description: Some(reason.to_owned()), ..Details::default() };
    next(wallet, EventType::WalletStatusChanged, facts, changed, &details)
}
