//! Kafka out of reach: the breaker opens, says why by class, and closes by itself once Kafka is back.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::app::{App, Setup};
use crate::support::{eventually, servers, topic};

const PATIENCE: Duration = Duration::from_secs(90);

async fn in_state(app: &App, state: &str) -> Value {
    eventually(&format!("the breaker {state}"), PATIENCE, async || {
        let health = app.get("/health/kafka").await.json();
        (health["breaker"]["state"] == state).then_some(health)
    })
    .await
}

async fn metric(app: &App, line: &str) {
    eventually(line, PATIENCE, async || {
        let text = app.get("/metrics").await.text;
        text.lines().any(|found| found.starts_with(line)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_opens_while_kafka_is_away_and_closes_when_it_is_back() {
    let mut kafka = servers::own_kafka();
    let app = Setup::on(servers::postgres(), Some(&kafka)).start().await;
    app.open("before", "1.00").await;
    app.drain().await;
    in_state(&app, "closed").await;
    metric(&app, "kafka_breaker_state 0").await;

    kafka.kill(Signal::SIGKILL).unwrap();
    let health = in_state(&app, "open").await;
    app.open("meanwhile", "1.00").await;
    assert_eq!(health["status"], "degraded", "{health}");
    assert_eq!(health["producer"]["connected"], false, "{health}");
    let error = health["kafka"]["error"].as_str().unwrap();
    assert!(error.contains("is Kafka running"), "{error}");
    metric(&app, "kafka_breaker_state 2").await;
    metric(&app, "kafka_connection_errors_total{class=\"network\"}").await;

    tokio::task::block_in_place(|| kafka.restart()).unwrap();
    in_state(&app, "closed").await;
    app.drain().await;
    let found = topic::assert_same(&kafka.bootstrap, &app).await;
    assert_eq!((found.records, found.duplicates), (4, 0));
}

/// Starts over brokers that are none; the classes that the health page and the metrics name.
async fn unreachable(brokers: &str, class: &str, hint: &str) {
    let setup = Setup::shared().with("KAFKA_BROKERS", brokers);
    let app = setup.with("KAFKA_CONNECTION_TIMEOUT", 500).start().await;
    let health = in_state(&app, "open").await;
    let error = health["kafka"]["error"].as_str().unwrap();
    assert!(error.starts_with(class) && error.contains(hint), "{error}");
    metric(&app, &format!("kafka_connection_errors_total{{class=\"{class}\"}}")).await;
    metric(&app, "kafka_producer_init_failures_total").await;
    app.open("w", "1.00").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_us_from_kafka_is_named_by_its_class_with_a_hint() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = mute.local_addr().unwrap().to_string();
    tokio::join!(
        unreachable("no-such-broker.invalid:9092", "dns", "check the names"),
        unreachable("127.0.0.1:1", "network", "nothing listens there"),
        unreachable(&mute, "timeout", "unreachable, frozen or overloaded"),
    );
}
