//! What commands are decided on.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::{BALANCE_MAX, Event, Footprint, Wallet, WalletId};

/// One tenant's wallets as they stand under lock, and the time at which they do.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The database's clock, read after the locks.
    pub now: DateTime<Utc>,
    wallets: HashMap<WalletId, Wallet>,
}

/// Rules that an operator may set.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// No balance leaves `-balance_max ..= balance_max`.
    pub balance_max: Decimal,
}

impl Default for Policy {
    fn default() -> Self {
        Self { balance_max: BALANCE_MAX }
    }
}

impl World {
    pub fn new(now: DateTime<Utc>, wallets: impl IntoIterator<Item = Wallet>) -> Self {
        let wallets = wallets.into_iter().map(|wallet| (wallet.id.clone(), wallet)).collect();
        Self { now, wallets }
    }

    /// The wallet, unless there is none of this id.
    pub fn wallet(&self, id: &WalletId) -> Option<&Wallet> {
        self.wallets.get(id)
    }

    /// The time of a command: now, but never before the last event of one of its wallets.
    pub fn at(&self, footprint: &Footprint<'_>) -> DateTime<Utc> {
        let wallets = footprint.wallets().filter_map(|id| self.wallet(id));
        wallets.map(|wallet| wallet.updated_at).fold(self.now, DateTime::max)
    }

    /// Takes an event in: opens its wallet, or copies into it the state that the event left.
    pub fn apply(&mut self, event: &Event) {
        let (id, at) = (&event.wallet_id, event.created_at);
        if let Some(wallet) = Wallet::opened(id.clone(), &event.body, at) {
            self.wallets.insert(id.clone(), wallet);
        } else if let Some(wallet) = self.wallets.get_mut(id) {
            wallet.apply(event.version, &event.body.after, at);
        }
    }

    /// Puts a wallet back as it was, or takes it out where it was not there.
    pub fn restore(&mut self, id: &WalletId, wallet: Option<Wallet>) {
        match wallet {
            Some(wallet) => self.wallets.insert(id.clone(), wallet),
            None => self.wallets.remove(id),
        };
    }

    /// Hands a wallet over.
    pub fn take(&mut self, id: &WalletId) -> Option<Wallet> {
        self.wallets.remove(id)
    }
}
