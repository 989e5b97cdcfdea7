//! First start: on servers that have never seen the service there is nothing to warn of, and every line of
//! the log says one thing once.

use serde_json::Value;

use super::{PATIENCE, dead_letters, open_many};
use crate::support::app::{App, Setup};
use crate::support::{eventually, servers};

fn lines(app: &App) -> Vec<Value> {
    app.log_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(lines: &[Value], which: impl Fn(&Value) -> bool) -> usize {
    lines.iter().filter(|line| which(line)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn first_start_has_no_warning_and_one_line_for_each_thing() {
    let kafka = tokio::task::block_in_place(servers::own_kafka);
    let mut app = Setup::on(servers::postgres(), Some(&kafka))
        .with_commands()
        .with("LOG_LEVEL", "info")
        .start()
        .await;
    eventually("the topics are made", PATIENCE, async || {
        let health = app.get("/health/kafka").await.json();
        (health["topics"]["wanted"] == 8 && health["topics"]["missing"] == 0).then_some(())
    })
    .await;
    open_many(&app, "w", 20).await;
    app.drain().await;
    let assigned = |line: &Value| line["message"] == "assigned";
    eventually("all consumers have their partitions", PATIENCE, async || {
        (count(&lines(&app), assigned) == 3).then_some(())
    })
    .await;
    let all = lines(&app);
    // A machine that is busy with other tests may be behind for a moment: that is no first start's affair.
    let behind = |line: &&Value| line["message"] == "feeding from Postgres";
    let loud = all.iter().filter(|line| line["level"] != "INFO" && !behind(line));
    let loud: Vec<&Value> = loud.collect();
    assert!(loud.is_empty(), "{loud:?}");
    assert_eq!(count(&all, assigned), 3, "ledger, read model, commands");
    assert_eq!(count(&all, |line| line["message"] == "publisher: leases moved"), 1);
    let created = |line: &Value| line["message"] == "topic created";
    assert_eq!(count(&all, created), 2, "{all:?}");
    assert!(count(&all, |line| line["message"] == "connected to Kafka") >= 1);
    assert_eq!(count(&all, |line| line["message"] == "Kafka is back"), 0);

    // One that is no event of ours: one line. Kafka goes and comes back: one line each.
    let client =
        rskafka::client::ClientBuilder::new(vec![kafka.bootstrap.clone()]).build().await.unwrap();
    let record = rskafka::record::Record {
        key: Some(b"k".to_vec()),
        value: Some(b"hello".to_vec()),
        headers: Default::default(),
        timestamp: chrono::Utc::now(),
    };
    let handling = rskafka::client::partition::UnknownTopicHandling::Error;
    let writer = client.partition_client(&app.topic, 0, handling).await.unwrap();
    let codec = rskafka::client::partition::Compression::NoCompression;
    writer.produce(vec![record], codec).await.unwrap();
    let letter = |line: &Value| line["message"] == "dead letter" && line["level"] == "WARN";
    eventually("the dead letter is told", PATIENCE, async || {
        (dead_letters(&app).await == 1 && count(&lines(&app), letter) > 0).then_some(())
    })
    .await;
    assert_eq!(count(&lines(&app), letter), 1);

    // As people read it, into a file: without colours.
    tokio::task::block_in_place(|| app.stop());
    let before = app.log_text().len();
    app.set("LOG_FORMAT", "pretty");
    app.restart().await;
    open_many(&app, "v", 5).await;
    app.drain().await;
    let text = app.log_text()[before..].to_owned();
    assert!(text.contains("listening") && !text.contains('\u{1b}'), "{text}");
    let behind = |line: &&str| line.contains("feeding from Postgres");
    let loud = text.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    let loud: Vec<&str> = loud.filter(|line| !behind(line)).collect();
    assert!(loud.is_empty(), "{loud:?}");
}
