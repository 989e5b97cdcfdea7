//! The schemas of commands say what their readers say: each example goes through both, and so do
//! bodies made at random. And results are as their schema says.

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use wallex::request::{
    Body, BulkBody, CreateWalletBody, Fields, MovementBody, OPERATIONS, TransferBody, WalletCommand,
};
use wallex::wallet::WalletId;

use super::schemas::validator_of;
use crate::support::app::Setup;

/// Whether the service reads this command. Its `commandId` is the key of an operation.
fn is_read(command: &Value) -> bool {
    let value = command.to_string();
    WalletCommand::parse(Some(value.as_bytes()), || WalletId::stored("made")).is_ok()
}

fn with(command: &Value, name: &str, value: Value) -> Value {
    let mut command = command.clone();
    command[name] = value;
    command
}

fn without(command: &Value, name: &str) -> Value {
    let mut command = command.clone();
    command.as_object_mut().unwrap().remove(name);
    command
}

/// A full command of each kind.
fn full() -> [Value; 14] {
    let details = |mut command: Value| {
        command["commandId"] = json!("invoice-2026-17");
        command["metadata"] = json!({"plan": {"tier": 1}});
        command
    };
    let plain = |command: Value| with(&command, "commandId", json!("invoice-2026-17"));
    let moved = |mut command: Value| {
        command["amount"] = json!("12.50");
        command["description"] = json!("coffee");
        command["reference"] = json!("order 18");
        details(command)
    };
    [
        details(json!({
            "op": "create", "walletId": "w-1", "ownerId": "alice", "initialBalance": "10.00",
            "currency": "EUR", "overdraftLimit": 5,
        })),
        moved(json!({"op": "credit", "walletId": "w-1"})),
        moved(json!({"op": "debit", "walletId": "w-1"})),
        moved(json!({"op": "transfer", "walletId": "w-1", "toWalletId": "w-2"})),
        moved(json!({
            "op": "hold", "walletId": "w-1", "holdId": HOLD, "expiresIn": 60, "toWalletId": "w-2",
        })),
        plain(json!({
            "op": "adjust", "walletId": "w-1", "holdId": HOLD, "amount": "20.00", "expiresIn": 60,
        })),
        moved(json!({"op": "capture", "walletId": "w-1", "holdId": HOLD, "final": false})),
        plain(json!({"op": "release", "walletId": "w-1", "holdId": HOLD, "reason": "done"})),
        plain(json!({"op": "freeze", "walletId": "w-1", "reason": "lost"})),
        plain(json!({"op": "suspend", "walletId": "w-1", "reason": "lost"})),
        plain(json!({"op": "activate", "walletId": "w-1", "reason": "found"})),
        plain(json!({"op": "close", "walletId": "w-1", "reason": "left", "sweepTo": "w-2"})),
        plain(json!({
            "op": "limits", "walletId": "w-1", "overdraftLimit": "5.00", "reason": "asked for",
        })),
        details(json!({"op": "metadata", "walletId": "w-1"})),
    ]
}

const HOLD: &str = "6e8bc430-9c3a-41d9-9669-0800200c9a66";

/// Commands of several operations: each full one in a list, and lists that are none.
fn bulks() -> Vec<Value> {
    let items: Vec<Value> = full().iter().map(|command| without(command, "commandId")).collect();
    let bulk = json!({"commandId": "b", "op": "bulk", "atomic": true, "operations": items});
    let mut examples = vec![bulk.clone(), with(&bulk, "atomic", Value::Null)];
    for name in ["commandId", "op", "atomic", "operations"] {
        examples.push(without(&bulk, name));
        for value in [json!(7), json!("x"), json!([]), json!({}), json!([7]), json!([[]])] {
            examples.push(with(&bulk, name, value));
        }
    }
    for (name, value) in [("walletId", json!("w")), ("amount", json!(1)), ("metadata", json!({}))] {
        examples.push(with(&bulk, name, value));
    }
    let of = |operations: Vec<Value>| with(&bulk, "operations", json!(operations));
    examples.push(of(vec![items[1].clone(); 1000]));
    examples.push(of(vec![items[1].clone(); 1001]));
    for item in &items {
        examples.push(of(vec![item.clone()]));
        examples.push(of(vec![items[1].clone(), with(item, "commandId", json!("c"))]));
        examples.push(of(vec![items[1].clone(), with(item, "more", json!(1))]));
        for name in item.as_object().unwrap().keys() {
            examples.push(of(vec![items[1].clone(), without(item, name)]));
            examples.push(of(vec![with(item, name, json!([])), items[1].clone()]));
        }
    }
    examples
}

