//! Double entry, pure: one event → entries that sum to zero.
//!
//! Wallets are what we owe their owners, so a credit raises a wallet with a CREDIT entry and takes
//! a DEBIT on `external`, the outside world. Between the two events of a transfer the money stands
//! on `transfers_in_flight`.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::wallet::{EventData, Metadata, TenantId, WalletId};

/// The account of the outside world, where money comes from and goes to.
pub const EXTERNAL: &str = "external";
/// The account of transfers between their two events.
pub const TRANSFERS_IN_FLIGHT: &str = "transfers_in_flight";
/// The account of every wallet; `wallet_id` says which.
pub const WALLET: &str = "wallet";

/// An event as it is recorded: the input of every projection.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEvent {
    pub tenant: TenantId,
    pub wallet_id: WalletId,
    pub version: i64,
    pub event_id: Uuid,
    pub transaction_id: Uuid,
    pub data: EventData,
    pub created_at: DateTime<Utc>,
}

/// The side of the books that an entry stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Debit,
    Credit,
}

/// What an entry is to its wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionType {
    Credit,
    Debit,
    TransferOut,
    TransferIn,
}

/// One immutable line of the books; those of an event sum to zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Derived from event and leg: a rebuilt ledger has the same ids.
    pub id: Uuid,
    pub account: &'static str,
    /// Set on the wallet's own leg only.
    pub wallet_id: Option<WalletId>,
    pub related_wallet_id: Option<String>,
    pub transaction_type: TransactionType,
    pub side: Side,
    /// Greater than zero.
    pub amount: Decimal,
    pub currency: String,
    /// Before and after, on the wallet's own leg only.
    pub balances: Option<(Decimal, Decimal)>,
    pub description: Option<String>,
    /// The caller's reference, else the transaction's or transfer's id.
    pub reference_id: String,
    pub metadata: Option<Metadata>,
    pub leg: i16,
}

impl Side {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debit => "DEBIT",
            Self::Credit => "CREDIT",
        }
    }

    fn opposite(self) -> Self {
        match self {
            Self::Debit => Self::Credit,
            Self::Credit => Self::Debit,
        }
    }
}

impl TransactionType {
    pub const ALL: [Self; 4] = [Self::Credit, Self::Debit, Self::TransferOut, Self::TransferIn];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "CREDIT",
            Self::Debit => "DEBIT",
            Self::TransferOut => "TRANSFER_OUT",
            Self::TransferIn => "TRANSFER_IN",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The entries of one event: none for a creation, else the wallet's leg and its counterpart.
pub fn entries(event: &RecordedEvent) -> Vec<Entry> {
    let leg = match &event.data {
        EventData::WalletCreated(_) => return Vec::new(),
        EventData::WalletCredited(change) | EventData::WalletDebited(change) => Leg {
            kind: match event.data {
                EventData::WalletCredited(_) => TransactionType::Credit,
                _ => TransactionType::Debit,
            },
            balances: (change.previous_balance, change.new_balance),
            amount: change.change_amount,
            currency: &change.currency,
            description: change.reason.as_ref(),
            reference: change.reference.as_ref(),
            metadata: change.metadata.as_ref(),
            related: None,
        },
        EventData::WalletTransferInitiated(change) | EventData::WalletTransferCompleted(change) => {
            let out = matches!(event.data, EventData::WalletTransferInitiated(_));
            let (kind, related) = if out {
                (TransactionType::TransferOut, &change.to_wallet_id)
            } else {
                (TransactionType::TransferIn, &change.from_wallet_id)
            };
            Leg {
                kind,
                balances: (change.previous_balance, change.new_balance),
                amount: change.change_amount,
                currency: &change.currency,
                description: change.reason.as_ref(),
                reference: change.reference.as_ref(),
                metadata: change.metadata.as_ref(),
                related: Some(related),
            }
        }
    };
    vec![leg.entry(event, 0), leg.entry(event, 1)]
}

/// What both entries of an event share.
struct Leg<'a> {
    kind: TransactionType,
    balances: (Decimal, Decimal),
    amount: Decimal,
    currency: &'a str,
    description: Option<&'a String>,
    reference: Option<&'a String>,
    metadata: Option<&'a Metadata>,
    related: Option<&'a String>,
}

impl Leg<'_> {
    fn entry(&self, event: &RecordedEvent, leg: i16) -> Entry {
        let (wallet_side, system_account) = match self.kind {
            TransactionType::Credit => (Side::Credit, EXTERNAL),
            TransactionType::Debit => (Side::Debit, EXTERNAL),
            TransactionType::TransferOut => (Side::Debit, TRANSFERS_IN_FLIGHT),
            TransactionType::TransferIn => (Side::Credit, TRANSFERS_IN_FLIGHT),
        };
        let own = leg == 0;
        Entry {
            id: Uuid::new_v5(&event.event_id, &leg.to_be_bytes()),
            account: if own { WALLET } else { system_account },
            wallet_id: own.then(|| event.wallet_id.clone()),
            related_wallet_id: if own { self.related.cloned() } else { None },
            transaction_type: self.kind,
            side: if own { wallet_side } else { wallet_side.opposite() },
            amount: self.amount,
            currency: self.currency.to_owned(),
            balances: own.then_some(self.balances),
            description: self.description.cloned().filter(|_| own),
            reference_id: self
                .reference
                .cloned()
                .unwrap_or_else(|| event.transaction_id.to_string()),
            metadata: self.metadata.cloned().filter(|_| own),
            leg,
        }
    }
}
