//! A wallet's state, folded from its events.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Currency, EventBody, Facts, Metadata, WalletId, WalletState};

/// Where a wallet is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
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
    /// The wallet that a creation opens; none for any other kind of event.
    pub fn opened(id: WalletId, body: &EventBody, at: DateTime<Utc>) -> Option<Self> {
        let Facts::Creation { owner_id, overdraft_limit } = &body.facts else { return None };
        Some(Self {
            id,
            owner_id: owner_id.clone(),
            currency: body.currency,
            status: body.after.status,
            balance: body.after.balance,
            held_balance: body.after.held_balance,
            overdraft_limit: *overdraft_limit,
            version: 1,
            metadata: body.metadata.clone(),
            created_at: at,
            updated_at: at,
        })
    }

    /// Takes the state that an event of this wallet left. Events of one wallet never go back in time.
    pub fn apply(&mut self, version: i64, after: &WalletState, at: DateTime<Utc>) {
        self.balance = after.balance;
        self.held_balance = after.held_balance;
        self.overdraft_limit = after.overdraft_limit().unwrap_or(self.overdraft_limit);
        self.status = after.status;
        self.version = version;
        self.updated_at = self.updated_at.max(at);
    }

    /// The state as an event records it.
    pub fn state(&self) -> WalletState {
        WalletState {
            balance: self.balance,
            held_balance: self.held_balance,
            available_balance: (!self.held_balance.is_zero()).then(|| self.available()),
            status: self.status,
        }
    }

    /// What may be spent now: balance − held + overdraft.
    pub fn available(&self) -> Decimal {
        self.balance - self.held_balance + self.overdraft_limit
    }
}
