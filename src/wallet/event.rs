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

use super::{
    CounterAccount, Currency, HoldTaken, HoldTerms, Metadata, Slice, Status, TenantId, WalletId,
    WalletKey,
};

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
    /// What the caller noted; of a [`Facts::Metadata`] the wallet's own from now on.
    pub metadata: Option<Metadata>,
    pub booking: Booking,
}

/// How the event's money is booked, where that does not follow from its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Booking {
    /// What came out of grants, in that order; the rest is the wallet's own.
    pub drawn: Vec<Slice>,
    /// None: the one that the kind of event has.
    pub counter_account: Option<CounterAccount>,
    /// When it counts from; none: when it was recorded.
    pub effective_at: Option<DateTime<Utc>>,
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
    /// A hold was placed, or its terms were changed.
    Hold(Box<HoldTerms>),
    /// Money of a hold was taken.
    Capture(Box<HoldTaken>),
    /// What was left of a hold was given back.
    Release(Box<HoldTaken>),
    /// The same, since its time had come.
    Expiry(Box<HoldTaken>),
    /// The wallet may do more, or less, than before.
    Status { previous: Status, actor: Option<String> },
    /// Its limits are others.
    Limits(Box<LimitsChange>),
    /// Its metadata are others.
    Metadata,
}

/// The limits of a wallet before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitsChange {
    pub previous: Limits,
    pub new: Limits,
}

/// What limits a wallet's spending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Limits {
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub overdraft_limit: Decimal,
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
    Hold,
    Capture,
    Release,
    Expiry,
    Status,
    Limits,
    Metadata,
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
    WalletHoldPlaced Credit Hold Nowhere;
    WalletHoldAdjusted Credit Hold Nowhere;
    WalletHoldCaptured Debit Capture Outside;
    WalletHoldReleased Credit Release Nowhere;
    WalletHoldExpired Credit Expiry Nowhere;
    WalletStatusChanged Credit Status Nowhere;
    WalletLimitsChanged Credit Limits Nowhere;
    WalletMetadataChanged Credit Metadata Nowhere;
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
    /// The account on the other side of the event's money; none where no money moves.
    pub fn counter_account(&self) -> Option<CounterAccount> {
        let of_kind = match (self.kind.counterpart(), &self.facts) {
            (Counterpart::Nowhere, _) => return None,
            (Counterpart::Wallet, _) => CounterAccount::TransfersInFlight,
            (Counterpart::Outside, Facts::Capture(taken)) if taken.to.is_some() => {
                CounterAccount::TransfersInFlight
            }
            (Counterpart::Outside, _) => CounterAccount::External,
        };
        Some(self.booking.counter_account.unwrap_or(of_kind))
    }

    /// The other wallet that the money comes from or goes to.
    pub fn related_wallet(&self) -> Option<&WalletId> {
        match &self.facts {
            Facts::Transfer { other } => Some(other),
            Facts::Capture(taken) => taken.to.as_ref(),
            _ => None,
        }
    }

    /// Bytes of what the caller wrote at will: description, reference and metadata.
    pub fn caller_bytes(&self) -> usize {
        let texts = [&self.reason, &self.reference].into_iter().flatten();
        let texts = texts.map(String::len).sum::<usize>();
        texts + self.metadata.as_ref().map_or(0, |metadata| metadata.as_str().len())
    }
}
