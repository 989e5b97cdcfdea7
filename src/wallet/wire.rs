//! The `data` of an event as it is stored and published, field for field; docs/EVENTS.md explains it.
//!
//! The JSON Schema of each type is generated from these structs. Amounts are decimals already in
//! their currency's scale, so they print as `"150.00"`. A stored event is read through
//! [`EventBody::from_data`], which knows the forms of all versions.

mod forms;
mod left;

use std::borrow::Cow;

use rust_decimal::Decimal;
use uuid::Uuid;

use super::{
    Change, ChangeType, Currency, EventBody, EventType, Facts, Form, HoldTaken, HoldTerms,
    LimitsChange, WalletId,
};

pub use forms::*;
pub use left::*;

/// The newest form of an event's `data` that this version writes and reads.
pub const SCHEMA_VERSION: i16 = 1;

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
            rest: From::from($body),
        })
    };
}

/// What every form says, read.
macro_rules! read {
    ($data:ident, $kind:ident, $facts:expr, $reference:expr) => {{
        let (after, booking) = $data.rest.read($data.new_balance);
        EventBody {
            kind: $kind,
            facts: $facts,
            change: Change {
                previous_balance: $data.previous_balance,
                amount: $data.change_amount,
                direction: $data.change_type,
            },
            after,
            currency: Currency::parse(&$data.currency)
                .ok_or_else(|| DataError::Currency($data.currency.into_owned()))?,
            reason: $data.reason.map(Cow::into_owned),
            reference: $reference,
            metadata: $data.metadata.map(Cow::into_owned),
            booking,
        }
    }};
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
            _ => self.to_later_data(transaction_id),
        }
    }

    /// The forms that came after the first three.
    fn to_later_data(&self, transaction_id: Uuid) -> serde_json::Result<String> {
        let reference = self.reference.as_deref().map(Cow::Borrowed);
        match &self.facts {
            Facts::Creation { .. } | Facts::Balance | Facts::Transfer { .. } => {
                written!(self, BalanceChange { transaction_id, reference })
            }
            Facts::Hold(terms) => written!(
                self,
                HoldChange {
                    transaction_id,
                    hold_id: terms.hold_id,
                    hold_amount: terms.amount,
                    previous_hold_amount: terms.previous_amount,
                    max_capture: terms.max_capture,
                    expires_at: Moment(terms.expires_at),
                    to_wallet_id: terms.to.as_ref().map(|id| id.as_str().into()),
                    reserved: terms.reserved.clone(),
                    reference,
                }
            ),
            Facts::Capture(taken) => written!(
                self,
                HoldCapture {
                    transaction_id,
                    hold_id: taken.hold_id,
                    captured_total: taken.captured_total,
                    released_amount: taken.released,
                    remaining_amount: taken.remaining,
                    hold_status: taken.status,
                    to_wallet_id: taken.to.as_ref().map(|id| id.as_str().into()),
                    reference,
                }
            ),
            Facts::Release(taken) | Facts::Expiry(taken) => written!(
                self,
                HoldEnd {
                    transaction_id,
                    hold_id: taken.hold_id,
                    released_amount: taken.released,
                    captured_total: taken.captured_total,
                    hold_status: taken.status,
                    reference,
                }
            ),
            Facts::Status { previous, actor } => written!(
                self,
                StatusChange {
                    transaction_id,
                    previous_status: *previous,
                    new_status: self.after.status,
                    actor: actor.as_deref().map(Cow::Borrowed),
                    reference,
                }
            ),
            Facts::Limits(limits) => written!(
                self,
                LimitsData {
                    transaction_id,
                    previous: limits.previous.clone(),
                    new: limits.new.clone(),
                    reference,
                }
            ),
            Facts::Metadata => written!(self, MetadataChange { transaction_id, reference }),
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
            _ => return Self::from_later_data(kind, data),
        })
    }

    /// The forms that came after the first three.
    fn from_later_data(kind: EventType, data: &str) -> Result<Self, DataError> {
        Ok(match kind.form() {
            Form::Creation | Form::Balance | Form::Transfer => {
                return Err(DataError::Type(kind.as_str().to_owned()));
            }
            Form::Hold => {
                let data: HoldChange<'_> = serde_json::from_str(data)?;
                let facts = Facts::Hold(Box::new(HoldTerms {
                    hold_id: data.hold_id,
                    amount: data.hold_amount,
                    previous_amount: data.previous_hold_amount,
                    max_capture: data.max_capture,
                    expires_at: data.expires_at.0,
                    to: data.to_wallet_id.as_deref().map(WalletId::stored),
                    reserved: data.reserved,
                }));
                read!(data, kind, facts, data.reference.map(Cow::into_owned))
            }
            Form::Capture => {
                let data: HoldCapture<'_> = serde_json::from_str(data)?;
                let facts = Facts::Capture(Box::new(HoldTaken {
                    hold_id: data.hold_id,
                    captured_total: data.captured_total,
                    released: data.released_amount,
                    remaining: data.remaining_amount,
                    status: data.hold_status,
                    to: data.to_wallet_id.as_deref().map(WalletId::stored),
                }));
                read!(data, kind, facts, data.reference.map(Cow::into_owned))
            }
            Form::Release | Form::Expiry => {
                let data: HoldEnd<'_> = serde_json::from_str(data)?;
                let taken = Box::new(HoldTaken {
                    hold_id: data.hold_id,
                    captured_total: data.captured_total,
                    released: data.released_amount,
                    remaining: Decimal::new(0, data.released_amount.scale()),
                    status: data.hold_status,
                    to: None,
                });
                let is_release = kind.form() == Form::Release;
                let facts = if is_release { Facts::Release(taken) } else { Facts::Expiry(taken) };
                read!(data, kind, facts, data.reference.map(Cow::into_owned))
            }
            Form::Status => {
                let data: StatusChange<'_> = serde_json::from_str(data)?;
                let actor = data.actor.map(Cow::into_owned);
                let facts = Facts::Status { previous: data.previous_status, actor };
                read!(data, kind, facts, data.reference.map(Cow::into_owned))
            }
            Form::Limits => {
                let data: LimitsData<'_> = serde_json::from_str(data)?;
                let change = LimitsChange { previous: data.previous, new: data.new };
                let facts = Facts::Limits(Box::new(change));
                read!(data, kind, facts, data.reference.map(Cow::into_owned))
            }
            Form::Metadata => {
                let data: MetadataChange<'_> = serde_json::from_str(data)?;
                read!(data, kind, Facts::Metadata, data.reference.map(Cow::into_owned))
            }
        })
    }
}

#[cfg(test)]
mod tests;
