//! Schemas that a type's shape alone does not give: amounts, and words from the tables that parse
//! them.

use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::ledger::TransactionType;
use crate::wallet::{EventType, Status};

/// What requests may write an amount as: JSON's own number grammar, without sign and exponent.
const AMOUNT_PATTERN: &str = r"^(0|[1-9][0-9]{0,15})(\.[0-9]+)?$";
/// One command's limit; `wallet::AMOUNT_MAX`, which is no number that a constant may be made of.
const AMOUNT_MAX: i64 = 1_000_000_000_000_000;

fn amount_of(types: Vec<Type>, description: &str) -> Schema {
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(types))
        .pattern(Some(AMOUNT_PATTERN))
        .min_length(Some(1))
        .max_length(Some(40))
        .minimum(Some(0_i64))
        .maximum(Some(AMOUNT_MAX))
        .description(Some(description))
        .into()
}

/// A request's amount.
pub fn amount() -> Schema {
    let text = "Greater than zero, at most 10^15, no more decimals than the currency has; a string \
                or a plain number";
    amount_of(vec![Type::String, Type::Number], text)
}

/// A request's amount that may be left out, be null or zero.
pub fn optional_amount() -> Schema {
    let text = "At least zero, at most 10^15, no more decimals than the currency has; left out, \
                null and 0 mean none";
    amount_of(vec![Type::String, Type::Number, Type::Null], text)
}

fn words(names: impl Iterator<Item = &'static str>) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
}

pub fn wallet_statuses() -> Schema {
    words(Status::ALL.into_iter().map(Status::as_str))
}

pub fn transaction_types() -> Schema {
    words(TransactionType::ALL.into_iter().map(TransactionType::as_str))
}

pub fn event_types() -> Schema {
    words(EventType::ALL.into_iter().map(EventType::as_str))
}

/// The `data` of an event. [`super::document`] adds the schemas that are named here.
pub fn event_data() -> RefOr<Schema> {
    let any = ["WalletCreated", "BalanceChange", "TransferChange"].into_iter();
    let any = any.fold(AnyOfBuilder::new(), |any, name| any.item(Ref::from_schema_name(name)));
    RefOr::T(Schema::AnyOf(any.build()))
}
