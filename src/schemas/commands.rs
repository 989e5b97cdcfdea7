//! The schemas of an inbound command, from the bodies that `request` declares, and of its result.

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::root;
use crate::answer::{HoldView, ProblemDocument, TransferView, WalletView};
use crate::request::{self, BulkBody, Key, OPERATIONS};

const COMMAND: &str = "WalletCommand";
const RESULT: &str = "WalletCommandResult";

/// The value of a record of `wallet-commands`: an operation of `POST /bulk`, or several, with its
/// `commandId`.
pub(super) fn command() -> (&'static str, Value) {
    let operations: Vec<Value> = OPERATIONS
        .iter()
        .map(|operation| with_op(operation.name, json(operation.schema())))
        .collect();
    let bulk = request::schema_of::<BulkBody>(&["Several operations as one command"]);
    let mut bulk = with_op("bulk", json(bulk));
    if let Some(items) = bulk.pointer_mut("/properties/operations/items") {
        *items = json!({"type": "object", "oneOf": operations});
    }
    let commands: Vec<Value> = operations.into_iter().chain([bulk]).map(with_id).collect();
    (COMMAND, root("command", COMMAND, json!({"type": "object", "oneOf": commands})))
}

fn json(schema: Schema) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

fn with_op(op: &str, body: Value) -> Value {
    with(body, "op", json!({"const": op}))
}

fn with_id(command: Value) -> Value {
    let mut id = json(<Key as request::Value>::schema());
    if let Some(id) = id.as_object_mut() {
        id.insert("description".to_owned(), "Its idempotency key: one effect for ever".into());
    }
    with(command, "commandId", id)
}

/// A body with one more field that must be there.
fn with(mut body: Value, name: &str, field: Value) -> Value {
    if let Some(required) = body.get_mut("required").and_then(Value::as_array_mut) {
        required.insert(0, name.into());
    }
    if let Some(properties) = body.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(name.to_owned(), field);
    }
    body
}

/// The value of a record of `wallet-command-results`: what the single route would have answered, or
/// `POST /bulk`.
pub(super) fn result() -> (&'static str, Value) {
    let status = |about: &str| json!({"description": about, "type": "integer", "minimum": 200, "maximum": 599});
    let of_one = [
        whole::<WalletView<'_>>(),
        whole::<TransferView<'_>>(),
        whole::<HoldView<'_>>(),
        whole::<ProblemDocument<'_>>(),
    ];
    let of_many = json!({
        "description": "Of several operations, in their order",
        "type": "object",
        "required": ["results"],
        "additionalProperties": false,
        "properties": {
            "results": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["status", "body"],
                    "additionalProperties": false,
                    "properties": {
                        "status": status("201, or that of the refusal"),
                        "body": {"anyOf": of_one},
                    },
                },
            },
        },
    });
    let bodies: Vec<&Value> = of_one.iter().chain([&of_many]).collect();
    let schema = json!({
        "type": "object",
        "required": ["commandId", "status", "body"],
        "additionalProperties": false,
        "properties": {
            "commandId": {"type": "string", "minLength": 1},
            "status": status("201, or that of the refusal"),
            "body": {
                "description": "The wallet, both wallets of a transfer, the results of several \
                                operations, or the problem. With the status 201 the problem is \
                                result_too_large: the command was executed",
                "anyOf": bodies,
            },
        },
    });
    (RESULT, root("command", RESULT, schema))
}

/// The schema of an answer as the OpenAPI document has it, with what it refers to in its place.
fn whole<T: ToSchema>() -> Value {
    let mut parts: Vec<(String, RefOr<Schema>)> = Vec::new();
    T::schemas(&mut parts);
    let parts: Map<String, Value> = parts
        .into_iter()
        .map(|(name, part)| (name, serde_json::to_value(part).unwrap_or_default()))
        .collect();
    let mut schema = serde_json::to_value(<T as PartialSchema>::schema()).unwrap_or_default();
    put_in_place(&mut schema, &parts);
    schema
}

/// No answer has an answer of its own kind in it: this ends.
fn put_in_place(schema: &mut Value, parts: &Map<String, Value>) {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next());
    if let Some(part) = name.and_then(|name| parts.get(name)) {
        *schema = part.clone();
    }
    match schema {
        Value::Object(fields) => fields.values_mut().for_each(|field| put_in_place(field, parts)),
        Value::Array(items) => items.iter_mut().for_each(|item| put_in_place(item, parts)),
        _ => {}
    }
}
