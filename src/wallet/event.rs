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
    pub kind: EventType,
    /// In the form that the kind has.
    pub facts: Facts,
    pub change: Change,
    pub after: WalletState,
    pub currency: Currency,
    /// The caller's description.
    pub reason: Option<String>,
    /// The caller's reference.
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
}

/// What an event says beside its change, by the form of its `data`.
#[derive(Debug, Clone, PartialEq)]
pub enum Facts {
    /// A wallet was opened, at zero: an opening balance is a credit of its own.
    Creation { owner_id: String, overdraft_limit: Decimal },
    /// A balance changed, and that is all.
    Balance,
    /// One side of a transfer, with the wallet on the other.
    Transfer { other: WalletId },
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

/// The forms of an event's `data`: each has its type in [`super::wire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Creation,
    Balance,
    Transfer,
}

/// Where an event's money comes from or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counterpart {
    /// No money moves.
    Nowhere,
    Outside,
    /// Another wallet, whose side of it is an event of its own.
    Wallet,
}

/// Every kind of event, once: its published name, which way it moves a balance, the form of its `data`, and
/// where its money comes from or goes to. Schemas and entries follow from here.
macro_rules! event_types {
    ($($kind:ident $direction:ident $form:ident $counterpart:ident;)*) => {
        /// A kind of event, by its published name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventType { $($kind),* }

        impl EventType {
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind)),* }
            }
            pub fn direction(self) -> ChangeType {
                match self { $(Self::$kind => ChangeType::$direction),* }
            }
            pub fn form(self) -> Form {
                match self { $(Self::$kind => Form::$form),* }
            }
            pub fn counterpart(self) -> Counterpart {
                match self { $(Self::$kind => Counterpart::$counterpart),* }
            }
        }
    };
}

event_types! {
    WalletCreated Credit Creation Nowhere;
    WalletCredited Credit Balance Outside;
    WalletDebited Debit Balance Outside;
    WalletTransferInitiated Debit Transfer Wallet;
    WalletTransferCompleted Credit Transfer Wallet;
}

impl EventType {
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
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
