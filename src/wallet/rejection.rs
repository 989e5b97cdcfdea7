//! Why a command was refused: the domain's own refusals, decided on the wallet's state.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ClosedBy, Currency, Expected, Hold, HoldStatus, Status, WalletId};

/// A refusal with the numbers that explain it. Its serialized form is what an idempotency key keeps
/// of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Rejection {
    WalletNotFound {
        wallet: WalletId,
    },
    WalletExists {
        wallet: WalletId,
    },
    WalletFrozen {
        wallet: WalletId,
    },
    WalletSuspended {
        wallet: WalletId,
    },
    WalletClosed {
        wallet: WalletId,
    },
    /// What explains it is absent in refusals that were kept before it was noted.
    InsufficientFunds {
        available: Decimal,
        amount: Decimal,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        funds: Option<Box<Funds>>,
    },
    BalanceOverflow {
        wallet: WalletId,
    },
    AmountScale {
        currency: Currency,
    },
    CurrencyMismatch {
        from: Currency,
        to: Currency,
    },
    SameWallet,
    VersionMismatch {
        expected: Expected,
        actual: i64,
    },
    /// A field of the request cannot be used, as it turns out.
    InvalidField {
        field: String,
        rule: String,
    },
    /// One of several fields is needed, of which none is there.
    MissingField {
        field: String,
        rule: String,
    },
    HoldNotFound {
        hold: Uuid,
    },
    HoldExists {
        hold: Uuid,
    },
    HoldClosed {
        hold: Uuid,
        status: HoldStatus,
        closed_by: ClosedBy,
        closed_at: DateTime<Utc>,
    },
    HoldExpired {
        hold: Uuid,
        status: HoldStatus,
        closed_by: ClosedBy,
        closed_at: DateTime<Utc>,
    },
    AmountExceedsHold {
        amount: Decimal,
        left: Decimal,
    },
    BelowCaptured {
        amount: Decimal,
        captured: Decimal,
    },
    TooManyHolds {
        max: i64,
    },
    StatusUnchanged {
        wallet: WalletId,
        status: Status,
    },
    WalletNotEmpty {
        wallet: WalletId,
        balance: Decimal,
    },
    WalletHasHolds {
        wallet: WalletId,
        open: i64,
    },
    /// The new limit would be below what is owed and on hold.
    LimitInUse {
        used: Decimal,
    },
    /// The hold's destination was not known when the command was queued, and is not locked: the same
    /// command finds it the next time.
    Unlocked {
        hold: Uuid,
    },
    MoneyEventsOff {
        op: String,
    },
}

/// What a wallet has where it has too little.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Funds {
    /// The balance without what is held.
    pub own: Decimal,
    /// The balance without grants.
    pub main: Decimal,
    pub held: Decimal,
    pub overdraft_limit: Decimal,
    /// The largest open holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HoldBrief>,
}

/// An open hold as a refusal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldBrief {
    pub id: Uuid,
    /// What remains.
    pub amount: Decimal,
    pub expires_at: DateTime<Utc>,
}

impl HoldBrief {
    /// So many are named, the largest.
    pub const MAX: usize = 5;

    pub fn of(hold: &Hold) -> Self {
        Self { id: hold.id, amount: hold.remaining(), expires_at: hold.expires_at }
    }
}

impl Rejection {
    /// Whether the refusal becomes its idempotency key's outcome for ever. State, funds and limits
    /// could change before a retry, and a retry must not; errors of form and what is missing are
    /// the caller's to mend under the same key.
    pub fn is_outcome(&self) -> bool {
        match self {
            Self::WalletExists { .. }
            | Self::WalletFrozen { .. }
            | Self::WalletSuspended { .. }
            | Self::WalletClosed { .. }
            | Self::InsufficientFunds { .. }
            | Self::BalanceOverflow { .. }
            | Self::CurrencyMismatch { .. }
            | Self::HoldExists { .. }
            | Self::HoldClosed { .. }
            | Self::HoldExpired { .. }
            | Self::AmountExceedsHold { .. }
            | Self::BelowCaptured { .. }
            | Self::TooManyHolds { .. }
            | Self::StatusUnchanged { .. }
            | Self::WalletNotEmpty { .. }
            | Self::WalletHasHolds { .. }
            | Self::LimitInUse { .. } => true,
            Self::WalletNotFound { .. }
            | Self::AmountScale { .. }
            | Self::SameWallet
            | Self::VersionMismatch { .. }
            | Self::InvalidField { .. }
            | Self::MissingField { .. }
            | Self::HoldNotFound { .. }
            | Self::Unlocked { .. }
            | Self::MoneyEventsOff { .. } => false,
        }
    }
}
