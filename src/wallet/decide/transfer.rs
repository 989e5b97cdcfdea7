//! Money from one wallet to another.

use super::{Rules, Use, next};
use crate::wallet::{EventType, Facts, NewEvent, Rejection, Transfer, Wallet, WalletId};

impl Rules<'_> {
    pub(super) fn transfer(&self, transfer: &Transfer) -> Result<Vec<NewEvent>, Rejection> {
        let Transfer { from, to, amount, details, expected_version } = transfer;
        if from == to {
            return Err(Rejection::SameWallet);
        }
        let source = self.usable(from, expected_version.as_ref(), Use::Out)?;
        let destination = self.usable(to, None, Use::In)?;
        same_currency(source, destination)?;
        let side = |wallet: &Wallet, kind: EventType, other: &WalletId| -> Result<_, Rejection> {
            let changed = self.changed(wallet, *amount, kind.direction())?;
            Ok(next(wallet, kind, Facts::Transfer { other: other.clone() }, changed, details))
        };
        Ok(vec![
            side(source, EventType::WalletTransferInitiated, to)?,
            side(destination, EventType::WalletTransferCompleted, from)?,
        ])
    }
}

/// Money goes to wallets of its own currency only.
pub(super) fn same_currency(source: &Wallet, destination: &Wallet) -> Result<(), Rejection> {
    let (from, to) = (source.currency, destination.currency);
    if from == to { Ok(()) } else { Err(Rejection::CurrencyMismatch { from, to }) }
}