#[test]
fn schema_and_reader_agree_on_every_example() {
    let mut examples = Vec::new();
    let texts = ["", "a", "two words", " a", "é", "x\ty", &"x".repeat(255), &"x".repeat(256)];
    let amounts = [
        json!("0"),
        json!("0.00"),
        json!("0.01"),
        json!("150"),
        json!("150.000000000000"),
        json!("007"),
        json!("-1"),
        json!("1e3"),
        json!("1."),
        json!(".5"),
        json!("1.123456789"),
        json!("1000000000000000"),
        json!("1000000000000000.00"),
        json!("1000000000000000.01"),
        json!("1000000000000001"),
        json!("9999999999999999"),
        json!(0),
        json!(1),
        json!(12.5),
        json!(-1),
        json!(1_000_000_000_000_000_i64),
        json!(1_000_000_000_000_001_i64),
        json!(true),
        json!([1]),
        json!({}),
        Value::Null,
    ];
    for command in full() {
        examples.push(command.clone());
        for name in command.as_object().unwrap().keys() {
            examples.push(without(&command, name));
            examples.push(with(&command, name, Value::Null));
            for value in [json!(7), json!(true), json!([]), json!({})] {
                examples.push(with(&command, name, value));
            }
            // No currency is checked against the list of currencies, which is no matter of form.
            if name != "currency" {
                examples.extend(texts.map(|text| with(&command, name, json!(text))));
            }
        }
        for name in ["amount", "initialBalance", "overdraftLimit"] {
            if command.get(name).is_some() {
                examples.extend(amounts.clone().map(|amount| with(&command, name, amount)));
            }
        }
        examples.push(with(&command, "description", json!("x".repeat(1024))));
        examples.push(with(&command, "description", json!("x".repeat(1025))));
        examples.push(with(&command, "idempotencyKey", json!("other")));
        examples.push(with(&command, "toWalletId", json!("w-3")));
        examples.push(with(&command, "more", json!(1)));
        examples.push(with(&command, "op", json!("freeze")));
    }
    examples.extend(bulks());
    let schema = validator_of("WalletCommand");
    let mut read = 0;
    for example in &examples {
        // The operation's own key has another name in a command: there is none beside it.
        let known = example.get("idempotencyKey").is_none();
        let expected = known && is_read(example);
        assert_eq!(schema.is_valid(example), expected, "{example}");
        read += usize::from(expected);
    }
    assert!(read > 60 && examples.len() - read > 200, "{read} of {}", examples.len());
}

