//! What happens to the topics: the broker goes away and comes back, a topic is deleted, made anew, or
//! gets more partitions. Commands that lie in a topic are executed, and each is answered.

use std::collections::BTreeSet;

use rskafka::client::ClientBuilder;
use serde_json::{Value, json};
use wallex::envelope::partition_of;

use super::{PARTITIONS, PATIENCE, answered, command, commands, consumed, results, send, start};
use crate::dead_letters::wire;
use crate::support::app::Setup;
use crate::support::servers::{self, kafka_tool};
use crate::support::{eventually, topic};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

fn credit(id: &str) -> Value {
    json!({"commandId": id, "op": "credit", "walletId": "w", "amount": "1.00"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_while_commands_run_costs_none_of_them() {
    let mut kafka = servers::own_kafka();
    let setup = Setup::on(servers::postgres(), Some(&kafka)).with_commands();
    let app = setup.start().await;
    for number in 0..20 {
        app.open(&format!("w-{number}"), "0").await;
    }
    let client = ClientBuilder::new(vec![kafka.bootstrap.clone()]).build().await.unwrap();
    eventually("the topics of commands", PATIENCE, async || {
        let topics = client.list_topics().await.ok()?;
        topics.iter().any(|topic| topic.name == results(&app)).then_some(())
    })
    .await;
    const COUNT: usize = 2_000;
    for partition in 0..PARTITIONS {
        let records = (0..COUNT).map(|n| {
            let mut value = credit(&format!("c-{n}"));
            value["walletId"] = json!(format!("w-{}", n % 20));
            command(&value)
        });
        let here = |key: &Option<Vec<u8>>| {
            partition_of(key.as_deref().unwrap_or_default(), PARTITIONS) == partition
        };
        let records: Vec<_> = records.filter(|record| here(&record.key)).collect();
        if !records.is_empty() {
            wire::produce_with(&client, &commands(&app), partition, records).await;
        }
    }
    eventually("some are executed", PATIENCE, async || {
        let count = "select count(*) from events where event_type = 'WalletCredited'";
        let count: i64 = sqlx::query_scalar(count).fetch_one(&app.pool).await.unwrap();
        (count > 0).then_some(())
    })
    .await;
    let left = COUNT as i64 - consumed(&app).await;
    tokio::task::block_in_place(|| {
        kafka.stop();
        kafka.restart().unwrap();
    });
    eventually("all are consumed", PATIENCE, async || {
        (consumed(&app).await == COUNT as i64).then_some(())
    })
    .await;
    println!("{left} of {COUNT} were not consumed when the broker stopped");
    let client = ClientBuilder::new(vec![kafka.bootstrap.clone()]).build().await.unwrap();
    let mut told = BTreeSet::new();
    for (_, _, record) in wire::read_with(&client, &results(&app)).await {
        let value: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        assert_eq!(value["status"], 201, "{value}");
        told.insert(value["commandId"].as_str().unwrap().to_owned());
    }
    assert_eq!(told.len(), COUNT, "every command has its result");
    for number in 0..20 {
        let wallet = app.get(&format!("/wallets/w-{number}")).await.json();
        assert_eq!(wallet["balance"], "100.00", "{wallet}");
    }
    app.drain().await;
    topic::assert_same(&kafka.bootstrap, &app).await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_is_read_from_its_beginning_and_new_partitions_are_read() {
    let app = start(Setup::shared()).await;
    app.open("w", "0").await;
    let ids: Vec<String> = (0..20).map(|n| format!("before-{n}")).collect();
    send(&app, ids.iter().map(|id| command(&credit(id))).collect()).await;
    answered(&app, &[ids[19].as_str()], 1).await;
    let name = commands(&app);
    let tool = |arguments: &[&str]| {
        let arguments = [&["--topic", &name], arguments].concat();
        let output = tokio::task::block_in_place(|| kafka_tool(TOPICS, &arguments));
        assert!(output.status.success(), "{output:?}");
    };
    tool(&["--delete"]);
    eventually("the service makes it again", PATIENCE, async || {
        let topics = wire::client().await.list_topics().await.ok()?;
        topics.iter().any(|topic| topic.name == name).then_some(())
    })
    .await;
    // Fewer than before: the offsets have been used by others.
    let ids: Vec<String> = (0..5).map(|n| format!("after-{n}")).collect();
    send(&app, ids.iter().map(|id| command(&credit(id))).collect()).await;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    answered(&app, &ids, 1).await;

    tool(&["--alter", "--partitions", "12"]);
    wire::produce(&name, 11, vec![command(&credit("new"))]).await;
    answered(&app, &["new"], 1).await;
    assert_eq!(app.get("/wallets/w").await.json()["balance"], "26.00");
}
