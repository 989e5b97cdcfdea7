//! A broker that makes topics by itself, with a count of its own, whenever a client asks for one.

use std::collections::BTreeMap;

use serde_json::json;

use super::{PATIENCE, TOPICS, open_many, problem};
use crate::support::app::{App, Setup};
use crate::support::{eventually, servers, topic};
use wallex::cli::dev::broker::Broker;

fn broker() -> Broker {
    let properties = [("auto.create.topics.enable", "true"), ("num.partitions", "1")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
    tokio::task::block_in_place(|| servers::own_kafka_with(0, properties.to_vec()))
}

fn tool(kafka: &Broker, arguments: &[&str]) -> String {
    let output = tokio::task::block_in_place(|| servers::kafka_tool_on(kafka, TOPICS, arguments));
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The partitions of each topic that the service has made, as the broker shows them.
async fn counts(app: &App) -> BTreeMap<String, usize> {
    let stats = app.get("/health/kafka/stats").await.json();
    let states = stats["topicStates"].as_array().cloned().unwrap_or_default();
    let count = |topic: &serde_json::Value| {
        let whole = topic["exists"] == true && topic["drift"] == json!([]);
        let partitions = topic["partitions"].as_u64().filter(|_| whole)?;
        Some((topic["name"].as_str()?.to_owned(), partitions as usize))
    };
    states.iter().filter_map(count).collect()
}

fn id_of(kafka: &Broker, name: &str) -> Option<String> {
    let said = tool(kafka, &["--describe", "--topic", name]);
    said.split_once("TopicId: ").map(|(_, rest)| rest.split_whitespace().next().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_makes_topics_by_itself_is_never_given_a_reason_to() {
    let kafka = broker();
    let app = Setup::on(servers::postgres(), Some(&kafka)).with_commands().start().await;
    open_many(&app, "w", 20).await;
    app.drain().await;
    let wanted = eventually("eight topics as they should be", PATIENCE, async || {
        let counts = counts(&app).await;
        (counts.len() == 8).then_some(counts)
    })
    .await;
    assert_eq!(wanted[&app.topic], 10);
    for round in 0..3 {
        let id = id_of(&kafka, &app.topic);
        let names: Vec<&str> = wanted.keys().map(String::as_str).collect();
        tool(&kafka, &["--delete", "--topic", &names.join(",")]);
        open_many(&app, &format!("r{round}"), 20).await;
        let what = "all of them are there again with their settings, and not the old ones";
        eventually(what, PATIENCE, async || {
            (counts(&app).await == wanted && id_of(&kafka, &app.topic) != id).then_some(())
        })
        .await;
        open_many(&app, &format!("s{round}"), 20).await;
        app.drain().await;
    }
    let listed = tool(&kafka, &["--describe", "--topic", &app.topic]);
    assert!(listed.contains("PartitionCount: 10") && listed.contains("retention.ms=604800000"));
    let log = app.log_text();
    assert!(!log.contains("made by a broker or a client"), "nobody else has made it");
    // What is behind the last deletion is in the topic, in order.
    let versions = topic::versions(&kafka.bootstrap, &app.topic).await;
    for number in 0..20 {
        assert_eq!(versions[&format!("s2-{number}")], [1, 2]);
    }
    app.assert_reconciled();
}

/// A consumer of somebody else's asked for the topic while it was gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_came_back_with_one_partition_is_completed() {
    let kafka = broker();
    let app = Setup::on(servers::postgres(), Some(&kafka)).start().await;
    open_many(&app, "w", 20).await;
    app.drain().await;
    let client =
        rskafka::client::ClientBuilder::new(vec![kafka.bootstrap.clone()]).build().await.unwrap();
    let controller = client.controller_client().unwrap();
    eventually("the service has looked", PATIENCE, async || {
        let id: Option<uuid::Uuid> =
            sqlx::query_scalar("select topic_id from topics").fetch_one(&app.pool).await.unwrap();
        id.map(drop)
    })
    .await;
    // The service makes it again, too: whoever is quicker. The test wins soon.
    let mut tries = 0;
    loop {
        tries += 1;
        assert!(tries < 20, "the service was always quicker");
        controller.delete_topic(&app.topic, 30_000).await.unwrap();
        let mine = eventually("it is there again", PATIENCE, async || {
            let made = controller.create_topic(&app.topic, 1, 1, 30_000).await;
            let there = client.list_topics().await.unwrap();
            let there = there.iter().find(|topic| topic.name == app.topic)?;
            Some(made.is_ok() && there.partitions.len() == 1)
        })
        .await;
        if mine {
            break;
        }
    }
    open_many(&app, "later", 20).await;
    app.drain().await;
    eventually("it is as it should be", PATIENCE, async || {
        (counts(&app).await.get(&app.topic) == Some(&10)).then_some(())
    })
    .await;
    assert!(app.log_text().contains("made by a broker or a client"));
    assert_eq!(problem(&app).await, None);
    app.assert_reconciled();
}
