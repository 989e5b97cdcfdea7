//! Raw records on the shared broker: any bytes, written and read as a stranger does.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;
use serde_json::{Value, json};
use wallex::envelope::partition_of;

use crate::support::app::App;
use crate::support::{eventually, servers};

pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PARTITIONS: i32 = 10;

/// Any record.
pub fn record(key: Option<&[u8]>, value: Option<&[u8]>) -> Record {
    Record {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: BTreeMap::from([("from".to_owned(), b"a stranger".to_vec())]),
        timestamp: Utc::now(),
    }
}

/// An envelope of an event that is not in the books.
pub fn envelope(wallet: &str, version: i64, kind: &str, schema: i64) -> Value {
    json!({
        "eventId": uuid::Uuid::now_v7(), "eventType": kind, "aggregateType": "Wallet",
        "aggregateId": wallet, "aggregateVersion": version, "schemaVersion": schema,
        "tenantId": "default", "timestamp": "2026-01-01T00:00:00.000Z", "correlationId": null,
        "causationId": null, "data": {},
    })
}

pub async fn client() -> Client {
    ClientBuilder::new(vec![servers::kafka().bootstrap.clone()]).build().await.unwrap()
}

/// Appends records to one partition; the offset of the first.
pub async fn produce(topic: &str, partition: i32, records: Vec<Record>) -> i64 {
    produce_with(&client().await, topic, partition, records).await
}

/// Offers one record, once.
pub async fn offer(topic: &str, partition: i32, record: Record) -> Result<(), String> {
    let client = client().await;
    let writer = client.partition_client(topic, partition, UnknownTopicHandling::Retry);
    let writer = writer.await.map_err(|error| error.to_string())?;
    let answer = writer.produce(vec![record], Compression::NoCompression).await;
    answer.map(drop).map_err(|error| error.to_string())
}

/// The same on another broker.
pub async fn produce_with(
    client: &Client,
    topic: &str,
    partition: i32,
    records: Vec<Record>,
) -> i64 {
    let handling = UnknownTopicHandling::Retry;
    let writer = client.partition_client(topic, partition, handling).await.unwrap();
    writer.produce(records, Compression::NoCompression).await.unwrap()[0]
}

/// Everything that a topic holds: partition, offset, record.
pub async fn read(topic: &str) -> Vec<(i32, i64, Record)> {
    read_with(&client().await, topic).await
}

/// The same on another broker.
pub async fn read_with(client: &Client, topic: &str) -> Vec<(i32, i64, Record)> {
    let topics = client.list_topics().await.unwrap();
    let found = topics.into_iter().find(|found| found.name == topic);
    let mut all = Vec::new();
    for partition in found.expect("the topic is there").partitions {
        let handling = UnknownTopicHandling::Retry;
        let reader = client.partition_client(topic, partition, handling).await.unwrap();
        let end = reader.get_offset(OffsetAt::Latest).await.unwrap();
        let mut offset = 0;
        while offset < end {
            let (records, _) = reader.fetch_records(offset, 1..4_000_000, 1000).await.unwrap();
            for found in records {
                offset = found.offset + 1;
                all.push((partition, found.offset, found.record));
            }
        }
    }
    all
}

/// Waits until the topic of the dead letters holds so many records.
pub async fn dead_letters(app: &App, count: usize) -> Vec<Record> {
    let topic = format!("{}-dlq", app.topic);
    eventually(&format!("{count} records in {topic}"), PATIENCE, async || {
        let records: Vec<Record> = read(&topic).await.into_iter().map(|(_, _, r)| r).collect();
        (records.len() >= count).then_some(records)
    })
    .await
}

pub fn header(record: &Record, name: &str) -> String {
    let value = record.headers.get(name).unwrap_or_else(|| panic!("no {name}: {record:?}"));
    String::from_utf8(value.clone()).unwrap()
}

/// Names of wallets in one partition.
pub fn wallets_in(partition: i32, prefix: &str, count: usize) -> Vec<String> {
    let names = (0..).map(|n| format!("{prefix}-{n}"));
    names.filter(|name| partition_of(name, PARTITIONS) == partition).take(count).collect()
}

/// Waits until so many dead letters stand in the table, and both projectors have met each.
pub async fn kept(app: &App, count: i64) {
    eventually(&format!("{count} dead letters met by both"), PATIENCE, async || {
        let (all, met): (i64, i64) = sqlx::query_as(
            "select count(*), count(*) filter (where cardinality(projectors) = 2) \
             from dead_letters",
        )
        .fetch_one(&app.pool)
        .await
        .unwrap();
        ((all, met) == (count, count)).then_some(())
    })
    .await;
}
