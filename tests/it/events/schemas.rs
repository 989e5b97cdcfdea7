//! The committed JSON Schemas are those of the types. A change of a published form fails here until
//! it is meant: `WALLEX_BLESS=1 cargo test --test it schemas` writes them anew.

use std::path::PathBuf;

use jsonschema::Validator;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use wallex::envelope::{AGGREGATE_TYPE, Envelope};
use wallex::wallet::{BalanceChange, EventType, ID_CHARS_MAX, TransferChange, WalletCreated};

/// The committed schema of a type of event, ready to check values, formats included.
pub fn validator(kind: EventType) -> Validator {
    let text = std::fs::read_to_string(path(kind)).unwrap();
    let schema = serde_json::from_str(&text).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

fn path(kind: EventType) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas");
    folder.join(format!("{}.json", kind.as_str()))
}

/// The schema of a type's `data` as it is written: every field is there, if only as null.
fn data<T: JsonSchema>(change_type: &str) -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    let fields = schema.as_object_mut().unwrap();
    for name in ["$schema", "$defs", "title"] {
        fields.remove(name);
    }
    fields.insert("additionalProperties".to_owned(), json!(false));
    // Each type moves a balance one way.
    fields["properties"]["changeType"] = json!({"const": change_type});
    schema
}

/// The whole value of a record.
fn schema(kind: EventType) -> Value {
    let data = match kind {
        EventType::WalletCreated => data::<WalletCreated>("CREDIT"),
        EventType::WalletCredited => data::<BalanceChange>("CREDIT"),
        EventType::WalletDebited => data::<BalanceChange>("DEBIT"),
        EventType::WalletTransferInitiated => data::<TransferChange>("DEBIT"),
        EventType::WalletTransferCompleted => data::<TransferChange>("CREDIT"),
    };
    let maybe_text = json!({"type": ["string", "null"]});
    let properties = json!({
        "eventId": {"type": "string", "format": "uuid"},
        "eventType": {"const": kind.as_str()},
        "aggregateType": {"const": AGGREGATE_TYPE},
        "aggregateId": {"type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX},
        "aggregateVersion": {"type": "integer", "minimum": 1},
        "schemaVersion": {"const": 1},
        "tenantId": {"type": "string", "minLength": 1},
        "timestamp": {
            "type": "string",
            "format": "date-time",
            "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
        },
        "correlationId": maybe_text,
        "causationId": maybe_text,
        "data": data,
    });
    assert_eq!(names(&properties), names(&envelope()), "the envelope has other fields");
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("urn:wallex:event:{}:1", kind.as_str()),
        "title": kind.as_str(),
        "type": "object",
        "required": names(&properties),
        "additionalProperties": false,
        "properties": properties,
    })
}

/// An envelope as it is really written.
fn envelope() -> Value {
    let data = RawValue::from_string("{}".to_owned()).unwrap();
    let envelope = Envelope {
        event_id: uuid::Uuid::nil(),
        event_type: "",
        aggregate_type: "",
        aggregate_id: "",
        aggregate_version: 1,
        schema_version: 1,
        tenant_id: "",
        timestamp: String::new(),
        correlation_id: None,
        causation_id: None,
        data: &data,
    };
    serde_json::from_slice(&envelope.to_json().unwrap()).unwrap()
}

fn names(object: &Value) -> Vec<&String> {
    object.as_object().map(Map::keys).unwrap().collect()
}

#[test]
fn committed_schemas_are_those_of_the_types() {
    for kind in EventType::ALL {
        let generated = serde_json::to_string_pretty(&schema(kind)).unwrap() + "\n";
        if std::env::var_os("WALLEX_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(path(kind), &generated).unwrap();
        }
        let committed = std::fs::read_to_string(path(kind)).unwrap_or_default();
        assert_eq!(committed, generated, "{kind:?} changed: is every reader of the topic ready?");
    }
    let folder = path(EventType::WalletCreated).parent().unwrap().read_dir().unwrap();
    assert_eq!(folder.count(), EventType::ALL.len(), "a schema without a type");
}

/// A schema that takes anything would prove nothing about what is published.
#[test]
fn schemas_refuse_what_lacks_a_field_or_has_one_too_many() {
    let good = json!({
        "eventId": "01890a5d-ac96-774b-bcce-b302099a8057", "eventType": "WalletDebited",
        "aggregateType": "Wallet", "aggregateId": "w", "aggregateVersion": 3, "schemaVersion": 1,
        "tenantId": "default", "timestamp": "2026-01-31T12:00:00.000Z", "correlationId": "c",
        "causationId": null,
        "data": {
            "transactionId": "01890a5d-ac96-774b-bcce-b302099a8057", "previousBalance": "1.00",
            "newBalance": "-0.50", "changeAmount": "1.50", "changeType": "DEBIT", "reason": null,
            "currency": "USD", "reference": null, "metadata": {"a": 1},
        },
    });
    let schema = validator(EventType::WalletDebited);
    assert!(schema.is_valid(&good), "{:?}", schema.validate(&good).map_err(|e| e.to_string()));
    for pointer in ["", "/data"] {
        for name in names(good.pointer(pointer).unwrap()) {
            let mut lacking = good.clone();
            lacking.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(name);
            assert!(!schema.is_valid(&lacking), "without {name}");
        }
        let mut more = good.clone();
        more.pointer_mut(pointer).unwrap()["more"] = json!(1);
        assert!(!schema.is_valid(&more), "with more in {pointer:?}");
    }
    for (pointer, bad) in [
        ("/eventId", json!("x")),
        ("/eventType", json!("WalletCredited")),
        ("/aggregateVersion", json!(0)),
        ("/timestamp", json!("2026-01-31T12:00:00Z")),
        ("/timestamp", json!("2026-02-30T12:00:00.000Z")),
        ("/data/changeAmount", json!(1.5)),
        ("/data/changeAmount", json!("-1.50")),
        ("/data/newBalance", json!("1e3")),
        ("/data/changeType", json!("CREDIT")),
        ("/data/metadata", json!([])),
    ] {
        let mut value = good.clone();
        *value.pointer_mut(pointer).unwrap() = bad;
        assert!(!schema.is_valid(&value), "{pointer} of {value}");
    }
}
