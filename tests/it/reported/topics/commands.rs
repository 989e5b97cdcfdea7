//! The topics of inbound commands were there before, and come back with fewer partitions.

use std::collections::{BTreeMap, BTreeSet};

use rskafka::record::Record;
use serde_json::{Value, json};
use wallex::envelope::partition_of;

use super::{PATIENCE, TOPICS, open_many};
use crate::dead_letters::wire;
use crate::support::app::{App, Setup};
use crate::support::eventually;
use crate::support::servers::kafka_tool_said as tool;

/// A credit for each of the ten wallets, where their sender's own count puts them.
async fn credit_all(app: &App, round: &str, partitions: i32) {
    let mut batches: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
    for number in 0..10 {
        let wallet = format!("w-{number}");
        let id = format!("{round}-{number}");
        let command =
            json!({"commandId": id, "op": "credit", "walletId": wallet, "amount": "1.00"});
        let record = wire::record(Some(wallet.as_bytes()), Some(command.to_string().as_bytes()));
        batches.entry(partition_of(&wallet, partitions)).or_default().push(record);
    }
    for (partition, records) in batches {
        wire::produce(app.variable("KAFKA_COMMANDS_TOPIC"), partition, records).await;
    }
}

/// Waits until all ten of a round are answered.
async fn answered(app: &App, round: &str) {
    let results = app.variable("KAFKA_COMMAND_RESULTS_TOPIC");
    eventually(&format!("results of {round}"), PATIENCE, async || {
        let found = wire::read(results).await.into_iter().filter_map(|(_, _, record)| {
            let value: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
            value["commandId"].as_str().filter(|id| id.starts_with(round)).map(str::to_owned)
        });
        (found.collect::<BTreeSet<String>>().len() == 10).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topics_of_commands_were_there_before_and_come_back_with_fewer() {
    let setup = Setup::shared().with_commands();
    let mut app = setup.migrated();
    let commands = app.variable("KAFKA_COMMANDS_TOPIC").to_owned();
    let results = app.variable("KAFKA_COMMAND_RESULTS_TOPIC").to_owned();
    let make = |name: &str, partitions: &str| {
        tool(TOPICS, &["--create", "--topic", name, "--partitions", partitions]);
    };
    make(&commands, "3");
    app.restart().await;
    open_many(&app, "w", 10).await;
    eventually("the others are made", PATIENCE, async || {
        let health = app.get("/health/kafka").await.json();
        (health["topics"]["wanted"] == 8 && health["topics"]["missing"] == 0).then_some(())
    })
    .await;
    credit_all(&app, "first", 3).await;
    answered(&app, "first").await;

    // The service makes them again, too: until the test was quicker.
    for (name, partitions) in [(&results, "1"), (&commands, "2")] {
        eventually(&format!("{name} has {partitions}"), PATIENCE, async || {
            tool(TOPICS, &["--delete", "--if-exists", "--topic", name]);
            let wanted =
                ["--create", "--if-not-exists", "--topic", name, "--partitions", partitions];
            tool(TOPICS, &wanted);
            let seen = tool(TOPICS, &["--describe", "--topic", name]);
            seen.contains(&format!("PartitionCount: {partitions}\t")).then_some(())
        })
        .await;
    }
    eventually("both are new", PATIENCE, async || {
        let mut counts = Vec::new();
        for name in [&commands, &results] {
            let view = app.get(&format!("/admin/topics/{name}")).await.json();
            counts.push(view["partitions"].as_array()?.len());
        }
        (counts == [2, 1]).then_some(())
    })
    .await;
    credit_all(&app, "second", 2).await;
    answered(&app, "second").await;
    eventually("nothing is missed any longer", PATIENCE, async || {
        let stats = app.get("/health/kafka/stats").await.json();
        let group = &stats["groups"][app.group("wallex-commands")];
        let quiet = !group["lastError"].as_str().unwrap_or("").contains("no 2");
        quiet.then_some(())
    })
    .await;
    let balance = app.get("/wallets/w-3").await.json()["balance"].clone();
    assert_eq!(balance, "7.00", "each command once");
    app.assert_reconciled();
}
