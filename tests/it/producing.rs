//! How records are produced: the headers of CloudEvents, the linger, sizes, and whether all of it may
//! be switched in between.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::events::tools::{Record, consume};
use crate::support::app::{App, Setup};
use crate::support::{servers, topic};

async fn events(app: &App) -> i64 {
    sqlx::query_scalar("select count(*) from events").fetch_one(&app.pool).await.unwrap()
}

/// A wallet with an opening balance, a credit, a debit and a transfer to `other`.
async fn history(app: &App, wallet: &str, other: &str) {
    app.open(wallet, "10").await;
    app.open(other, "0").await;
    let encoded = wallet.replace('/', "%2F");
    for (verb, body) in [
        ("credit", json!({"amount": "1", "metadata": {"a": [1, null]}})),
        ("debit", json!({"amount": "0.50"})),
        ("transfer", json!({"amount": "0.25", "toWalletId": other})),
    ] {
        let answer = app.post(&format!("/wallets/{encoded}/{verb}"), body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    app.drain().await;
}

/// A record taken apart as the Kafka binding of CloudEvents has it in binary mode: the attributes,
/// without prefix; none where it is no CloudEvent. Knows nothing of the service.
fn cloud_event(record: &Record) -> Option<BTreeMap<String, String>> {
    let header = |name: &str| {
        let found = record.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, text)| text.clone())
    };
    header("ce_specversion")?;
    let mut attributes: BTreeMap<String, String> = record
        .headers
        .iter()
        .filter_map(|(name, text)| Some((name.strip_prefix("ce_")?.to_owned(), text.clone())))
        .collect();
    let content_type = header("content-type").expect("data has a content type");
    assert!(!content_type.starts_with("application/cloudevents"), "that is structured mode");
    attributes.insert("datacontenttype".to_owned(), content_type);
    for name in ["specversion", "id", "source", "type"] {
        assert!(attributes.get(name).is_some_and(|text| !text.is_empty()), "{name} is required");
    }
    for (name, text) in &attributes {
        // Names are lower-case letters and digits; texts are never empty and have no control characters.
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{name}");
        assert!(!text.is_empty() && !text.contains(char::is_control), "{name}: {text}");
    }
    Some(attributes)
}

