//! The tour of what operators look at.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Setup, get};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn health_says_how_every_part_is() {
    let app = Setup::shared().with("HEALTH_INCLUDE_KAFKA", true).start().await;
    app.open("w", "1").await;
    app.drain().await;
    assert_eq!(get(&app, "/livez").await, json!({"status": "ok"}));
    assert_eq!(get(&app, "/readyz").await, json!({"status": "ready"}));
    assert_eq!(get(&app, "/ledger/health").await, json!({"status": "ok", "module": "ledger"}));

    let mut api = get(&app, "/api/health").await;
    for part in ["database", "kafka"] {
        assert!(api["checks"][part]["latencyMs"].take().is_u64(), "{api}");
    }
    let up = json!({"status": "up", "latencyMs": null});
    assert_eq!(api, json!({"status": "healthy", "checks": {"database": up, "kafka": up}}));

    let healthy = async || {
        let health = get(&app, "/health/kafka").await;
        (health["status"] == "healthy").then_some(health)
    };
    let mut health = eventually("healthy", Duration::from_secs(20), healthy).await;
    let at = health["timestamp"].take();
    // Looked at by a task of its own: perhaps not yet.
    health["topics"].take();
    assert!(chrono::DateTime::parse_from_rfc3339(at.as_str().unwrap()).is_ok());
    let consumer = json!({"state": "running", "lag": 0, "more": false, "lagMs": 0});
    let expected = json!({
        "status": "healthy",
        "reasons": [],
        "producer": {"connected": true},
        "kafka": {"status": "connected", "error": null},
        "publisher": {
            "isRunning": true, "unprocessedEvents": 0, "more": false, "lagMs": 0,
            "awaitsRepublication": false,
        },
        "consumers": {
            app.group("ledger-projector"): consumer, app.group("read-model-projector"): consumer,
        },
        "breaker": {"state": "closed"},
        "second": null,
        "topics": null,
        "timestamp": null,
    });
    assert_eq!(health, expected);

    // Where Kafka was slow to start, the other feed has applied the events: this one follows.
    let own = wallex::envelope::partition_of("w", 10);
    let end = |partition| if partition == own { 2 } else { 0 };
    let place = |p| json!({"partition": p, "committed": end(p), "logEnd": end(p), "lag": 0});
    let expected: Vec<Value> = (0..10).map(place).collect();
    let own_name = get(&app, "/health/kafka/stats").await["instance"].clone();
    let places = |partitions: &Value| {
        let mut partitions = partitions.as_array().unwrap().clone();
        for partition in &mut partitions {
            assert_eq!(partition["owner"].take(), own_name, "one instance has them all");
            let fields = partition.as_object_mut().unwrap();
            fields.remove("owner");
            assert_eq!(fields.remove("lagEvents"), Some(json!(0)));
            assert_eq!(fields.remove("lagMs"), Some(json!(0)));
            assert_eq!(fields.remove("more"), Some(json!(false)));
        }
        partitions
    };
    let in_step = async || {
        let stats = get(&app, "/health/kafka/stats").await;
        let mut groups = stats["groups"].as_object().unwrap().values();
        groups.all(|group| places(&group["partitions"]) == expected).then_some(stats)
    };
    let stats = eventually("the topic read to its end", Duration::from_secs(20), in_step).await;
    assert_eq!(stats["outbox"]["published"], 2);
    let groups: Vec<&String> = stats["groups"].as_object().unwrap().keys().collect();
    assert_eq!(groups, [&app.group("ledger-projector"), &app.group("read-model-projector")]);
    let cluster = async || {
        let stats = get(&app, "/health/kafka/stats").await;
        let rated = stats["outbox"]["publishedLastMinute"] == 2;
        let seen = stats["cluster"]["topics"].as_array().is_some_and(|topics| topics.len() == 2);
        (rated && seen).then(|| stats["cluster"].clone())
    };
    let cluster = eventually("cluster and rate", Duration::from_secs(30), cluster).await;
    assert_eq!(cluster["controller"], cluster["brokers"][0]["id"], "{cluster}");
    assert!(cluster["brokers"][0]["latencyMs"].is_u64(), "{cluster}");
    let topic = |name: &str, partitions: u32| json!({"name": name, "partitions": partitions, "underReplicated": 0, "offline": 0});
    let letters = format!("{}-dlq", app.topic);
    assert_eq!(cluster["topics"], json!([topic(&app.topic, 10), topic(&letters, 5)]));
    assert_eq!(stats["deadTasks"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_health_says_so_and_metrics_are_there() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "1").await;
    let health = get(&app, "/health/kafka").await;
    assert_eq!(health["status"], "disabled");
    assert_eq!(health["kafka"], json!({"status": "disabled", "error": Value::Null}));
    let api = get(&app, "/api/health").await;
    assert_eq!(api["checks"].as_object().unwrap().keys().collect::<Vec<_>>(), ["database"]);

    let strange = reqwest::Method::from_bytes(b"BREW-1").unwrap();
    assert_eq!(app.request(strange, "/livez").send().await.unwrap().status(), 405);
    let metrics = app.get("/metrics").await;
    assert!(!metrics.text.contains("BREW"), "a client made up a series");
    assert!(metrics.header("content-type").starts_with("text/plain"));
    for line in [
        "http_server_request_duration_seconds_count{method=\"POST\",route=\"/wallets\",status=\"201\"} 1",
        "command_batch_size_count 1",
    ] {
        assert!(metrics.text.lines().any(|l| l == line), "{line} is not in\n{}", metrics.text);
    }
}
