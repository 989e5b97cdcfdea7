//! The schemas of an inbound command and of its result. `request` reads commands field by field,
//! without a type: that both say the same is what tests/it/events/commands.rs holds.

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::root;
use crate::answer::{ProblemDocument, TransferView, WalletView};
use crate::request::{BULK_MAX, DESCRIPTION_CHARS_MAX, KEY_BYTES_MAX, REFERENCE_CHARS_MAX};
use crate::wallet::ID_CHARS_MAX;

pub(super) const COMMAND: &str = "WalletCommand";
pub(super) const RESULT: &str = "WalletCommandResult";

/// At most 10^15, at most 8 decimals that count, JSON's own number grammar.
const AMOUNT: &str = r"(0|[1-9][0-9]{0,14})(\.[0-9]{1,8}0*)?|10{15}(\.0+)?";

/// The value of a record of `wallet-commands`: an operation of `POST /bulk`, or several, with its
/// `commandId`.
pub(super) fn command() -> Value {
    let mut commands = operations().to_vec();
    for command in &mut commands {
        with_id(command);
    }
    let mut bulk = json!({
        "description": "Several operations as one command",
        "type": "object",
        "required": ["op", "operations"],
        "additionalProperties": false,
        "properties": {
            "op": {"const": "bulk"},
            "atomic": {
                "description": "All of them or none; left out, it is false",
                "type": ["boolean", "null"],
            },
            "operations": {
                "type": "array",
                "minItems": 1,
                "maxItems": BULK_MAX,
                "items": {"type": "object", "oneOf": operations()},
            },
        },
    });
    with_id(&mut bulk);
    commands.push(bulk);
    root("command", COMMAND, json!({"type": "object", "oneOf": commands}))
}

fn with_id(command: &mut Value) {
    if let Some(required) = command.get_mut("required").and_then(Value::as_array_mut) {
        required.insert(0, "commandId".into());
    }
    if let Some(properties) = command.get_mut("properties").and_then(Value::as_object_mut) {
        let id = json!({
            "description": "Its idempotency key: one effect for ever",
            "type": "string",
            "minLength": 1,
            "maxLength": KEY_BYTES_MAX,
            "pattern": "^[!-~]+$",
        });
        properties.insert("commandId".to_owned(), id);
    }
}

/// Each kind of operation.
fn operations() -> [Value; 4] {
    let operation = |op: &str, about: &str, required: &[&str], own: Value| {
        let mut properties = json!({
            "op": {"const": op},
            "metadata": {
                "description": "At most 16 KiB and 32 levels",
                "type": ["object", "null"],
            },
        });
        if let (Some(all), Value::Object(own)) = (properties.as_object_mut(), own) {
            all.extend(own);
        }
        let required: Vec<&str> = ["op"].iter().chain(required).copied().collect();
        json!({
            "description": about,
            "type": "object",
            "required": required,
            "additionalProperties": false,
            "properties": properties,
        })
    };
    let movement = |about: &str, op| {
        operation(op, about, &["walletId", "amount"], fields([("walletId", id())]))
    };
    let transfer = fields([("walletId", id()), ("toWalletId", id())]);
    [
        operation("create", "Opens a wallet", &["ownerId"], creation()),
        movement("Money comes in", "credit"),
        movement("Money goes out", "debit"),
        operation(
            "transfer",
            "Money goes to another wallet",
            &["walletId", "toWalletId", "amount"],
            transfer,
        ),
    ]
}

/// The value of a record of `wallet-command-results`: what the single route would have answered, or
/// `POST /bulk`.
pub(super) fn result() -> Value {
    let status = |about: &str| json!({"description": about, "type": "integer", "minimum": 200, "maximum": 599});
    let of_one =
        [whole::<WalletView<'_>>(), whole::<TransferView<'_>>(), whole::<ProblemDocument<'_>>()];
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
    root("command", RESULT, schema)
}

/// What a movement and a transfer have in common, with their wallets.
fn fields<const N: usize>(wallets: [(&str, Value); N]) -> Value {
    let mut fields: Map<String, Value> =
        wallets.into_iter().map(|(name, id)| (name.to_owned(), id)).collect();
    fields.insert("amount".to_owned(), amount());
    fields.insert(
        "description".to_owned(),
        json!({"type": ["string", "null"], "maxLength": DESCRIPTION_CHARS_MAX}),
    );
    fields.insert(
        "reference".to_owned(),
        json!({
            "description": "The caller's own id of this",
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": REFERENCE_CHARS_MAX,
            "pattern": r"^\S+( \S+)*$",
        }),
    );
    Value::Object(fields)
}

fn creation() -> Value {
    json!({
        "walletId": or_null(id()),
        "ownerId": id(),
        "initialBalance": optional_amount(),
        "overdraftLimit": optional_amount(),
        "currency": {
            "description": "ISO 4217 code; USD when left out",
            "type": ["string", "null"],
            "pattern": "^[A-Z]{3}$",
        },
    })
}

fn id() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX, "pattern": r"^\S+$"})
}

fn or_null(mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("type".to_owned(), json!(["string", "null"]));
    }
    schema
}

fn amount() -> Value {
    json!({
        "description": "Greater than zero, no more decimals than the currency has; a string or a plain number",
        "type": ["string", "number"],
        "maxLength": 40,
        "pattern": format!(r"^(?!0(\.0+)?$)({AMOUNT})$"),
        "exclusiveMinimum": 0,
        "maximum": 1_000_000_000_000_000_i64,
    })
}

fn optional_amount() -> Value {
    json!({
        "description": "At least zero; left out, null and 0 mean none",
        "type": ["string", "number", "null"],
        "maxLength": 40,
        "pattern": format!("^({AMOUNT})$"),
        "minimum": 0,
        "maximum": 1_000_000_000_000_000_i64,
    })
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
