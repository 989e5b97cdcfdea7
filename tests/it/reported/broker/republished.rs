//! Old events that are sent today stay in their topic as long as its retention says, not until the
//! broker's next check: on a broker that checks every second.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;
use serde_json::Value;

use crate::support::app::{App, Setup};
use crate::support::{eventually, servers};

const PATIENCE: Duration = Duration::from_secs(60);
const CONTROL: &str = "control";

async fn partition(client: &Client, topic: &str, number: i32) -> PartitionClient {
    client.partition_client(topic, number, UnknownTopicHandling::Retry).await.unwrap()
}

/// A record with this time in the topic that shows whether the broker has looked.
async fn write(control: &PartitionClient, timestamp: DateTime<Utc>) {
    let record = Record { key: None, value: Some(vec![0]), headers: BTreeMap::new(), timestamp };
    control.produce(vec![record], Compression::NoCompression).await.unwrap();
}

/// Waits until the broker has looked at all topics once from now on, and removed what was due: at the
/// second time that it removes something new from one topic it has been at all others in between.
async fn checked(control: &PartitionClient) {
    for _ in 0..2 {
        write(control, Utc::now() - TimeDelta::days(30)).await;
        eventually("the broker removes what is old", PATIENCE, async || {
            let earliest = control.get_offset(OffsetAt::Earliest).await.ok()?;
            let latest = control.get_offset(OffsetAt::Latest).await.ok()?;
            (earliest == latest).then_some(())
        })
        .await;
    }
}

/// The versions that a topic still has of each wallet, and each record's own time with the event's.
async fn kept(
    client: &Client,
    topic: &str,
) -> (BTreeMap<String, Vec<i64>>, Vec<[DateTime<Utc>; 2]>) {
    let (mut versions, mut times) = (BTreeMap::<String, Vec<i64>>::new(), Vec::new());
    let partitions = client.list_topics().await.unwrap().into_iter();
    let found = partitions.filter(|found| found.name == topic).flat_map(|found| found.partitions);
    for number in found.collect::<Vec<_>>() {
        let reader = partition(client, topic, number).await;
        let end = reader.get_offset(OffsetAt::Latest).await.unwrap();
        let mut offset = reader.get_offset(OffsetAt::Earliest).await.unwrap();
        while offset < end {
            let (records, _) = reader.fetch_records(offset, 1..1_000_000, 500).await.unwrap();
            for found in records {
                offset = found.offset + 1;
                let value = found.record.value.unwrap_or_default();
                let Ok(value) = serde_json::from_slice::<Value>(&value) else { continue };
                let key = String::from_utf8(found.record.key.unwrap_or_default()).unwrap();
                versions.entry(key).or_default().push(value["aggregateVersion"].as_i64().unwrap());
                let event = value["timestamp"].as_str().unwrap().parse().unwrap();
                times.push([found.record.timestamp, event]);
            }
        }
    }
    (versions, times)
}

async fn run(app: &App, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&app.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn republished_after_retention_the_records_stay_and_keep_the_events_times() {
    let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let kafka = servers::own_kafka_with(
        0,
        vec![
            property("log.retention.check.interval.ms", "1000"),
            property("log.initial.task.delay.ms", "500"),
        ],
    );
    let client = ClientBuilder::new(vec![kafka.bootstrap.clone()]).build().await.unwrap();
    client.controller_client().unwrap().create_topic(CONTROL, 1, 1, 5000).await.unwrap();
    let control = partition(&client, CONTROL, 0).await;
    checked(&control).await;

    // Kafka is away while they happen.
    let setup = Setup::on(servers::postgres(), Some(&kafka)).with("KAFKA_BROKERS", "127.0.0.1:1");
    let mut app = setup.start().await;
    app.open("w-1", "5.00").await;
    app.open("w-2", "5.00").await;
    // A month later what waited in the outbox has never left it, one wallet is to be sent again, a
    // second topic is to be filled, and a dead letter was never sent.
    assert!(tokio::task::block_in_place(|| app.stop()).success());
    run(
        &app,
        "update events set created_at = created_at - interval '30 days'; \
         update outbox_batches set created_at = created_at - interval '30 days'; \
         insert into dead_letters (tenant_id, projectors, topic, partition, \"offset\", \
             record_hash, error_class, error_message, failed_at) \
         values ('default', '{ledger-projector}', 'x', 0, 0, '', 'undecodable', 'a test', \
             clock_timestamp() - interval '60 days')",
    )
    .await;
    let written: DateTime<Utc> = sqlx::query_scalar("select max(created_at) from events")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    let second = format!("{}-second", app.topic);
    app.set("KAFKA_SECOND_TOPIC", &second);
    app.set("KAFKA_BROKERS", &kafka.bootstrap);
    app.spawn();
    app.ready().await;
    let republished = app.wallex(&["outbox", "republish", "--wallet", "w-2", "--yes"]);
    assert!(republished.status.success(), "{republished:?}");
    app.drain().await;
    eventually("the second has everything", PATIENCE, async || {
        let health = app.get("/health/kafka").await.json();
        (health["second"]["lag"] == 0).then_some(())
    })
    .await;
    eventually("the dead letter is sent", PATIENCE, async || {
        let sent: i64 =
            sqlx::query_scalar("select count(*) from dead_letters where published_at is not null")
                .fetch_one(&app.pool)
                .await
                .ok()?;
        (sent == 1).then_some(())
    })
    .await;
    checked(&control).await;
    for (topic, again) in [(&app.topic, vec![1, 2, 1, 2]), (&second, vec![1, 2])] {
        let (versions, times) = kept(&client, topic).await;
        let whole = [("w-1".to_owned(), vec![1, 2]), ("w-2".to_owned(), again)];
        assert_eq!(versions, BTreeMap::from(whole), "{topic}");
        for [record, event] in times {
            assert!(event <= written, "{topic}: {event}");
            assert!(Utc::now() - record < TimeDelta::hours(2), "{topic}: {record}");
        }
    }
    let mut letters = 0;
    for number in 0..5 {
        let reader = partition(&client, app.variable("KAFKA_DLQ_TOPIC"), number).await;
        let earliest = reader.get_offset(OffsetAt::Earliest).await.unwrap();
        letters += reader.get_offset(OffsetAt::Latest).await.unwrap() - earliest;
    }
    assert_eq!(letters, 1, "the dead letter");
}
