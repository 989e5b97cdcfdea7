//! What happened to a wallet: the `data` of a published event, field for field.
//!
//! Amounts are decimals already in their currency's scale, so they print as `"150.00"`. The JSON
//! Schema of each type is generated from these structs; docs/EVENTS.md explains them.

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Metadata;

/// The five kinds of event, under their published names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    WalletCreated,
    WalletCredited,
    WalletDebited,
    WalletTransferInitiated,
    WalletTransferCompleted,
}

/// Whether the balance went up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChangeType {
    Credit,
    Debit,
}

/// One event's facts. Serialized bare: the type travels beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EventData {
    WalletCreated(WalletCreated),
    WalletCredited(BalanceChange),
    WalletDebited(BalanceChange),
    /// The source's side of a transfer.
    WalletTransferInitiated(TransferChange),
    /// The destination's side of a transfer.
    WalletTransferCompleted(TransferChange),
}

/// A wallet was opened. Its balance starts at zero: an opening balance is a credit of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalletCreated {
    pub transaction_id: Uuid,
    pub owner_id: String,
    /// ISO 4217 code.
    pub currency: String,
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub overdraft_limit: Decimal,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub previous_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub new_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub change_amount: Decimal,
    pub change_type: ChangeType,
    pub reason: Option<String>,
    pub metadata: Option<Metadata>,
}

/// A wallet's balance changed against the outside world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BalanceChange {
    pub transaction_id: Uuid,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub previous_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub new_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub change_amount: Decimal,
    pub change_type: ChangeType,
    /// The caller's description.
    pub reason: Option<String>,
    /// ISO 4217 code.
    pub currency: String,
    /// The caller's reference.
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
}

/// One side of a transfer between two wallets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferChange {
    /// Shared by both sides.
    pub transfer_id: Uuid,
    pub from_wallet_id: String,
    pub to_wallet_id: String,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub previous_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub new_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub change_amount: Decimal,
    pub change_type: ChangeType,
    /// The caller's description.
    pub reason: Option<String>,
    /// ISO 4217 code.
    pub currency: String,
    /// The caller's reference.
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
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

impl EventData {
    pub fn event_type(&self) -> EventType {
        match self {
            Self::WalletCreated(_) => EventType::WalletCreated,
            Self::WalletCredited(_) => EventType::WalletCredited,
            Self::WalletDebited(_) => EventType::WalletDebited,
            Self::WalletTransferInitiated(_) => EventType::WalletTransferInitiated,
            Self::WalletTransferCompleted(_) => EventType::WalletTransferCompleted,
        }
    }

    /// Reads `data` back as the type that travelled beside it.
    pub fn from_json(kind: EventType, json: &str) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            EventType::WalletCreated => Self::WalletCreated(serde_json::from_str(json)?),
            EventType::WalletCredited => Self::WalletCredited(serde_json::from_str(json)?),
            EventType::WalletDebited => Self::WalletDebited(serde_json::from_str(json)?),
            EventType::WalletTransferInitiated => {
                Self::WalletTransferInitiated(serde_json::from_str(json)?)
            }
            EventType::WalletTransferCompleted => {
                Self::WalletTransferCompleted(serde_json::from_str(json)?)
            }
        })
    }

    /// Bytes of what the caller wrote at will: description, reference and metadata.
    pub fn caller_bytes(&self) -> usize {
        let (reason, reference, metadata) = match self {
            Self::WalletCreated(created) => (&created.reason, &None, &created.metadata),
            Self::WalletCredited(change) | Self::WalletDebited(change) => {
                (&change.reason, &change.reference, &change.metadata)
            }
            Self::WalletTransferInitiated(change) | Self::WalletTransferCompleted(change) => {
                (&change.reason, &change.reference, &change.metadata)
            }
        };
        let texts = [reason, reference].into_iter().flatten().map(String::len).sum::<usize>();
        texts + metadata.as_ref().map_or(0, |metadata| metadata.as_str().len())
    }

    /// The balance that the event left behind.
    pub fn new_balance(&self) -> Decimal {
        match self {
            Self::WalletCreated(created) => created.new_balance,
            Self::WalletCredited(change) | Self::WalletDebited(change) => change.new_balance,
            Self::WalletTransferInitiated(change) | Self::WalletTransferCompleted(change) => {
                change.new_balance
            }
        }
    }
}
