//! The topic was there before: its count of partitions is what wallets are hashed over, and where that
//! cannot be any more it is said by name.

use super::{PATIENCE, TOPICS, hashed_over, health, open_many, problem, refused, unique};
use crate::support::app::Setup;
use crate::support::proxy::{Flow, Proxy};
use crate::support::servers::kafka_tool_said as tool;
use crate::support::{eventually, servers, topic};

fn make(name: &str, partitions: &str) {
    tool(TOPICS, &["--create", "--topic", name, "--partitions", partitions]);
}

fn grow(name: &str, partitions: &str) {
    tool(TOPICS, &["--alter", "--topic", name, "--partitions", partitions]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_was_there_before_with_fewer_partitions_or_with_more() {
    for (partitions, count) in [("3", 3), ("16", 16)] {
        let name = unique("platform");
        make(&name, partitions);
        let app = Setup::shared().with("KAFKA_EVENTS_TOPIC", &name).start().await;
        assert_eq!(app.topic, name);
        open_many(&app, "w", 40).await;
        app.drain().await;
        assert_eq!(hashed_over(&app).await, count);
        let found = topic::assert_same(&servers::kafka().bootstrap, &app).await;
        assert_eq!(found.records, 80, "each wallet's two events have left");
        let said = app.wallex(&["topics", "list"]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let line = format!("{name}: {count} partitions, hashed over {count}, by wallet, healthy");
        assert!(said.contains(&line), "{said}");
        assert_eq!(problem(&app).await, None);
        app.assert_reconciled();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_was_there_before_and_the_command_asks_it_too() {
    let name = unique("platform");
    make(&name, "3");
    let app = Setup::shared().with("KAFKA_EVENTS_TOPIC", &name).migrated();
    let said = app.wallex(&["topics", "ensure"]);
    assert!(said.status.success(), "{said:?}");
    assert_eq!(hashed_over(&app).await, 3);
    make(&format!("{name}.acme"), "2");
    let said = app.wallex(&["topics", "create-tenant", "acme"]);
    assert!(said.status.success(), "{said:?}");
    let count: i32 = sqlx::query_scalar("select partitions from topics where name = $1")
        .bind(format!("{name}.acme"))
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(count, 2);
}

/// Kafka is away at the first start: events are taken, and hashed over what the setting says. The topic
/// that shows up then has fewer.
#[tokio::test(flavor = "multi_thread")]
async fn the_topic_was_there_before_but_kafka_was_away() {
    let name = unique("platform");
    let broker = servers::kafka().bootstrap.clone();
    let target: u16 = broker.rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = Proxy::of_bytes(target).await;
    proxy.flow(Flow::Silent, Flow::Silent);
    let mut app = Setup::shared()
        .with("KAFKA_EVENTS_TOPIC", &name)
        .with("KAFKA_BROKERS", format!("127.0.0.1:{}", proxy.port))
        .with("KAFKA_CONNECTION_TIMEOUT", 1000)
        .start()
        .await;
    open_many(&app, "w", 40).await;
    assert_eq!(hashed_over(&app).await, 10, "as the setting says: there was nobody to ask");
    make(&name, "3");
    proxy.flow(Flow::Through, Flow::Through);
    let problem =
        eventually("the page says what to do", PATIENCE, async || problem(&app).await).await;
    assert_eq!(health(&app).await["status"], "degraded");
    let wanted = format!("the topic {name} has 3 partitions, and wallets are hashed over 10");
    let mend = format!("kafka-topics --alter --topic {name} --partitions 10");
    assert!(problem.contains(&wanted) && problem.contains(&mend), "{problem}");

    tokio::task::block_in_place(|| app.stop());
    let said = refused(&mut app).await;
    assert!(said.contains(&wanted) && said.contains(&mend), "{said}");
    grow(&name, "10");
    app.restart().await;
    app.drain().await;
    topic::assert_same(&servers::kafka().bootstrap, &app).await;
    eventually("all is well", PATIENCE, async || {
        let health = health(&app).await;
        (health["status"] == "healthy").then_some(())
    })
    .await;
    app.assert_reconciled();
}

/// Another name with fewer partitions would leave what is hashed already without a place.
#[tokio::test(flavor = "multi_thread")]
async fn the_topic_was_there_before_under_another_name() {
    let mut app = Setup::shared().start().await;
    open_many(&app, "w", 10).await;
    app.drain().await;
    let name = unique("platform");
    make(&name, "3");
    tokio::task::block_in_place(|| app.stop());
    app.set("KAFKA_EVENTS_TOPIC", &name);
    app.topic.clone_from(&name);
    let said = refused(&mut app).await;
    assert!(said.contains(&format!("the topic {name} has 3 partitions")), "{said}");
    grow(&name, "12");
    app.restart().await;
    app.open("late", "1.00").await;
    app.drain().await;
    assert_eq!(hashed_over(&app).await, 10, "no wallet has moved");
    app.assert_reconciled();
}
