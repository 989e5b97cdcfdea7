//! Why a command was refused: the domain's own refusals, decided on the wallet's state.

use rust_decimal::Decimal;

use super::{Currency, Expected, WalletId};

/// A refusal with the numbers that explain it. Comparable, closed, stable in its code.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub fn code(&self) -> &'static str {
        match self {
            Self::WalletNotFound { .. } => "wallet_not_found",
            Self::WalletExists { .. } => "wallet_exists",
            Self::WalletFrozen { .. } => "wallet_frozen",
            Self::WalletClosed { .. } => "wallet_closed",
            Self::InsufficientFunds { .. } => "insufficient_funds",
            Self::BalanceOverflow { .. } => "balance_overflow",
            Self::AmountScale { .. } => "amount_scale",
            Self::CurrencyMismatch { .. } => "currency_mismatch",
            Self::SameWallet => "same_wallet",
            Self::VersionMismatch { .. } => "version_mismatch",
        }
    }

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
