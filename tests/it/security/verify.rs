//! `wallex verify-kafka`: green where all is well, red at the right step with the right hint.

use serde_json::Value;

use super::broker::{Variables, WRONG_PASSWORD, secured, verify_kafka, wallex, with};

const STEPS: [&str; 9] =
    ["dns", "tcp", "tls", "sasl", "metadata", "topics", "produce", "fetch", "group offsets"];

fn statuses(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = document["steps"].as_array().unwrap();
    steps.iter().map(|step| (text(&step["step"]), text(&step["status"]))).collect()
}

/// Red at `step` with `hint`, everything before it green or off, nothing tried after it.
fn assert_red(variables: &Variables, step: &str, hint: &str) {
    let (code, document) = verify_kafka(variables);
    assert_eq!((code, &document["ok"]), (Some(1), &Value::Bool(false)), "{document}");
    let at = STEPS.iter().position(|name| *name == step).unwrap();
    for (number, (name, status)) in statuses(&document).into_iter().enumerate() {
        assert_eq!(name, STEPS[number]);
        match number.cmp(&at) {
            std::cmp::Ordering::Less => assert!(status == "ok" || status == "off", "{document}"),
            std::cmp::Ordering::Equal => assert_eq!(status, "failed", "{document}"),
            std::cmp::Ordering::Greater => assert_eq!(status, "not_tried", "{document}"),
        }
    }
    let said = document["steps"][at]["hint"].as_str().unwrap_or_default();
    assert!(said.contains(hint), "{document}");
}

#[tokio::test]
async fn it_is_green_over_every_kind_of_listener() {
    let secured = secured();
    let app = secured.setup(&secured.kind(false, None)).start().await;
    app.open("w-1", "1.00").await;
    app.drain().await;
    for (kind, variables) in secured.kinds() {
        let variables = with(variables, "KAFKA_EVENTS_TOPIC", &app.topic);
        let variables = with(variables, "KAFKA_DLQ_TOPIC", format!("{}-dlq", app.topic));
        let group = app.topic.replace("events-", "");
        let variables = with(variables, "CONSUMER_GROUP_ID", format!("{group}-"));
        let (code, document) = verify_kafka(&variables);
        assert_eq!((code, &document["ok"]), (Some(0), &Value::Bool(true)), "{kind}: {document}");
        let login = variables.iter().any(|(name, _)| *name == "KAFKA_SASL_MECHANISM");
        let tls = variables.iter().any(|(name, _)| *name == "KAFKA_SSL");
        for (name, status) in statuses(&document) {
            let off = (name == "tls" && !tls) || (name == "sasl" && !login);
            assert_eq!(status, if off { "off" } else { "ok" }, "{kind}: {document}");
        }
    }
    let other_group = with(secured.kind(true, Some("plain")), "KAFKA_EVENTS_TOPIC", &app.topic);
    let other_group = with(other_group, "KAFKA_DLQ_TOPIC", format!("{}-dlq", app.topic));
    assert_red(&other_group, "group offsets", "the user lacks rights");
    // The record went to a topic of its own: the projectors saw nothing of it.
    let stats = app.get("/health/kafka/stats").await.json();
    assert_eq!(stats["deadLetters"], 0, "{stats}");
    app.assert_reconciled();
}

#[tokio::test]
async fn it_is_red_at_the_right_step_with_the_right_hint() {
    let secured = secured();
    let plain = secured.kind(false, None);
    let scram = secured.kind(true, Some("scram-sha-256"));
    let unknown = with(plain.clone(), "KAFKA_BROKERS", "no-such-host.invalid:9092");
    assert_red(&unknown, "dns", "check the names");
    let closed = with(plain.clone(), "KAFKA_BROKERS", "127.0.0.1:1");
    assert_red(&closed, "tcp", "is Kafka running");
    let other_ca = with(scram.clone(), "KAFKA_SSL_CA_FILE", secured.other_ca.display());
    assert_red(&other_ca, "tls", "KAFKA_SSL_CA_FILE");
    let other_host = secured.sasl_ssl.replace("localhost", "127.0.0.1");
    assert_red(&with(scram.clone(), "KAFKA_BROKERS", other_host), "tls", "advertised.listeners");
    let no_tls = with(secured.kind(true, None), "KAFKA_BROKERS", &secured.plaintext);
    assert_red(&no_tls, "tls", "KAFKA_SSL=false");
    let password = with(scram, "KAFKA_SASL_PASSWORD", WRONG_PASSWORD);
    assert_red(&password, "sasl", "KAFKA_SASL_PASSWORD");
    let tls_expected = with(plain.clone(), "KAFKA_BROKERS", &secured.ssl);
    assert_red(&tls_expected, "metadata", "KAFKA_SSL=true");
    let tls_expected = with(secured.kind(false, Some("plain")), "KAFKA_BROKERS", &secured.sasl_ssl);
    assert_red(&tls_expected, "sasl", "KAFKA_SSL=true");
    let login_expected = with(plain.clone(), "KAFKA_BROKERS", &secured.sasl);
    assert_red(&login_expected, "metadata", "wants a login");
    let foreign = with(secured.kind(false, Some("plain")), "KAFKA_EVENTS_TOPIC", "no-right");
    assert_red(&foreign, "topics", "rights");
    let topic = with(plain, "KAFKA_EVENTS_TOPIC", "no-such-topic");
    assert_red(&topic, "topics", "does not exist");
}

#[test]
fn people_read_a_line_for_each_step_and_the_hint_below_the_one_that_failed() {
    let variables = with(secured().kind(false, None), "KAFKA_BROKERS", "127.0.0.1:1");
    let output = wallex(&variables, &["verify-kafka"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), STEPS.len() + 1, "{said}");
    assert!(lines[0].starts_with("✓ dns") && lines[1].starts_with("✗ tcp"), "{said}");
    assert!(lines[2].starts_with("  → nothing listens there"), "{said}");
    assert!(lines[10 - 1].ends_with("not tried"), "{said}");
}
