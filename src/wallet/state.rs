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
    /// Money comes in; none leaves but what is on hold already.
    Suspended,
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
    /// Only where it was read to be written.
    pub upkeep: Upkeep,
}

/// What commands on a wallet need to know of it, and no answer shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upkeep {
    pub features: Features,
    /// Nothing of the wallet falls due before this moment; it may be early.
    pub next_due_at: Option<DateTime<Utc>>,
}

/// What a wallet has beyond a balance. A plain wallet has none, and its commands read nothing more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features(pub i16);

impl Features {
    pub const GRANTS: Self = Self(1);
    /// Limits of what it may spend in a time.
    pub const LIMITS: Self = Self(2);
    pub const THRESHOLDS: Self = Self(4);
    pub const TOPUP_RULE: Self = Self(8);
    /// Its events do not say all that an answer shows: answers are kept as they were given.
    pub const NOT_REBUILDABLE: Self = Self(16);
    /// Its overdraft limit is no longer the one that it was created with.
    pub const OWN_OVERDRAFT: Self = Self(32);

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Status {
    pub const ALL: [Self; 4] = [Self::Active, Self::Suspended, Self::Frozen, Self::Closed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
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
            upkeep: Upkeep::default(),
        })
    }

    /// Takes the state that an event of this wallet left. Events of one wallet never go back in time.
    pub fn apply(&mut self, version: i64, body: &EventBody, at: DateTime<Utc>) {
        let after = &body.after;
        self.balance = after.balance;
        self.held_balance = after.held_balance;
        self.overdraft_limit = after.overdraft_limit().unwrap_or(self.overdraft_limit);
        self.status = after.status;
        if matches!(body.facts, Facts::Metadata) {
            self.metadata.clone_from(&body.metadata);
        }
        self.version = version;
        self.updated_at = self.updated_at.max(at);
    }

    /// The state as an event records it.
    pub fn state(&self) -> WalletState {
        let is_told =
            !self.held_balance.is_zero() || self.upkeep.features.has(Features::OWN_OVERDRAFT);
        WalletState {
            balance: self.balance,
            held_balance: self.held_balance,
            available_balance: is_told.then(|| self.available()),
            status: self.status,
        }
    }

    /// What the owner has that is not on hold: balance − held.
    pub fn own(&self) -> Decimal {
        self.balance - self.held_balance
    }

    /// What may be spent now: balance − held + overdraft.
    pub fn available(&self) -> Decimal {
        self.balance - self.held_balance + self.overdraft_limit
    }
}
