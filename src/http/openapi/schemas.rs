//! Schemas that a type's shape alone does not give: words from the tables that parse them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::ledger::TransactionType;
use crate::wallet::{
    BalanceChange, EventType, HoldCapture, HoldChange, HoldEnd, LimitsData, MetadataChange, Status,
    StatusChange, TransferChange, WalletCreated,
};

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
    words(EventType::ALL.iter().map(|kind| kind.as_str()))
}

/// The `data` of an event. [`super::document`] adds the schemas that are named here.
pub fn event_data() -> RefOr<Schema> {
    let names = event_data_schemas().into_iter().map(|(name, _)| name);
    let any = names.fold(AnyOfBuilder::new(), |any, name| any.item(Ref::from_schema_name(name)));
    RefOr::T(Schema::AnyOf(any.build()))
}

/// The `data` of events, from the types that are published.
pub fn event_data_schemas() -> [(String, Value); 9] {
    fn schema<T: JsonSchema>(name: &str) -> (String, Value) {
        let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<T>();
        // Both belong to a document of its own, not to a part of another.
        schema.remove("$schema");
        schema.remove("title");
        (name.to_owned(), schema.to_value())
    }
    [
        schema::<WalletCreated>("WalletCreated"),
        schema::<BalanceChange>("BalanceChange"),
        schema::<TransferChange>("TransferChange"),
        schema::<HoldChange>("HoldChange"),
        schema::<HoldCapture>("HoldCapture"),
        schema::<HoldEnd>("HoldEnd"),
        schema::<StatusChange>("StatusChange"),
        schema::<LimitsData>("LimitsData"),
        schema::<MetadataChange>("MetadataChange"),
    ]
}
