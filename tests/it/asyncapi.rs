//! The AsyncAPI document: whole, by the names of this service's topics, and the same as the page of
//! events and its examples say.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use wallex::schemas::{self, Channel};

use crate::openapi::references;
use crate::support::app::{App, Setup};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn printed(app: &App) -> Value {
    let output = app.wallex(&["asyncapi"]);
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// With the default settings.
fn committed() -> Value {
    let text = std::fs::read_to_string(file("docs/asyncapi.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_committed_document_is_that_of_the_default_settings() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_wallex"))
        .arg("asyncapi")
        .env_clear()
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let path = file("docs/asyncapi.json");
    if std::env::var_os("WALLEX_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &printed).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == printed, "docs/asyncapi.json is out of date: set WALLEX_BLESS=1 once");
}

#[test]
fn the_document_is_whole() {
    let document = committed();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for reference in &found {
        let pointer = reference.strip_prefix('#').expect("references stay within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let addresses: BTreeSet<&str> = document["channels"]
        .as_object()
        .unwrap()
        .values()
        .map(|channel| channel["address"].as_str().unwrap())
        .collect();
    let topics =
        ["wallet-events", "wallet-events-dlq", "wallet-commands", "wallet-command-results"];
    assert_eq!(addresses, BTreeSet::from(topics));
    for (id, channel) in document["channels"].as_object().unwrap() {
        let kafka = &channel["bindings"]["kafka"];
        assert_eq!(kafka["topic"], channel["address"], "{id}");
        assert!(kafka["partitions"].as_i64().unwrap() > 0 && kafka["replicas"] == 1, "{id}");
        let configuration = &kafka["topicConfiguration"];
        assert_eq!(configuration["max.message.bytes"], 10_485_760, "{id}");
        assert_eq!(configuration["cleanup.policy"], json!(["delete"]), "{id}");
        assert!(!channel["messages"].as_object().unwrap().is_empty(), "{id}");
        let used = document["operations"].as_object().unwrap().values().any(|operation| {
            operation["channel"]["$ref"] == format!("#/channels/{id}")
                && ["send", "receive"].contains(&operation["action"].as_str().unwrap())
        });
        assert!(used, "nobody does anything with {id}");
    }
    // Every message and every schema is used, and every message says what its key is.
    for kind in ["messages", "schemas"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(found.contains(&format!("#/components/{kind}/{name}")), "{name}");
        }
    }
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        assert!(message["bindings"]["kafka"]["key"]["description"].is_string(), "{name}");
        assert!(message["payload"].is_object() && message["headers"].is_object(), "{name}");
    }
    for schema in document["components"]["schemas"].as_object().unwrap().values() {
        jsonschema::draft7::meta::validate(schema).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topics_are_called_as_the_settings_say() {
    let app = Setup::without_kafka().with("CONSUMER_GROUP_ID", "blue-").start().await;
    let served = app.get("/asyncapi.json").await;
    assert_eq!((served.status, served.header("content-type")), (200, "application/json"));
    let served = served.json();
    assert_eq!(served, printed(&app));
    assert_eq!(served["channels"]["walletEvents"]["address"], app.topic);
    let letters = &served["channels"]["walletEventsDeadLetters"]["address"];
    assert_eq!(letters, &format!("{}-dlq", app.topic));
    let reader = &served["operations"]["receiveWalletCommands"]["bindings"]["kafka"]["groupId"];
    assert_eq!(reader["enum"], json!(["blue-wallex-commands"]));
}

/// The code blocks of a page with JSON in them, whatever is around it.
fn events_on(page: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(file(page)).unwrap();
    let mut found = Vec::new();
    for (at, _) in text.match_indices("\"eventId\"") {
        // The object that the field is the first of.
        let begin = text[..at].rfind('{').unwrap();
        let mut values = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<Value>();
        found.push(values.next().unwrap().unwrap());
    }
    found
}

#[test]
fn every_example_on_the_page_of_events_is_as_its_schema_says() {
    let document = committed();
    let mut kinds = BTreeSet::new();
    for event in events_on("docs/EVENTS.md") {
        let kind = event["eventType"].as_str().unwrap();
        let schema = &document["components"]["schemas"][kind];
        assert!(schema.is_object(), "{kind} is no kind of event");
        let validator = jsonschema::draft7::options().should_validate_formats(true).build(schema);
        let validator = validator.unwrap();
        let errors: Vec<String> = validator.iter_errors(&event).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{event}: {errors:?}");
        kinds.insert(kind.to_owned());
    }
    let of_schemas = schemas::all().into_iter().filter(|s| s.channel == Channel::Events);
    let all: BTreeSet<String> = of_schemas.map(|schema| schema.name.to_owned()).collect();
    assert_eq!(kinds, all, "a kind without an example");
}

/// The cells of the first table below a heading, without backticks.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(file("docs/EVENTS.md")).unwrap();
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let rows = below.skip_while(|line| !line.starts_with("| --")).skip(1);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').replace('`', ""));
    cells.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn split(cell: &str) -> impl Iterator<Item = &str> {
    cell.split(", ").map(str::trim)
}

#[test]
fn the_tables_on_the_page_of_events_are_the_schemas() {
    let document = committed();
    let parts = &document["components"]["schemas"];
    let empty = Map::new();

    let envelope = table("## The envelope");
    let named: BTreeSet<&str> = envelope.iter().flat_map(|row| split(&row[0])).collect();
    assert_eq!(named, keys(&parts["WalletCreated"]["properties"]), "the envelope");

    // What the text below the table of the envelope says of every type.
    let common = [
        "previousBalance",
        "newBalance",
        "changeAmount",
        "changeType",
        "reason",
        "metadata",
        "heldBalance",
        "availableBalance",
        "status",
        "drawn",
        "counterAccount",
        "effectiveAt",
    ];
    let types = table("## The types");
    let mut before: Vec<&str> = Vec::new();
    for row in &types {
        let data = &parts[&row[0]]["properties"]["data"]["properties"];
        let fields = data.as_object().unwrap_or(&empty).keys().map(String::as_str);
        let own: BTreeSet<&str> = fields.filter(|name| !common.contains(name)).collect();
        let said: Vec<&str> = match row[2].as_str() {
            "the same" => before.clone(),
            fields => split(fields).collect(),
        };
        assert_eq!(said.iter().copied().collect::<BTreeSet<_>>(), own, "{}", row[0]);
        before = said;
    }
    let listed: Vec<&str> = types.iter().map(|row| row[0].as_str()).collect();
    let of_schemas = schemas::all().into_iter().filter(|s| s.channel == Channel::Events);
    assert_eq!(listed, of_schemas.map(|schema| schema.name).collect::<Vec<_>>());

    let record = table("## The record");
    let headers = record.iter().filter_map(|row| row[0].strip_prefix("header "));
    let headers: BTreeSet<&str> = headers.flat_map(split).collect();
    assert_eq!(headers, keys(&parts["WalletEventHeaders"]["properties"]), "headers of an event");

    let letters = table("## Dead letters");
    let headers: BTreeSet<&str> = letters.iter().flat_map(|row| split(&row[0])).collect();
    assert_eq!(headers, keys(&parts["DeadLetterHeaders"]["properties"]), "of a dead letter");
}
