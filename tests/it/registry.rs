//! The schema registry, a real one: registered, a compatible change taken, an incompatible one
//! refused at the start with what to do, and a registry that is away stops nothing.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use wallex::schemas;

use crate::support::app::{App, Setup};
use crate::support::eventually;
use crate::support::registry::Apicurio;

const PATIENCE: Duration = Duration::from_secs(60);

fn said(app: &App, arguments: &[&str]) -> (bool, String) {
    let output = tokio::task::block_in_place(|| app.wallex(arguments));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Waits until `/health/kafka/stats` shows this state.
async fn shown(app: &App, state: &str) -> Value {
    eventually(&format!("schemas {state}"), PATIENCE, async || {
        let stats = app.get("/health/kafka/stats").await.json();
        (stats["schemas"]["state"] == state).then(|| stats["schemas"].clone())
    })
    .await
}

fn schema(name: &str) -> Value {
    schemas::all().into_iter().find(|schema| schema.name == name).unwrap().value
}

/// As an earlier version might have had it, in a form that ours fits: ids were shorter.
fn narrower(name: &str) -> Value {
    let mut schema = schema(name);
    schema["properties"]["aggregateId"]["maxLength"] = json!(100);
    schema
}

/// As a later version might have it, in a form that ours fits: with a field that may be left out.
fn wider(name: &str) -> Value {
    let mut schema = schema(name);
    schema["properties"]["data"]["properties"]["note"] = json!({"type": ["string", "null"]});
    schema
}

/// As an earlier version might have had it, in a form that ours breaks: amounts were numbers.
fn broken(name: &str) -> Value {
    let mut schema = schema(name);
    schema["properties"]["data"]["properties"]["changeAmount"] = json!({"type": "number"});
    schema
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_registered_and_a_break_is_refused_at_the_start() {
    let registry = Apicurio::start().await;
    // A user that the registry does not ask for, and that nobody may see.
    let url = registry.url.replace("http://", "http://fred:canary-9dWq@");
    let mut app = Setup::without_kafka().with("SCHEMA_REGISTRY_URL", &url).start().await;
    let stats = shown(&app, "registered").await;
    assert_eq!(
        (&stats["subjects"], &stats["error"]),
        (&json!(schemas::all().len()), &Value::Null),
        "{stats}"
    );
    let (_, listed) = said(&app, &["schemas", "list"]);
    let mut names: Vec<&str> = listed.lines().collect();
    names.sort_unstable();
    let mut found = registry.get("/subjects").await;
    let found = found.as_array_mut().unwrap();
    found.sort_by_key(|name| name.as_str().unwrap().to_owned());
    assert_eq!(found, &names);
    assert!(names.contains(&format!("{}-WalletCredited", app.topic).as_str()), "{names:?}");
    for name in &names {
        let level = registry.get(&format!("/config/{name}")).await;
        assert_eq!(level["compatibilityLevel"], "BACKWARD", "{name}");
        assert_eq!(registry.get(&format!("/subjects/{name}/versions")).await, json!([1]));
    }
    let metrics = app.get("/metrics").await.text;
    assert!(
        metrics.contains(&format!("schema_registry_subjects {}", schemas::all().len())),
        "{metrics}"
    );

    // The same again registers nothing.
    app.restart().await;
    shown(&app, "registered").await;
    let credited = format!("{}-WalletCredited", app.topic);
    let versions = format!("/subjects/{credited}/versions");
    assert_eq!(registry.get(&versions).await, json!([1]));

    // What is registered is compared from now on, whoever comes with another form.
    assert_eq!(registry.register(&credited, &broken("WalletCredited")).await, 409);
    assert_eq!(registry.register(&credited, &wider("WalletCredited")).await, 200);
    assert_eq!(registry.get(&versions).await, json!([1, 2]));
    app.restart().await;
    shown(&app, "registered").await;
    assert_eq!(registry.get(&versions).await, json!([1, 2]), "ours is there already");

    // The registry has an older form that nobody compared with anything, and ours fits it.
    app.set("KAFKA_EVENTS_TOPIC", format!("{}.second", app.topic));
    let debited = format!("{}.second-WalletDebited", app.topic);
    assert_eq!(registry.register(&debited, &narrower("WalletDebited")).await, 200);
    let (fine, told) = said(&app, &["schemas", "check"]);
    let unchecked = format!("{debited}: another version is registered; the registry compares none");
    assert!(fine && told.contains(&unchecked), "{told}");
    app.restart().await;
    shown(&app, "registered").await;
    assert_eq!(registry.get(&format!("/subjects/{debited}/versions")).await, json!([1, 2]));
    let (fine, told) = said(&app, &["schemas", "check"]);
    assert!(fine && told.contains(&format!("{debited}: registered")), "{told}");

    // An older form that ours breaks, compared with nothing so far: the service has it compared, and
    // is refused.
    app.set("KAFKA_EVENTS_TOPIC", format!("{}.third", app.topic));
    let credited = format!("{}.third-WalletCredited", app.topic);
    let versions = format!("/subjects/{credited}/versions");
    assert_eq!(registry.register(&credited, &broken("WalletCredited")).await, 200);
    app.kill(Signal::SIGKILL);
    let (started, told) = said(&app, &["serve"]);
    assert!(!started, "{told}");
    for part in [
        "SCHEMA_REGISTRY_URL",
        &credited,
        "/properties/data/properties/changeAmount",
        "DELETE /subjects/NAME",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(registry.get(&versions).await, json!([1]), "nothing was registered");
    let (fine, told) = said(&app, &["schemas", "check"]);
    assert!(!fine && told.contains(&format!("{credited}: does NOT fit")), "{told}");
    assert!(!said(&app, &["schemas", "register"]).0);

    // What the message says to do helps.
    registry.delete(&credited).await;
    app.restart().await;
    shown(&app, "registered").await;
    let everything = app.log_text() + &said(&app, &["config", "print"]).1 + &told;
    assert!(!everything.contains("canary-9dWq") && everything.contains("schemas registered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_stops_nothing_and_is_told_later() {
    let mut registry = Apicurio::stopped();
    let app = Setup::without_kafka().with("SCHEMA_REGISTRY_URL", &registry.url).start().await;
    let stats = shown(&app, "waiting").await;
    assert!(stats["error"].as_str().unwrap().contains("does not answer"), "{stats}");
    assert_eq!(app.get("/health/kafka").await.json()["status"], "disabled");
    app.open("w", "1.00").await;
    assert!(!said(&app, &["schemas", "check"]).0);
    let errors = app.get("/metrics").await.text;
    assert!(errors.contains("schema_registry_errors_total"), "{errors}");
    registry.restart().await;
    shown(&app, "registered").await;
    assert_eq!(
        registry.get("/subjects").await.as_array().map(Vec::len),
        Some(schemas::all().len())
    );
    app.open("w-2", "1.00").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_the_certificate_is_checked() {
    let (registry, url) = Apicurio::start_with_tls().await;
    let setup = Setup::without_kafka().with("SCHEMA_REGISTRY_URL", &url);
    let other = registry.folder.join("other.pem");
    let mut app = setup.with("SSL_CERT_FILE", other.display()).start().await;
    let stats = shown(&app, "waiting").await;
    assert!(stats["error"].as_str().unwrap().contains("certificate"), "{stats}");
    assert_eq!(registry.get("/subjects").await, json!([]), "nothing was told");
    app.set("SSL_CERT_FILE", registry.folder.join("ca.pem").display());
    app.restart().await;
    let stats = shown(&app, "registered").await;
    assert_eq!(stats["registry"], url, "{stats}");
    assert_eq!(
        registry.get("/subjects").await.as_array().map(Vec::len),
        Some(schemas::all().len())
    );
}
