//! The `data` of an event as it is stored and published, field for field; docs/EVENTS.md explains it.
//!
//! The JSON Schema of each type is generated from these structs. Amounts are decimals already in
//! their currency's scale, so they print as `"150.00"`. A stored event is read through
//! [`EventBody::from_data`], which knows the forms of all versions.

use std::borrow::Cow;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Change, ChangeType, Currency, EventBody, EventKind, EventType, Metadata, Status, WalletId,
    WalletState,
};

/// The newest form of an event's `data` that this version writes and reads.
pub const SCHEMA_VERSION: i16 = 1;

/// A wallet was opened. Its balance starts at zero: an opening balance is a credit of its own.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalletCreated<'a> {
    pub transaction_id: Uuid,
    pub owner_id: Cow<'a, str>,
    /// ISO 4217 code.
    pub currency: Cow<'a, str>,
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub overdraft_limit: Decimal,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub previous_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub new_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub change_amount: Decimal,
    pub change_type: ChangeType,
    pub reason: Option<Cow<'a, str>>,
    pub metadata: Option<Cow<'a, Metadata>>,
    #[serde(flatten)]
    pub rest: StateData,
}

/// A wallet's balance changed against the outside world.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BalanceChange<'a> {
    pub transaction_id: Uuid,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub previous_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub new_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub change_amount: Decimal,
    pub change_type: ChangeType,
    /// The caller's description.
    pub reason: Option<Cow<'a, str>>,
    /// ISO 4217 code.
    pub currency: Cow<'a, str>,
    /// The caller's reference.
    pub reference: Option<Cow<'a, str>>,
    pub metadata: Option<Cow<'a, Metadata>>,
    #[serde(flatten)]
    pub rest: StateData,
}

/// One side of a transfer between two wallets.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferChange<'a> {
    /// Shared by both sides.
    pub transfer_id: Uuid,
    pub from_wallet_id: Cow<'a, str>,
    pub to_wallet_id: Cow<'a, str>,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub previous_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub new_balance: Decimal,
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub change_amount: Decimal,
    pub change_type: ChangeType,
    /// The caller's description.
    pub reason: Option<Cow<'a, str>>,
    /// ISO 4217 code.
    pub currency: Cow<'a, str>,
    /// The caller's reference.
    pub reference: Option<Cow<'a, str>>,
    pub metadata: Option<Cow<'a, Metadata>>,
    #[serde(flatten)]
    pub rest: StateData,
}

/// What an event says of its wallet's state beside the balance. What is absent is as the wallet was
/// created: nothing is held, the limit is the first one, the wallet is active.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateData {
    /// Reserved for open holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub held_balance: Option<Decimal>,
    /// What may be spent: the balance without what is held, with the overdraft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub available_balance: Option<Decimal>,
    /// Absent: active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Status")]
    pub status: Option<Status>,
}

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("unknown event type {0}")]
    Type(String),
    /// Written by a newer version of the service: what it means is not known here.
    #[error("schema version {0} is not yet known")]
    SchemaVersion(i16),
    #[error("unknown currency {0}")]
    Currency(String),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl DataError {
    /// A newer version of the service may know what it means.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Type(_) | Self::SchemaVersion(_))
    }
}

impl EventBody {
    /// The `data` that is stored and published of this event of `wallet`.
    pub fn to_data(&self, wallet: &WalletId, transaction_id: Uuid) -> serde_json::Result<String> {
        match &self.kind {
            EventKind::Created { owner_id, overdraft_limit } => {
                serde_json::to_string(&WalletCreated {
                    transaction_id,
                    owner_id: owner_id.into(),
                    currency: self.currency.code().into(),
                    overdraft_limit: *overdraft_limit,
                    previous_balance: self.change.previous_balance,
                    new_balance: self.after.balance,
                    change_amount: self.change.amount,
                    change_type: self.change.direction,
                    reason: self.reason.as_deref().map(Cow::Borrowed),
                    metadata: self.metadata.as_ref().map(Cow::Borrowed),
                    rest: StateData::of(&self.after),
                })
            }
            EventKind::Credited | EventKind::Debited => serde_json::to_string(&BalanceChange {
                transaction_id,
                previous_balance: self.change.previous_balance,
                new_balance: self.after.balance,
                change_amount: self.change.amount,
                change_type: self.change.direction,
                reason: self.reason.as_deref().map(Cow::Borrowed),
                currency: self.currency.code().into(),
                reference: self.reference.as_deref().map(Cow::Borrowed),
                metadata: self.metadata.as_ref().map(Cow::Borrowed),
                rest: StateData::of(&self.after),
            }),
            EventKind::TransferInitiated { to } => self.side(transaction_id, wallet, to),
            EventKind::TransferCompleted { from } => self.side(transaction_id, from, wallet),
        }
    }

