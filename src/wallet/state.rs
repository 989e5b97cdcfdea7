//! A wallet's state, folded from its events.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::{Currency, EventData, Metadata, WalletCreated, WalletId};

/// Where a wallet is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Active,
    Frozen,
    Closed,
}

/// One wallet as its events left it. Decimals are in the currency's scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Wallet {
    pub id: WalletId,
    pub owner_id: String,
    pub currency: Currency,
    pub status: Status,
    pub balance: Decimal,
    /// Reserved for open holds, at least 0.
    pub held_balance: Decimal,
    /// How far below zero the wallet may go, at least 0.
    pub overdraft_limit: Decimal,
    /// The number of the wallet's events: 1..n without a gap.
    pub version: i64,
    pub metadata: Option<Metadata>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Status {
    pub const ALL: [Self; 3] = [Self::Active, Self::Frozen, Self::Closed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Frozen => "frozen",
            Self::Closed => "closed",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl Wallet {
    /// The wallet that a `WalletCreated` opens. The currency is the event's, already known.
    pub fn open(id: WalletId, currency: Currency, data: &WalletCreated, at: DateTime<Utc>) -> Self {
        Self {
            id,
            owner_id: data.owner_id.clone(),
            currency,
            status: Status::Active,
            balance: data.new_balance,
            held_balance: currency.scaled(Decimal::ZERO),
            overdraft_limit: data.overdraft_limit,
            version: 1,
            metadata: data.metadata.clone(),
            created_at: at,
            updated_at: at,
        }
    }

    /// Takes the wallet's next event. Events of one wallet never go back in time.
    pub fn apply(&mut self, data: &EventData, at: DateTime<Utc>) {
        self.balance = data.new_balance();
        self.version += 1;
        self.updated_at = self.updated_at.max(at);
    }

    /// What may be spent now: balance − held + overdraft.
    pub fn available(&self) -> Decimal {
        self.balance - self.held_balance + self.overdraft_limit
    }
}
