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
    Change, ChangeType, Currency, EventBody, EventType, Facts, Form, Metadata, Status, WalletId,
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

/// Declares the `data` of events that change a balance: fields of its own, then those that all have.
macro_rules! changes {
    ($($(#[$about:meta])* pub struct $Data:ident { $($(#[$note:meta])* $field:ident: $Type:ty,)* })*) => {$(
        $(#[$about])*
        #[derive(Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $Data<'a> {
            $($(#[$note])* pub $field: $Type,)*
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
    )*};
}

changes! {
    /// A wallet's balance changed against the outside world.
    pub struct BalanceChange {
        transaction_id: Uuid,
    }

    /// One side of a transfer between two wallets.
    pub struct TransferChange {
        /// Shared by both sides.
        transfer_id: Uuid,
        from_wallet_id: Cow<'a, str>,
        to_wallet_id: Cow<'a, str>,
    }
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

/// The JSON of a form: its own fields, and those that every form has.
macro_rules! written {
    ($body:expr, $Data:ident { $($own:ident $(: $value:expr)?),* $(,)? }) => {
        serde_json::to_string(&$Data {
            $($own $(: $value)?,)*
            previous_balance: $body.change.previous_balance,
            new_balance: $body.after.balance,
            change_amount: $body.change.amount,
            change_type: $body.change.direction,
            reason: $body.reason.as_deref().map(Cow::Borrowed),
            currency: $body.currency.code().into(),
            metadata: $body.metadata.as_ref().map(Cow::Borrowed),
            rest: StateData::of(&$body.after),
        })
    };
}

/// What every form says, read.
macro_rules! read {
    ($data:ident, $kind:ident, $facts:expr, $reference:expr) => {
        EventBody {
            kind: $kind,
            facts: $facts,
            change: Change {
                previous_balance: $data.previous_balance,
                amount: $data.change_amount,
                direction: $data.change_type,
            },
            after: $data.rest.after($data.new_balance),
            currency: Currency::parse(&$data.currency)
                .ok_or_else(|| DataError::Currency($data.currency.into_owned()))?,
            reason: $data.reason.map(Cow::into_owned),
            reference: $reference,
            metadata: $data.metadata.map(Cow::into_owned),
        }
    };
}

impl EventBody {
    /// The `data` that is stored and published of this event of `wallet`.
    pub fn to_data(&self, wallet: &WalletId, transaction_id: Uuid) -> serde_json::Result<String> {
        let reference = self.reference.as_deref().map(Cow::Borrowed);
        match &self.facts {
            Facts::Creation { owner_id, overdraft_limit } => written!(
                self,
                WalletCreated {
                    transaction_id,
                    owner_id: owner_id.into(),
                    overdraft_limit: *overdraft_limit,
                }
            ),
            Facts::Balance => written!(self, BalanceChange { transaction_id, reference }),
            Facts::Transfer { other } => {
                let (from, to) = match self.kind.direction() {
                    ChangeType::Debit => (wallet, other),
                    ChangeType::Credit => (other, wallet),
                };
                written!(
                    self,
                    TransferChange {
                        transfer_id: transaction_id,
                        from_wallet_id: from.as_str().into(),
                        to_wallet_id: to.as_str().into(),
                        reference,
                    }
                )
            }
        }
    }

    /// Reads a stored event's `data`, by the type and the schema version that stand beside it. A form
    /// of an older version is brought up to today's here.
    pub fn from_data(event_type: &str, schema_version: i16, data: &str) -> Result<Self, DataError> {
        let kind =
            EventType::parse(event_type).ok_or_else(|| DataError::Type(event_type.to_owned()))?;
        if schema_version > SCHEMA_VERSION {
            return Err(DataError::SchemaVersion(schema_version));
        }
        Ok(match kind.form() {
            Form::Creation => {
                let data: WalletCreated<'_> = serde_json::from_str(data)?;
                let owner_id = data.owner_id.into_owned();
                let facts = Facts::Creation { owner_id, overdraft_limit: data.overdraft_limit };
                read!(data, kind, facts, None)
            }
            Form::Balance => {
                let data: BalanceChange<'_> = serde_json::from_str(data)?;
                read!(data, kind, Facts::Balance, data.reference.map(Cow::into_owned))
            }
            Form::Transfer => {
                let data: TransferChange<'_> = serde_json::from_str(data)?;
                let other = match kind.direction() {
                    ChangeType::Debit => WalletId::stored(&data.to_wallet_id),
                    ChangeType::Credit => WalletId::stored(&data.from_wallet_id),
                };
                read!(data, kind, Facts::Transfer { other }, data.reference.map(Cow::into_owned))
            }
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn body(kind: EventType, after: WalletState) -> EventBody {
        EventBody {
            kind,
            facts: match kind.form() {
                Form::Creation => {
                    Facts::Creation { owner_id: "ann".to_owned(), overdraft_limit: Decimal::ONE }
                }
                Form::Balance => Facts::Balance,
                Form::Transfer => Facts::Transfer { other: WalletId::stored("b") },
            },
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

    /// Pinned to the byte: consumers and stored events know this form.
    #[test]
    fn a_credit_is_written_as_it_always_was() {
        assert_eq!(
            written(&body(EventType::WalletCredited, plain())),
            r#"{"transactionId":"00000000-0000-0000-0000-000000000000","previousBalance":"100.00","newBalance":"102.50","changeAmount":"2.50","changeType":"CREDIT","reason":"rent \"may\"","currency":"USD","reference":null,"metadata":{"n":1.10}}"#
        );
        let out = written(&body(EventType::WalletTransferInitiated, plain()));
        assert!(out.contains(r#""fromWalletId":"a","toWalletId":"b""#), "{out}");
        let into = written(&body(EventType::WalletTransferCompleted, plain()));
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
            for kind in EventType::ALL {
                let mut event = body(*kind, after);
                if kind.form() == Form::Creation {
                    event.reference = None;
                }
                let read =
                    EventBody::from_data(kind.as_str(), SCHEMA_VERSION, &written(&event)).unwrap();
                assert_eq!(read, event);
                assert_eq!(read.after.overdraft_limit(), event.after.overdraft_limit());
            }
        }
        assert_eq!(held.overdraft_limit(), Some(Decimal::new(2_000, 2)));
    }

    #[test]
    fn what_cannot_be_known_is_refused_by_name() {
        let data = written(&body(EventType::WalletCredited, plain()));
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