    fn side(
        &self,
        transfer_id: Uuid,
        from: &WalletId,
        to: &WalletId,
    ) -> serde_json::Result<String> {
        serde_json::to_string(&TransferChange {
            transfer_id,
            from_wallet_id: from.as_str().into(),
            to_wallet_id: to.as_str().into(),
            previous_balance: self.change.previous_balance,
            new_balance: self.after.balance,
            change_amount: self.change.amount,
            change_type: self.change.direction,
            reason: self.reason.as_deref().map(Cow::Borrowed),
            currency: self.currency.code().into(),
            reference: self.reference.as_deref().map(Cow::Borrowed),
            metadata: self.metadata.as_ref().map(Cow::Borrowed),
            rest: StateData::of(&self.after),
        })
    }

    /// Reads a stored event's `data`, by the type and the schema version that stand beside it. A form
    /// of an older version is brought up to today's here.
    pub fn from_data(event_type: &str, schema_version: i16, data: &str) -> Result<Self, DataError> {
        let kind =
            EventType::parse(event_type).ok_or_else(|| DataError::Type(event_type.to_owned()))?;
        if schema_version > SCHEMA_VERSION {
            return Err(DataError::SchemaVersion(schema_version));
        }
        match kind {
            EventType::WalletCreated => created(serde_json::from_str(data)?),
            EventType::WalletCredited => moved(EventKind::Credited, serde_json::from_str(data)?),
            EventType::WalletDebited => moved(EventKind::Debited, serde_json::from_str(data)?),
            EventType::WalletTransferInitiated => {
                transferred(serde_json::from_str(data)?, |data| EventKind::TransferInitiated {
                    to: WalletId::stored(&data.to_wallet_id),
                })
            }
            EventType::WalletTransferCompleted => {
                transferred(serde_json::from_str(data)?, |data| EventKind::TransferCompleted {
                    from: WalletId::stored(&data.from_wallet_id),
                })
            }
        }
    }
}

impl StateData {
    fn of(after: &WalletState) -> Self {
        Self {
            held_balance: (!after.held_balance.is_zero()).then_some(after.held_balance),
            available_balance: after.available_balance,
            status: (after.status != Status::Active).then_some(after.status),
        }
    }

    fn after(self, balance: Decimal) -> WalletState {
        WalletState {
            balance,
            held_balance: self.held_balance.unwrap_or(Decimal::new(0, balance.scale())),
            available_balance: self.available_balance,
            status: self.status.unwrap_or(Status::Active),
        }
    }
}

fn created(data: WalletCreated<'_>) -> Result<EventBody, DataError> {
    let owner_id = data.owner_id.into_owned();
    Ok(EventBody {
        kind: EventKind::Created { owner_id, overdraft_limit: data.overdraft_limit },
        change: change(data.previous_balance, data.change_amount, data.change_type),
        after: data.rest.after(data.new_balance),
        currency: currency(&data.currency)?,
        reason: data.reason.map(Cow::into_owned),
        reference: None,
        metadata: data.metadata.map(Cow::into_owned),
    })
}

fn moved(kind: EventKind, data: BalanceChange<'_>) -> Result<EventBody, DataError> {
    Ok(EventBody {
        kind,
        change: change(data.previous_balance, data.change_amount, data.change_type),
        after: data.rest.after(data.new_balance),
        currency: currency(&data.currency)?,
        reason: data.reason.map(Cow::into_owned),
        reference: data.reference.map(Cow::into_owned),
        metadata: data.metadata.map(Cow::into_owned),
    })
}

