//! The forms of `data`, field for field.

use std::borrow::Cow;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Moment, StateData, WholeState};
use crate::wallet::{ChangeType, HoldStatus, Limits, Metadata, Slice, Status};

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

/// Declares the `data` of events: fields of its own, then those that all have.
macro_rules! changes {
    ($rest:ident: $($(#[$about:meta])* pub struct $Data:ident { $($(#[$note:meta])* $field:ident: $Type:ty,)* })*) => {$(
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
            pub rest: $rest,
        }
    )*};
}

changes! {
    StateData:
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

changes! {
    WholeState:
    /// A hold was placed, or its terms were changed; no money moves.
    pub struct HoldChange {
        transaction_id: Uuid,
        hold_id: Uuid,
        /// What is promised in all, what was captured of it included.
        #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
        hold_amount: Decimal,
        /// Left out where the hold was placed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
        previous_hold_amount: Option<Decimal>,
        /// The most that may be captured.
        #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
        max_capture: Decimal,
        expires_at: Moment,
        /// The wallet that captures go to; null: they leave.
        to_wallet_id: Option<Cow<'a, str>>,
        /// What is promised out of grants.
        reserved: Vec<Slice>,
    }

    /// Money of a hold was taken.
    pub struct HoldCapture {
        transaction_id: Uuid,
        hold_id: Uuid,
        /// With what was captured before.
        #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
        captured_total: Decimal,
        /// Given back by this capture.
        #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
        released_amount: Decimal,
        /// What is still on hold.
        #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
        remaining_amount: Decimal,
        hold_status: HoldStatus,
        to_wallet_id: Option<Cow<'a, str>>,
    }

    /// What was left of a hold was given back; no money moves.
    pub struct HoldEnd {
        transaction_id: Uuid,
        hold_id: Uuid,
        #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
        released_amount: Decimal,
        /// What was captured before.
        #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
        captured_total: Decimal,
        hold_status: HoldStatus,
    }

    /// A wallet may do more, or less, than before.
    pub struct StatusChange {
        transaction_id: Uuid,
        previous_status: Status,
        new_status: Status,
        /// Who asked for it; null where callers are not told apart.
        actor: Option<Cow<'a, str>>,
    }

    /// A wallet's limits are others.
    pub struct LimitsData {
        transaction_id: Uuid,
        previous: Limits,
        new: Limits,
    }

    /// A wallet's metadata are others: `metadata` has all of them.
    pub struct MetadataChange {
        transaction_id: Uuid,
    }
}
