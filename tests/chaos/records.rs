//! The topic as a stranger reads it and writes to it, past the proxies.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};

use super::journal::Record;

const PATIENCE: Duration = Duration::from_secs(60);

/// All records of a topic, in the order of each partition.
pub async fn read(bootstrap: &str, topic: &str) -> Vec<Record> {
    let client = connect(bootstrap).await;
    let mut read = Vec::new();
    for partition in partitions(&client, topic).await {
        let reader = open(&client, topic, partition).await;
        let end = reader.get_offset(OffsetAt::Latest).await.unwrap();
        let mut offset = reader.get_offset(OffsetAt::Earliest).await.unwrap();
        while offset < end {
            let fetch = reader.fetch_records(offset, 1..4_000_000, 1_000);
            let fetched = tokio::time::timeout(PATIENCE, fetch).await;
            let (records, _) = fetched.expect("the broker answers").unwrap();
            for found in records {
                offset = found.offset + 1;
                let (key, value) = (found.record.key, found.record.value);
                read.push(Record { partition, offset: found.offset, key, value });
            }
        }
    }
    read
}

/// Where each partition ends.
pub async fn ends(bootstrap: &str, topic: &str) -> BTreeMap<i32, i64> {
    let client = connect(bootstrap).await;
    let mut ends = BTreeMap::new();
    for partition in partitions(&client, topic).await {
        let reader = open(&client, topic, partition).await;
        ends.insert(partition, reader.get_offset(OffsetAt::Latest).await.unwrap());
    }
    ends
}

/// Appends records; their offsets.
pub async fn append(bootstrap: &str, topic: &str, records: &[Record]) -> Vec<i64> {
    let client = connect(bootstrap).await;
    let mut offsets = Vec::new();
    for record in records {
        let writer = open(&client, topic, record.partition).await;
        let (key, value) = (record.key.clone(), record.value.clone());
        let (headers, timestamp) = (BTreeMap::new(), Utc::now());
        let record = rskafka::record::Record { key, value, headers, timestamp };
        let produce = writer.produce(vec![record], Compression::NoCompression);
        let produced = tokio::time::timeout(PATIENCE, produce).await;
        offsets.extend(produced.expect("the broker answers").unwrap());
    }
    offsets
}

async fn connect(bootstrap: &str) -> Client {
    let building = ClientBuilder::new(vec![bootstrap.to_owned()]).build();
    let client = tokio::time::timeout(PATIENCE, building).await;
    client.expect("the broker answers").unwrap()
}

pub async fn partitions(client: &Client, topic: &str) -> Vec<i32> {
    let topics = client.list_topics().await.unwrap();
    let found = topics.into_iter().find(|found| found.name == topic).expect("the topic is there");
    found.partitions.into_iter().collect()
}

async fn open(client: &Client, topic: &str, partition: i32) -> PartitionClient {
    let handling = UnknownTopicHandling::Retry;
    client.partition_client(topic, partition, handling).await.unwrap()
}