fn transferred(
    data: TransferChange<'_>,
    kind: impl FnOnce(&TransferChange<'_>) -> EventKind,
) -> Result<EventBody, DataError> {
    Ok(EventBody {
        kind: kind(&data),
        change: change(data.previous_balance, data.change_amount, data.change_type),
        after: data.rest.after(data.new_balance),
        currency: currency(&data.currency)?,
        reason: data.reason.map(Cow::into_owned),
        reference: data.reference.map(Cow::into_owned),
        metadata: data.metadata.map(Cow::into_owned),
    })
}

fn change(previous_balance: Decimal, amount: Decimal, direction: ChangeType) -> Change {
    Change { previous_balance, amount, direction }
}

fn currency(code: &str) -> Result<Currency, DataError> {
    Currency::parse(code).ok_or_else(|| DataError::Currency(code.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(kind: EventKind, after: WalletState) -> EventBody {
        EventBody {
            kind,
            change: Change {
                previous_balance: Decimal::new(10_000, 2),
                amount: Decimal::new(250, 2),
                direction: ChangeType::Credit,
            },
            after,
            currency: Currency::USD,
            reason: Some("rent \"may\"".to_owned()),
            reference: None,
            metadata: Metadata::parse(r#"{"n":1.10}"#).ok(),
        }
    }

    fn plain() -> WalletState {
        WalletState {
            balance: Decimal::new(10_250, 2),
            held_balance: Decimal::new(0, 2),
            available_balance: None,
            status: Status::Active,
        }
    }

    fn written(body: &EventBody) -> String {
        body.to_data(&WalletId::stored("a"), Uuid::nil()).unwrap()
    }

    fn kinds() -> [EventKind; 5] {
        let other = WalletId::stored("b");
        [
            EventKind::Created { owner_id: "ann".to_owned(), overdraft_limit: Decimal::ONE },
            EventKind::Credited,
            EventKind::Debited,
            EventKind::TransferInitiated { to: other.clone() },
            EventKind::TransferCompleted { from: other },
        ]
    }

    /// Pinned to the byte: consumers and stored events know this form.
    #[test]
    fn a_credit_is_written_as_it_always_was() {
        assert_eq!(
            written(&body(EventKind::Credited, plain())),
            r#"{"transactionId":"00000000-0000-0000-0000-000000000000","previousBalance":"100.00","newBalance":"102.50","changeAmount":"2.50","changeType":"CREDIT","reason":"rent \"may\"","currency":"USD","reference":null,"metadata":{"n":1.10}}"#
        );
        let out =
            written(&body(EventKind::TransferInitiated { to: WalletId::stored("b") }, plain()));
        assert!(out.contains(r#""fromWalletId":"a","toWalletId":"b""#), "{out}");
        let into =
            written(&body(EventKind::TransferCompleted { from: WalletId::stored("b") }, plain()));
        assert!(into.contains(r#""fromWalletId":"b","toWalletId":"a""#), "{into}");
    }

    #[test]
    fn what_is_written_is_read_back_whatever_state_it_left() {
        let held = WalletState {
            held_balance: Decimal::new(3_000, 2),
            available_balance: Some(Decimal::new(9_250, 2)),
            status: Status::Frozen,
            ..plain()
        };
        for after in [plain(), held] {
            for kind in kinds() {
                let event = body(kind, after);
                let name = event.kind.event_type().as_str();
                let read = EventBody::from_data(name, SCHEMA_VERSION, &written(&event)).unwrap();
                assert_eq!(read, event);
                assert_eq!(read.after.overdraft_limit(), event.after.overdraft_limit());
            }
        }
        assert_eq!(held.overdraft_limit(), Some(Decimal::new(2_000, 2)));
    }

    #[test]
    fn what_cannot_be_known_is_refused_by_name() {
        let data = written(&body(EventKind::Credited, plain()));
        let read = |name: &str, version, data: &str| {
            EventBody::from_data(name, version, data).map_err(|error| error.to_string())
        };
        assert!(read("WalletCredited", SCHEMA_VERSION, &data).is_ok());
        let newer = read("WalletCredited", SCHEMA_VERSION + 1, &data).unwrap_err();
        assert_eq!(newer, "schema version 2 is not yet known");
        assert_eq!(read("WalletFrozen", 1, &data).unwrap_err(), "unknown event type WalletFrozen");
        let strange = data.replace("USD", "XXX");
        assert_eq!(read("WalletCredited", 1, &strange).unwrap_err(), "unknown currency XXX");
        assert!(read("WalletCredited", 1, "{}").unwrap_err().contains("missing field"));
    }
}