/// The schema of a route's body in the OpenAPI document.
fn body_of(route: &str) -> Validator {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let document: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let content = &document["paths"][route]["post"]["requestBody"]["content"];
    let mut schema = content["application/json"]["schema"].clone();
    assert!(schema.is_object(), "{route}");
    schema["components"] = document["components"].clone();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn reads<B: Body>(body: &Value) -> bool {
    Fields::parse(body.to_string().as_bytes()).and_then(Fields::body::<B>).is_ok()
}

fn reads_each(bulk: &Value) -> bool {
    let bulk = Fields::parse(bulk.to_string().as_bytes()).and_then(Fields::body::<BulkBody>);
    let made = || WalletId::stored("made");
    bulk.is_ok_and(|bulk| bulk.items(made).iter().all(Result::is_ok))
}

/// A value for a field: right for some, wrong in form for others.
fn value_for(name: &str) -> BoxedStrategy<Value> {
    let currencies =
        [json!("USD"), json!("JPY"), json!("usd"), json!("US"), json!(""), json!("\u{e9}UR")];
    let amounts = "(0|[1-9][0-9]{0,16})(\\.[0-9]{0,10})?|[-+]?[0-9]{0,3}(e[0-9])?";
    let amounts = prop_oneof![
        amounts.prop_map(|text| json!(text)),
        (0_u64..2_000_000_000_000_000).prop_map(|whole| json!(whole)),
        (-99_i64..10_000).prop_map(|quarters| json!(quarters as f64 / 4.0)),
    ];
    // Neither of the two names that no path can have, nor what only looks like nothing.
    let texts = "[!-~\u{e9}]([!-~ ]{0,3}[!-~])?"
        .prop_filter("a path's own", |text| !matches!(text.as_str(), "." | ".."));
    let others = [json!(null), json!(true), json!(7), json!([]), json!({"a": [1]}), json!("")];
    let long = [254, 255, 256, 1024, 1025].map(|length| json!("x".repeat(length)));
    match name {
        "currency" => select(currencies.to_vec()).boxed(),
        "amount" | "initialBalance" | "overdraftLimit" => amounts.boxed(),
        "metadata" => Just(json!({"plan": {"tier": [1, null]}})).boxed(),
        "op" => select(vec![json!("burn"), json!("Credit"), json!(1)]).boxed(),
        _ => prop_oneof![texts.prop_map(|text| json!(text)), select(long.to_vec())].boxed(),
    }
    .prop_union(select(others.to_vec()).boxed())
    .boxed()
}

/// A command of any kind, a few of its fields other than they should be.
fn altered() -> impl Strategy<Value = Value> {
    let change = |command: Value| {
        let mut names: Vec<String> = command.as_object().unwrap().keys().cloned().collect();
        names.push("toWalletId".to_owned());
        names.push("more".to_owned());
        let change = any::<Index>().prop_flat_map(move |index| {
            let name = index.get(&names).clone();
            (Just(name.clone()), proptest::option::weighted(0.9, value_for(&name)))
        });
        (Just(command), proptest::collection::vec(change, 0..4))
    };
    select(full().to_vec()).prop_flat_map(change).prop_map(|(mut command, changes)| {
        for (name, value) in changes {
            command = match value {
                Some(value) => with(&command, &name, value),
                None => without(&command, &name),
            };
        }
        command
    })
}

#[test]
fn every_kind_of_command_is_among_the_examples() {
    let examples = full().map(|command| command["op"].as_str().unwrap().to_owned());
    let all: Vec<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
    assert_eq!(examples.to_vec(), all);
}

#[test]
fn schemas_and_readers_agree_on_bodies_made_at_random() {
    let inbound = validator_of("WalletCommand");
    let bulk = body_of("/bulk");
    let [open, move_one, move_two] =
        ["/wallets", "/wallets/{id}/credit", "/wallets/{id}/transfer"].map(body_of);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) };
    proptest!(config, |(command in altered())| {
        prop_assert_eq!(inbound.is_valid(&command), is_read(&command), "inbound: {}", command);

        let key = command.get("commandId").cloned().unwrap_or(Value::Null);
        let item = with(&without(&command, "commandId"), "idempotencyKey", key);
        let request = json!({"operations": [item], "atomic": null});
        prop_assert_eq!(bulk.is_valid(&request), reads_each(&request), "bulk: {}", request);

        let item = without(&without(&command, "commandId"), "op");
        let body = without(&item, "walletId");
        let (route, body, read) = match command["op"].as_str() {
            Some("create") => (&open, &item, reads::<CreateWalletBody>(&item)),
            Some("transfer") => (&move_two, &body, reads::<TransferBody>(&body)),
            _ => (&move_one, &body, reads::<MovementBody>(&body)),
        };
        prop_assert_eq!(route.is_valid(body), read, "route: {}", body);
    });
}

/// The answers of `POST /bulk`, which are what results are made of.
#[tokio::test(flavor = "multi_thread")]
async fn results_are_as_their_schema_says() {
    let app = Setup::without_kafka().start().await;
    let operations = json!([
        {"op": "create", "walletId": "w-1", "ownerId": "it", "initialBalance": "10.00"},
        {"op": "create", "walletId": "w-2", "ownerId": "it", "metadata": {"a": 1}},
        {"op": "credit", "walletId": "w-1", "amount": "1.00"},
        {"op": "transfer", "walletId": "w-1", "toWalletId": "w-2", "amount": "2.00"},
        {"op": "debit", "walletId": "w-1", "amount": "100.00"},
        {"op": "debit", "walletId": "none", "amount": "100.00"},
        {"op": "debit", "walletId": "w-1", "amount": "x"},
    ]);
    let answer = app.post("/bulk", json!({"operations": operations})).await.json();
    let results = answer["results"].as_array().unwrap();
    let statuses: Vec<&Value> = results.iter().map(|result| &result["status"]).collect();
    assert_eq!(statuses, [201, 201, 201, 201, 400, 404, 400]);
    let schema = validator_of("WalletCommandResult");
    for result in results {
        let result = json!({"commandId": "c", "status": result["status"], "body": result["body"]});
        assert!(schema.is_valid(&result), "{result}");
        assert!(!schema.is_valid(&without(&result, "commandId")));
        assert!(!schema.is_valid(&with(&result, "body", json!({"id": 1}))));
    }
    let result = json!({"commandId": "c", "status": 201, "body": answer});
    assert!(schema.is_valid(&result), "{result}");
    let mut result = result;
    result["body"]["results"][1]["body"] = json!({"id": 1});
    assert!(!schema.is_valid(&result));
}