fn schema_id(event_type: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let text = std::fs::read_to_string(folder.join(format!("{event_type}.json"))).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    schema["$id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_a_cloud_event_where_that_is_asked_for_and_none_otherwise() {
    let mut app = Setup::shared().with("KAFKA_CLOUDEVENTS", true).start().await;
    history(&app, "w/ü 財布".replace(' ', "-").as_str(), "other").await;
    let with = events(&app).await;
    app.stop();
    app.set("KAFKA_CLOUDEVENTS", false);
    app.restart().await;
    history(&app, "plain", "plain-2").await;
    let all = events(&app).await;

    let mut found = 0;
    for record in consume(&app.topic, all as usize) {
        let event: Value = serde_json::from_str(&record.value).unwrap();
        let own = record.headers.iter().filter(|(name, _)| !name.starts_with("ce_"));
        let own: Vec<&str> = own.map(|(name, _)| name.as_str()).collect();
        let Some(attributes) = cloud_event(&record) else {
            assert!(record.key.starts_with("plain"), "{record:?}");
            assert_eq!((own.len(), record.headers.len()), (8, 8), "{record:?}");
            continue;
        };
        found += 1;
        assert!(!record.key.starts_with("plain"), "{record:?}");
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let expected = [
            ("datacontenttype", "application/json".to_owned()),
            ("dataschema", schema_id(&text("eventType"))),
            ("id", text("eventId")),
            ("partitionkey", record.key.clone()),
            ("source", "/wallex/default".to_owned()),
            ("specversion", "1.0".to_owned()),
            ("subject", text("aggregateId")),
            ("time", text("timestamp")),
            ("type", text("eventType")),
        ];
        let expected: BTreeMap<String, String> =
            expected.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        assert_eq!(attributes, expected);
        assert_eq!(own.len(), 9, "the others are there as well: {record:?}");
    }
    assert_eq!(found, with, "all of the first, none of the second");
    topic::assert_same(&servers::kafka().bootstrap, &app).await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_in_one_form_is_found_again_in_the_other() {
    let mut app = Setup::shared().with("KAFKA_CLOUDEVENTS", true).start().await;
    history(&app, "w1", "w2").await;
    for (form, codec) in [(false, "zstd"), (true, "none")] {
        app.stop();
        // Sent and confirmed, and nobody knows.
        let forget = "update outbox_batches set processed_at = null, published = false";
        sqlx::query(forget).execute(&app.pool).await.unwrap();
        let forget = "update partition_leases set last_offset = -1 where role = 'publisher'";
        sqlx::query(forget).execute(&app.pool).await.unwrap();
        app.set("KAFKA_CLOUDEVENTS", form);
        app.set("PRODUCER_COMPRESSION", codec);
        app.restart().await;
        let (from, to) = (format!("v1-{form}"), format!("v2-{form}"));
        history(&app, &from, &to).await;
    }
    let found = topic::assert_same(&servers::kafka().bootstrap, &app).await;
    assert_eq!(found.duplicates, 0);
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_a_request_goes_in_parts_each_event_once_and_in_order() {
    let app = Setup::shared()
        .with("DEFAULT_PARTITIONS", 1)
        .with("PRODUCER_MAX_REQUEST_BYTES", 5000)
        .start()
        .await;
    app.open("a", "10").await;
    app.open("b", "10").await;
    let wallet = |n: usize| if n.is_multiple_of(2) { "a" } else { "b" };
    let one = |n: usize| json!({"op": "credit", "walletId": wallet(n), "amount": "1"});
    let body = json!({"atomic": true, "operations": (0..100).map(one).collect::<Vec<_>>()});
    let answer = app.post("/bulk", body).await;
    assert!(answer.status < 300, "{}", answer.text);
    app.drain().await;
    let parts = "select max(part)::bigint from outbox_batches";
    let parts: i64 = sqlx::query_scalar(parts).fetch_one(&app.pool).await.unwrap();
    assert!((5..100).contains(&parts), "{parts}");
    let found = topic::assert_same(&servers::kafka().bootstrap, &app).await;
    assert_eq!((found.records, found.duplicates), (104, 0));
    app.assert_reconciled();
}

/// From the first event's commit to the first mark, in milliseconds by Postgres's clock.
async fn first_wait(app: &App) -> i64 {
    let question = "select (extract(epoch from min(processed_at) - min(created_at)) * 1000)::bigint from outbox";
    sqlx::query_scalar(question).fetch_one(&app.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_linger_for_more_until_there_are_enough_bytes() {
    let linger = 10_000;
    let mut app = Setup::shared()
        .with("PRODUCER_LINGER_MS", linger)
        .with("PRODUCER_BATCH_BYTES", 900_000)
        .with("OUTBOX_POLL_INTERVAL_MS", 200)
        .start()
        .await;
    app.open("w", "1").await;
    for _ in 0..10 {
        assert_eq!(app.post("/wallets/w/credit", json!({"amount": "1"})).await.status, 201);
    }
    app.drain().await;
    let first = first_wait(&app).await;
    assert!(first >= linger, "sent after {first} ms of {linger}");

    app.stop();
    app.set("PRODUCER_BATCH_BYTES", 4000);
    app.restart().await;
    let reference = "r".repeat(255);
    let mut waited = Vec::new();
    // A busy machine may take as long as the linger; without an end by bytes none is ever shorter.
    while waited.len() < 5 && !waited.iter().any(|first| *first < linger) {
        sqlx::query("delete from outbox_batches").execute(&app.pool).await.unwrap();
        for _ in 0..20 {
            let body = json!({"amount": "1", "reference": reference});
            assert_eq!(app.post("/wallets/w/credit", body).await.status, 201);
        }
        app.drain().await;
        waited.push(first_wait(&app).await);
    }
    assert!(waited.iter().any(|first| *first < linger), "bytes ended no wait: {waited:?} ms");
    let found = topic::assert_same(&servers::kafka().bootstrap, &app).await;
    assert_eq!(found.duplicates, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_record_that_can_be_asked_for_is_far_below_the_limit() {
    let app = Setup::shared().with("KAFKA_CLOUDEVENTS", true).start().await;
    // Each part as large as it may be; what JSON has to escape is the longest.
    let (one, other) = ("財".repeat(255), "布".repeat(255));
    for id in [&one, &other] {
        app.open(id, "1000000").await;
    }
    let metadata = |bytes: usize| json!({"a": "\\".repeat((bytes - 8) / 2)});
    let transfer = async |metadata: Value| {
        let path = format!("/wallets/{one}/transfer");
        let body = json!({
            "toWalletId": other, "amount": "999999.99", "description": "\u{1}".repeat(1024),
            "reference": "財".repeat(255), "metadata": metadata,
        });
        let request = app.request(Method::POST, &path).json(&body);
        let request = request.header("x-correlation-id", "c".repeat(255));
        request.header("x-causation-id", "d".repeat(255)).send().await.unwrap()
    };
    let refused = transfer(metadata(16 * 1024 + 2)).await;
    assert_eq!(refused.status(), 400, "{}", refused.text().await.unwrap());
    let taken = transfer(metadata(16 * 1024)).await;
    assert_eq!(taken.status(), 201, "{}", taken.text().await.unwrap());
    app.drain().await;
    let records = consume(&app.topic, events(&app).await as usize);
    let size = |record: &Record| {
        let headers: usize =
            record.headers.iter().map(|(name, text)| name.len() + text.len()).sum();
        record.key.len() + record.value.len() + headers
    };
    let largest = records.iter().map(size).max().unwrap();
    assert!((16 * 1024..64 * 1024).contains(&largest), "{largest} bytes");
    app.assert_reconciled();
}
