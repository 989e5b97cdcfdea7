//! The committed JSON Schemas are those of the types. A change of a published form fails here until
//! it is meant: `WALLEX_BLESS=1 cargo test --test it schemas` writes them anew.

use std::path::PathBuf;

use jsonschema::Validator;
use serde_json::{Map, Value, json};
use wallex::schemas;
use wallex::wallet::EventType;

/// The committed schema of a type of event, ready to check values, formats included.
pub fn validator(kind: EventType) -> Validator {
    validator_of(kind.as_str())
}

/// The same of any kind of record, by its name.
pub fn validator_of(name: &str) -> Validator {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let schema = serde_json::from_str(&text).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas").join(format!("{name}.json"))
}

fn names(object: &Value) -> Vec<&String> {
    object.as_object().map(Map::keys).unwrap().collect()
}

#[test]
fn committed_schemas_are_those_of_the_types() {
    let all = schemas::all();
    for schema in &all {
        let generated = serde_json::to_string_pretty(&schema.value).unwrap() + "\n";
        let path = path(schema.name);
        if std::env::var_os("WALLEX_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, generated, "{} changed: is every reader ready?", schema.name);
        jsonschema::draft7::meta::validate(&schema.value).unwrap();
    }
    let folder = path("").parent().unwrap().read_dir().unwrap();
    assert_eq!(folder.count(), all.len(), "a schema without a type");
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
