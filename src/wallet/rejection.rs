//! Why a command was refused: the domain's own refusals, decided on the wallet's state.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{Currency, Expected, WalletId};

/// A refusal with the numbers that explain it. Its serialized form is what an idempotency key keeps
/// of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Rejection {
    WalletNotFound { wallet: WalletId },
    WalletExists { wallet: WalletId },
    WalletFrozen { wallet: WalletId },
    WalletClosed { wallet: WalletId },
    InsufficientFunds { available: Decimal, amount: Decimal },
    BalanceOverflow { wallet: WalletId },
    AmountScale { currency: Currency },
    CurrencyMismatch { from: Currency, to: Currency },
    SameWallet,
    VersionMismatch { expected: Expected, actual: i64 },
}

impl Rejection {
    /// Whether the refusal becomes its idempotency key's outcome for ever. State, funds and limits
    /// could change before a retry, and a retry must not; errors of form and a missing wallet are
    /// the caller's to mend under the same key.
    pub fn is_outcome(&self) -> bool {
        match self {
            Self::WalletExists { .. }
            | Self::WalletFrozen { .. }
            | Self::WalletClosed { .. }
            | Self::InsufficientFunds { .. }
            | Self::BalanceOverflow { .. }
            | Self::CurrencyMismatch { .. } => true,
            Self::WalletNotFound { .. }
            | Self::AmountScale { .. }
            | Self::SameWallet
            | Self::VersionMismatch { .. } => false,
        }
    }
}
