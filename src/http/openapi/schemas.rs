//! Schemas that a type's shape alone does not give: words from the tables that parse them.

use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::ledger::TransactionType;
use crate::wallet::{EventType, Status};

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
