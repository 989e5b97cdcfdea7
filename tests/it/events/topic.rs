//! Records and topics as the contract has them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use wallex::envelope::partition_of;
use wallex::wallet::EventType;

use super::schemas::validator;
use super::tools::{Record, consume, produce, tool};
use crate::support::app::{App, Setup};
use crate::support::eventually;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A few commands on each of some wallets, every other one with ids of the caller's.
async fn history(app: &App, wallets: &[&str]) {
    let post = async |path: &str, body: Value, with_ids: bool| {
        let mut request = app.request(Method::POST, path).json(&body);
        if with_ids {
            for (name, id) in
                [("x-correlation-id", "c-1"), ("x-causation-id", "order-7"), ("traceparent", TRACE)]
            {
                request = request.header(name, id);
            }
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    };
    for (n, id) in wallets.iter().enumerate() {
        let body = json!({
            "walletId": id, "ownerId": "it", "initialBalance": "5", "metadata": {"n": n, "ü": null},
        });
        post("/wallets", body, n % 2 == 0).await;
    }
    for round in 0..5 {
        for (n, id) in wallets.iter().enumerate() {
            let (id, next) = (id.replace('/', "%2F"), wallets[(n + 1) % wallets.len()]);
            let body =
                json!({"amount": "1", "reference": format!("r {round}"), "metadata": {"a": []}});
            post(&format!("/wallets/{id}/credit"), body, n % 2 == 0).await;
            let body = json!({"amount": "0.50", "description": "fee, \"§ 3\""});
            post(&format!("/wallets/{id}/debit"), body, round % 2 == 0).await;
            let body = json!({"amount": "0.25", "toWalletId": next});
            post(&format!("/wallets/{id}/transfer"), body, true).await;
        }
    }
    app.drain().await;
}

/// The headers that a record's own envelope calls for, in the order of their names.
fn headers(event: &Value, trace: &str, deployment: &str) -> Vec<(String, String)> {
    let text = |name: &str| event[name].as_str().unwrap_or("").to_owned();
    let pairs = [
        ("aggregate-id", text("aggregateId")),
        ("aggregateType", "Wallet".to_owned()),
        ("causation-id", text("causationId")),
        ("correlation-id", text("correlationId")),
        ("deployment-id", deployment.to_owned()),
        ("event-type", text("eventType")),
        ("eventType", text("eventType")),
        ("traceparent", trace.to_owned()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// A wallet with an event of each kind that has come since the first ones, and one that nobody asked for.
async fn on_hold(app: &App) {
    let [one, two] = [1, 2].map(|n| format!("6e8bc430-9c3a-41d9-9669-00000000000{n}"));
    let operations = json!([
        {"op": "create", "walletId": "held", "ownerId": "o", "initialBalance": "50.00"},
        {"op": "hold", "walletId": "held", "holdId": one, "amount": "20.00"},
        {"op": "adjust", "walletId": "held", "holdId": one, "amount": "25.00"},
        {"op": "capture", "walletId": "held", "holdId": one, "amount": "5.00", "final": false},
        {"op": "release", "walletId": "held", "holdId": one, "reason": "done"},
        {"op": "hold", "walletId": "held", "holdId": two, "amount": "3.00", "expiresIn": 1},
        {"op": "limits", "walletId": "held", "overdraftLimit": "10.00", "reason": "asked for"},
        {"op": "metadata", "walletId": "held", "metadata": {"tier": "gold"}},
        {"op": "freeze", "walletId": "held", "reason": "lost"},
    ]);
    let done = app.post("/bulk", json!({"atomic": true, "operations": operations})).await;
    assert_eq!(done.status, 201, "{}", done.text);
    eventually("the second hold has expired", Duration::from_secs(20), async || {
        let hold = app.get(&format!("/holds/{two}")).await.json();
        (hold["status"] == "expired").then_some(())
    })
    .await;
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_consumer_sees_every_event_in_order_under_its_wallets_key() {
    let app = Setup::shared().start().await;
    let wallets = ["w-1", "w-2", "w-3", "w-4", "w-5", "w-6", "w-7", "ü/財布"];
    history(&app, &wallets).await;
    on_hold(&app).await;
    let total: i64 =
        sqlx::query_scalar("select count(*) from events").fetch_one(&app.pool).await.unwrap();
    let deployment: String =
        sqlx::query_scalar("select id::text from deployments").fetch_one(&app.pool).await.unwrap();
    let records = consume(&app.topic, total as usize);

    let mut by_wallet: BTreeMap<&str, Vec<(&Record, Value)>> = BTreeMap::new();
    for record in &records {
        let event: Value = serde_json::from_str(&record.value).unwrap();
        let kind = EventType::parse(event["eventType"].as_str().unwrap()).unwrap();
        if let Err(error) = validator(kind).validate(&event) {
            panic!("{error} in {}", record.value);
        }
        assert_eq!(event["aggregateId"], record.key.as_str());
        assert_eq!(record.partition, partition_of(&record.key, 10), "{}", record.key);
        let with_ids = event["causationId"] == "order-7";
        assert_eq!(event["correlationId"] == "c-1", with_ids, "{event}");
        let trace = if with_ids { TRACE } else { "" };
        assert_eq!(record.headers, headers(&event, trace, &deployment), "{}", record.value);
        by_wallet.entry(&record.key).or_default().push((record, event));
    }
    let kinds: BTreeSet<String> =
        by_wallet.values().flatten().map(|(_, event)| event["eventType"].to_string()).collect();
    assert_eq!(kinds.len(), EventType::ALL.len(), "{kinds:?}");
    assert_eq!(by_wallet.len(), wallets.len() + 1);
    for (wallet, published) in by_wallet {
        let versions =
            published.iter().map(|(_, event)| event["aggregateVersion"].as_u64().unwrap());
        let last = if wallet == "held" { 11 } else { 22 };
        assert!(versions.eq(1..=last), "{wallet}: not in order");
        // The topic says what the service says, field for field.
        let path = wallet.replace('/', "%2F");
        let shown = app.get(&format!("/wallets/{path}/events?limit=1000")).await.json();
        let published: Vec<&Value> = published.iter().map(|(_, event)| event).collect();
        assert_eq!(json!(published), shown["events"], "{wallet}");
    }
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_as_the_contract_has_them() {
    let app = Setup::shared().start().await;
    let dead_letters = format!("{}-dlq", app.topic);
    app.open("w", "1").await;
    app.drain().await;
    for (topic, partitions, days) in [(&app.topic, 10, 7_u64), (&dead_letters, 5, 30)] {
        let class = "org.apache.kafka.tools.TopicCommand";
        let described = tool(class, &["--describe", "--topic", topic]);
        for wanted in [format!("PartitionCount: {partitions}"), "ReplicationFactor: 1".to_owned()] {
            assert!(described.contains(&wanted), "{wanted} is not in {described}");
        }
        let arguments = ["--describe", "--entity-type", "topics", "--entity-name", topic];
        let described = tool("kafka.admin.ConfigCommand", &arguments);
        let configured: BTreeMap<&str, &str> = described
            .lines()
            .filter_map(|line| line.trim().split(' ').next()?.split_once('='))
            .collect();
        let retention = (days * 86_400_000).to_string();
        let wanted = BTreeMap::from([
            ("cleanup.policy", "delete"),
            ("compression.type", "gzip"),
            ("max.message.bytes", "10485760"),
            ("retention.ms", retention.as_str()),
        ]);
        assert_eq!(configured, wanted, "{described}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_where_the_java_producer_puts_them() {
    let topic = format!("scratch-{}", std::process::id());
    let class = "org.apache.kafka.tools.TopicCommand";
    tool(
        class,
        &["--create", "--topic", &topic, "--partitions", "10", "--replication-factor", "1"],
    );
    let mut keys: Vec<String> = (0..200).map(|n| format!("w-{n:06}")).collect();
    // Every length of the tail, bytes above 127, and ids as the service makes them.
    keys.extend((1..=17).map(|n| "abcdefghijklmnopq"[..n].to_owned()));
    keys.extend(["ü", "財布", "👛", "ÿÿÿ", "a b", "../../etc"].map(str::to_owned));
    keys.extend((0..50).map(|n| uuid::Uuid::from_u128(n << 64 | 0xfedc).to_string()));
    produce(&topic, &keys);
    let records = consume(&topic, keys.len());
    let placed: BTreeMap<&str, i32> =
        records.iter().map(|record| (record.key.as_str(), record.partition)).collect();
    let expected = keys.iter().map(|key| (key.as_str(), partition_of(key, 10))).collect();
    assert_eq!(placed, expected);
    assert_eq!(placed.values().collect::<BTreeSet<_>>().len(), 10, "the keys cover all partitions");
}
