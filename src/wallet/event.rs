//! What happened to a wallet: one type from the decision to the last projection.
//!
//! An event carries the state that it left. What keeps wallets (the write side, the read model,
//! a first answer that is given again) copies that state and knows no kinds of event. What is
//! published and stored of an event is made from it in [`super::wire`].

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Currency, Metadata, Status, TenantId, WalletId, WalletKey};

/// One event of one wallet, as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub tenant: TenantId,
    pub wallet_id: WalletId,
    /// 1..n without a gap.
    pub version: i64,
    pub event_id: Uuid,
    /// Shared by all events of one command; a transfer's id.
    pub transaction_id: Uuid,
    /// The partition of its topic, fixed when it is recorded.
    pub partition: i32,
    pub created_at: DateTime<Utc>,
    /// Empty where a projection reads the event: it needs none of it.
    pub origin: Arc<Origin>,
    pub body: EventBody,
}

impl Event {
    /// The wallet that it is of.
    pub fn wallet(&self) -> WalletKey {
        (self.tenant.clone(), self.wallet_id.clone())
    }
}

/// The request that an event comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    pub actor: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    /// W3C Trace Context.
    pub traceparent: Option<String>,
}

/// What happened and what it left, without the ids and times that recording adds.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBody {
    pub kind: EventKind,
    pub change: Change,
    pub after: WalletState,
    pub currency: Currency,
    /// The caller's description.
    pub reason: Option<String>,
    /// The caller's reference.
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
}

/// The kinds of event, each with what only it has.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// A wallet was opened, at zero: an opening balance is a credit of its own.
    Created {
        owner_id: String,
        overdraft_limit: Decimal,
    },
    Credited,
    Debited,
    /// The source's side of a transfer.
    TransferInitiated {
        to: WalletId,
    },
    /// The destination's side of a transfer.
    TransferCompleted {
        from: WalletId,
    },
}

/// How the balance moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub previous_balance: Decimal,
    /// At least 0.
    pub amount: Decimal,
    pub direction: ChangeType,
}

/// Whether the balance went up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChangeType {
    Credit,
    Debit,
}

/// The state of a wallet after an event: all that an event can change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalletState {
    pub balance: Decimal,
    /// Reserved for open holds, at least 0.
    pub held_balance: Decimal,
    /// What may be spent, the overdraft included. None: nothing is held and the overdraft limit is
    /// the one that the wallet was created with.
    pub available_balance: Option<Decimal>,
    pub status: Status,
}

/// An event to be: the wallet's next version and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub wallet_id: WalletId,
    pub version: i64,
    pub body: EventBody,
}

/// The published name of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    WalletCreated,
    WalletCredited,
    WalletDebited,
    WalletTransferInitiated,
    WalletTransferCompleted,
}

impl WalletState {
    /// None: the one that the wallet was created with.
    pub fn overdraft_limit(&self) -> Option<Decimal> {
        Some(self.available_balance? - self.balance + self.held_balance)
    }
}

impl EventBody {
    /// Bytes of what the caller wrote at will: description, reference and metadata.
    pub fn caller_bytes(&self) -> usize {
        let texts = [&self.reason, &self.reference].into_iter().flatten();
        let texts = texts.map(String::len).sum::<usize>();
        texts + self.metadata.as_ref().map_or(0, |metadata| metadata.as_str().len())
    }
}

impl EventKind {
    pub fn event_type(&self) -> EventType {
        match self {
            Self::Created { .. } => EventType::WalletCreated,
            Self::Credited => EventType::WalletCredited,
            Self::Debited => EventType::WalletDebited,
            Self::TransferInitiated { .. } => EventType::WalletTransferInitiated,
            Self::TransferCompleted { .. } => EventType::WalletTransferCompleted,
        }
    }
}

impl EventType {
    pub const ALL: [Self; 5] = [
        Self::WalletCreated,
        Self::WalletCredited,
        Self::WalletDebited,
        Self::WalletTransferInitiated,
        Self::WalletTransferCompleted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::WalletCreated => "WalletCreated",
            Self::WalletCredited => "WalletCredited",
            Self::WalletDebited => "WalletDebited",
            Self::WalletTransferInitiated => "WalletTransferInitiated",
            Self::WalletTransferCompleted => "WalletTransferCompleted",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
