//! What an event says of the state that it left and of how it is booked: at the end of each form.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wallet::{Booking, CounterAccount, EventBody, Slice, Status, WalletState};

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
    #[serde(flatten)]
    pub booking: BookingData,
}

/// The same, where an event always says it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WholeState {
    /// Reserved for open holds, after the event.
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub held_balance: Decimal,
    /// What may be spent after the event: the balance without what is held, with the overdraft.
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub available_balance: Decimal,
    /// Absent: active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Status")]
    pub status: Option<Status>,
    #[serde(flatten)]
    pub booking: BookingData,
}

/// How an event's money is booked, where that does not follow from its type.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BookingData {
    /// What came out of grants, in that order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drawn: Vec<Slice>,
    /// The account on the other side; absent: the one that the type has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CounterAccount")]
    pub counter_account: Option<CounterAccount>,
    /// When it counts from; absent: when it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Moment")]
    pub effective_at: Option<Moment>,
}

/// A time as events have it: UTC, with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub DateTime<Utc>);

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let pattern = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$";
        schemars::json_schema!({"type": "string", "format": "date-time", "pattern": pattern})
    }
}

impl From<&EventBody> for StateData {
    fn from(body: &EventBody) -> Self {
        let after = &body.after;
        Self {
            held_balance: (!after.held_balance.is_zero()).then_some(after.held_balance),
            available_balance: after.available_balance,
            status: (after.status != Status::Active).then_some(after.status),
            booking: (&body.booking).into(),
        }
    }
}

impl StateData {
    pub(super) fn read(self, balance: Decimal) -> (WalletState, Booking) {
        let after = WalletState {
            balance,
            held_balance: self.held_balance.unwrap_or(Decimal::new(0, balance.scale())),
            available_balance: self.available_balance,
            status: self.status.unwrap_or(Status::Active),
        };
        (after, self.booking.into())
    }
}

impl From<&EventBody> for WholeState {
    fn from(body: &EventBody) -> Self {
        let after = &body.after;
        Self {
            held_balance: after.held_balance,
            available_balance: after.available_balance.unwrap_or(after.balance),
            status: (after.status != Status::Active).then_some(after.status),
            booking: (&body.booking).into(),
        }
    }
}

impl WholeState {
    pub(super) fn read(self, balance: Decimal) -> (WalletState, Booking) {
        let after = WalletState {
            balance,
            held_balance: self.held_balance,
            available_balance: Some(self.available_balance),
            status: self.status.unwrap_or(Status::Active),
        };
        (after, self.booking.into())
    }
}

impl From<&Booking> for BookingData {
    fn from(booking: &Booking) -> Self {
        Self {
            drawn: booking.drawn.clone(),
            counter_account: booking.counter_account,
            effective_at: booking.effective_at.map(Moment),
        }
    }
}

impl From<BookingData> for Booking {
    fn from(data: BookingData) -> Self {
        let effective_at = data.effective_at.map(|at| at.0);
        Self { drawn: data.drawn, counter_account: data.counter_account, effective_at }
    }
}
