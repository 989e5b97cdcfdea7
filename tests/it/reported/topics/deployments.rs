//! Two deployments, two databases, one Kafka, the default names.

use std::collections::BTreeMap;

use chrono::Utc;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use serde_json::json;

use super::{PATIENCE, dead_letters, health, open_many, problem, refused};
use crate::support::app::{App, Setup};
use crate::support::{eventually, servers, topic};

/// Another database with all the names of the first.
fn beside(first: &App) -> Setup {
    ["KAFKA_EVENTS_TOPIC", "KAFKA_DLQ_TOPIC", "CONSUMER_GROUP_ID"]
        .into_iter()
        .fold(Setup::shared(), |setup, name| setup.with(name, first.variable(name)))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_deployments_with_the_same_names_the_second_is_refused_at_its_start() {
    let mut first = Setup::shared().start().await;
    open_many(&first, "w", 20).await;
    first.drain().await;
    let mut second = beside(&first).migrated();
    let said = refused(&mut second).await;
    for wanted in
        [first.topic.as_str(), "another deployment", "KAFKA_EVENTS_TOPIC", "CONSUMER_GROUP_ID"]
    {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let noted: i64 =
        sqlx::query_scalar("select count(*) from topics").fetch_one(&second.pool).await.unwrap();
    assert_eq!(noted, 0, "nothing is noted of a topic that it may not have");
    // With names of its own it starts, and the first never noticed.
    for name in ["KAFKA_EVENTS_TOPIC", "KAFKA_DLQ_TOPIC", "CONSUMER_GROUP_ID"] {
        let own = format!("second-{}", second.variable(name));
        second.set(name, own);
    }
    second.topic = second.variable("KAFKA_EVENTS_TOPIC").to_owned();
    second.restart().await;
    open_many(&second, "w", 20).await;
    second.drain().await;
    // The first's own start is not in its own way.
    first.restart().await;
    open_many(&first, "later", 5).await;
    first.drain().await;
    for app in [&first, &second] {
        assert_eq!(dead_letters(app).await, 0);
        topic::assert_same(&servers::kafka().bootstrap, app).await;
        app.assert_reconciled();
    }
}

/// Both were there before either had published anything: they are kept apart, and both say so.
#[tokio::test(flavor = "multi_thread")]
async fn two_deployments_that_began_together_are_kept_apart() {
    let first = Setup::shared().start().await;
    let second = beside(&first).start().await;
    open_many(&first, "w", 20).await;
    open_many(&second, "w", 20).await;
    for app in [&first, &second] {
        app.drain().await;
        let problem = eventually("the page says it", PATIENCE, async || problem(app).await).await;
        assert!(problem.contains("another deployment"), "{problem}");
        assert_eq!(health(app).await["status"], "degraded");
        assert_eq!(dead_letters(app).await, 0);
        app.assert_reconciled();
    }
}

/// The same books elsewhere are the same deployment, whatever the topic holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_and_a_move_of_the_books_are_no_second_deployment() {
    let mut first = Setup::shared().start().await;
    open_many(&first, "w", 10).await;
    first.drain().await;
    tokio::task::block_in_place(|| first.stop());
    let mut moved = beside(&first).migrated();
    let (from, to) = (&first.database_url, &moved.database_url);
    let name = |url: &str| url.rsplit_once('/').unwrap().1.to_owned();
    let (from, to) = (name(from), name(to));
    first.pool.close().await;
    moved.pool.close().await;
    let admin = sqlx::PgPool::connect(&servers::postgres().url_of("postgres")).await.unwrap();
    for sql in [
        format!("drop database \"{to}\" with (force)"),
        format!("create database \"{to}\" template \"{from}\""),
    ] {
        eventually(&sql, PATIENCE, async || {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(&admin).await.ok()
        })
        .await;
    }
    moved.pool = sqlx::PgPool::connect_lazy(&moved.database_url).unwrap();
    // A restore to a moment before the topic was known.
    sqlx::query("update topics set topic_id = null").execute(&moved.pool).await.unwrap();
    moved.restart().await;
    open_many(&moved, "v", 10).await;
    moved.drain().await;
    topic::assert_same(&servers::kafka().bootstrap, &moved).await;
    assert_eq!(problem(&moved).await, None);
    moved.assert_reconciled();
}

/// Records of before there was a mark are nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_topic_whose_records_have_no_mark_is_taken() {
    let mut app = Setup::shared().migrated();
    let client =
        ClientBuilder::new(vec![servers::kafka().bootstrap.clone()]).build().await.unwrap();
    client.controller_client().unwrap().create_topic(&app.topic, 10, 1, 30_000).await.unwrap();
    let writer = eventually("its leader", PATIENCE, async || {
        client.partition_client(&app.topic, 3, UnknownTopicHandling::Error).await.ok()
    })
    .await;
    let value = json!({
        "eventId": uuid::Uuid::now_v7(), "eventType": "WalletCreated", "aggregateType": "Wallet",
        "aggregateId": "old", "aggregateVersion": 1, "schemaVersion": 1, "tenantId": "default",
        "timestamp": "2026-01-01T00:00:00.000Z", "data": {},
    });
    let record = Record {
        key: Some(b"old".to_vec()),
        value: Some(value.to_string().into_bytes()),
        headers: BTreeMap::new(),
        timestamp: Utc::now(),
    };
    writer.produce(vec![record], Compression::NoCompression).await.unwrap();
    app.restart().await;
    open_many(&app, "w", 10).await;
    app.drain().await;
    assert_eq!(problem(&app).await, None);
    app.assert_reconciled();
}
