//! Raising `max.message.bytes` to 20 MB, fetch bytes, produce retries: settings that hold for topics,
//! drift, producer and fetches alike.

use std::collections::BTreeMap;

use chrono::Utc;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use serde_json::{Value, json};

use super::{CONFIGS, PATIENCE, TOPICS, dead_letters};
use crate::support::app::{App, Setup};
use crate::support::servers::kafka_tool_said as tool;
use crate::support::{eventually, servers};

const LARGE: usize = 18_000_000;

/// A record of somebody else's, as large as the topic takes, in front of what comes.
async fn produce_large(app: &App) {
    let client =
        ClientBuilder::new(vec![servers::kafka().bootstrap.clone()]).build().await.unwrap();
    for partition in 0..10 {
        let handling = UnknownTopicHandling::Retry;
        let writer = client.partition_client(&app.topic, partition, handling).await.unwrap();
        let record = Record {
            key: Some(b"large".to_vec()),
            value: Some(vec![b'x'; if partition == 4 { LARGE } else { 10 }]),
            headers: BTreeMap::new(),
            timestamp: Utc::now(),
        };
        writer.produce(vec![record], Compression::NoCompression).await.unwrap();
    }
}

async fn drift(app: &App) -> Value {
    app.get(&format!("/admin/topics/{}", app.topic)).await.json()["drift"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_megabytes_are_set_once_for_topics_drift_producer_and_fetches() {
    let app = Setup::shared()
        .with("KAFKA_MAX_MESSAGE_BYTES", 20_971_520)
        .with("PRODUCER_MAX_REQUEST_BYTES", 20_000_000)
        .with("PRODUCER_RETRIES", 2_147_483_647)
        .with("CONSUMER_MAX_PARTITION_FETCH_BYTES", 1_048_576)
        .with("CONSUMER_FETCH_MAX_BYTES", 52_428_800)
        .with("PRODUCER_COMPRESSION", "none")
        .start()
        .await;
    app.open("first", "1.00").await;
    app.drain().await;
    let seen = tool(TOPICS, &["--describe", "--topic", &app.topic]);
    assert!(seen.contains("max.message.bytes=20971520"), "{seen}");
    let letters = app.variable("KAFKA_DLQ_TOPIC").to_owned();
    let seen = tool(TOPICS, &["--describe", "--topic", &letters]);
    assert!(seen.contains("max.message.bytes=20971520"), "{seen}");
    assert_eq!(drift(&app).await, json!([]));
    produce_large(&app).await;
    for number in 0..20 {
        app.open(&format!("w-{number}"), "1.00").await;
    }
    app.drain().await;
    eventually("all ten are dead letters, and published as such", PATIENCE, async || {
        let sent: i64 = sqlx::query_scalar(
            "select count(*) from dead_letters where published_at is not null and refusal is null",
        )
        .fetch_one(&app.pool)
        .await
        .unwrap();
        (sent == 10).then_some(())
    })
    .await;
    app.assert_reconciled();
}

/// The setting is as it was, and the topic is not: it is read all the same, and the difference is shown.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_megabytes_at_the_broker_alone_block_nobody() {
    let app = Setup::shared().with("PROJECTOR_FEEDS", "kafka").start().await;
    app.open("first", "1.00").await;
    app.drain().await;
    let config = ["--add-config", "max.message.bytes=20971520"];
    tool(CONFIGS, &[&["--alter", "--topic", app.topic.as_str()][..], &config].concat());
    let shown = json!([{
        "topic": app.topic, "what": "max.message.bytes", "wanted": "10485760", "actual": "20971520",
    }]);
    eventually("the difference is shown", PATIENCE, async || {
        (drift(&app).await == shown).then_some(())
    })
    .await;
    produce_large(&app).await;
    for number in 0..20 {
        app.open(&format!("w-{number}"), "1.00").await;
    }
    app.drain().await;
    eventually("all ten are set aside", PATIENCE, async || {
        (dead_letters(&app).await == 10).then_some(())
    })
    .await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_by_name() {
    let mut app = Setup::shared().migrated();
    for (name, value, hint) in [
        ("PRODUCER_RETRIES", "5", "KAFKA_RETRY_MAX_MS"),
        ("KAFKA_MAX_MESSAGE_BYTES", "1000", "from 131072"),
        ("PRODUCER_MAX_REQUEST_BYTES", "20000000", "KAFKA_MAX_MESSAGE_BYTES"),
        ("CONSUMER_MAX_PARTITION_FETCH_BYTES", "0", "from 1024"),
        ("CONSUMER_FETCH_MAX_BYTES", "many", "a whole number"),
    ] {
        app.set(name, value);
        let said = app.wallex(&["config", "check"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains(name) && text.contains(hint), "{text}");
        app.set(name, "");
    }
    assert!(app.wallex(&["config", "check"]).status.success());
}
