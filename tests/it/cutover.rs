//! Moving to another topic or cluster: every event in both while it lasts, the two change sides by
//! settings alone, and either is switched off by one.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::app::{App, Setup};
use crate::support::load::{Load, Plan};
use crate::support::{eventually, servers, topic};

const PATIENCE: Duration = Duration::from_secs(120);

fn plan() -> Plan {
    Plan { wallets: 20, workers: 4, ..Plan::default() }
}

/// What the second destination lacks, by its own count.
async fn lag(app: &App) -> Option<i64> {
    app.get("/health/kafka").await.json()["second"]["lag"].as_i64()
}

async fn in_step(app: &App) {
    lacks(app, 0).await;
}

/// Waits until the second lacks so many events at most.
async fn lacks(app: &App, most: i64) {
    eventually("the second has nearly everything", PATIENCE, async || {
        lag(app).await.filter(|lag| *lag <= most)
    })
    .await;
}

/// Everything of `events` is in the topic, in order; how many records are copies.
async fn whole(bootstrap: &str, app: &mut App, name: &str) -> usize {
    let own = std::mem::replace(&mut app.topic, name.to_owned());
    let found = topic::assert_same(bootstrap, app).await;
    app.topic = own;
    found.duplicates
}

/// Makes `to` the first topic, and `second` the second.
async fn swap(app: &mut App, to: &str, second: &str) {
    app.set("KAFKA_EVENTS_TOPIC", to);
    app.set("KAFKA_SECOND_TOPIC", second);
    app.spawn();
    app.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_moves_to_another_topic_under_load_and_nothing_is_lost() {
    let bootstrap = &servers::kafka().bootstrap;
    let mut app = Setup::shared().start().await;
    let old = app.topic.clone();
    let new = format!("{old}-new");
    let load = Load::start(&[&app.base], plan()).await;
    load.advance(200).await;
    assert_eq!(app.get("/health/kafka").await.json()["second"], Value::Null);

    // 1. Both, from the beginning.
    app.set("KAFKA_SECOND_TOPIC", &new);
    app.stop();
    app.spawn();
    app.ready().await;
    load.advance(300).await;
    lacks(&app, 100).await;
    load.advance(200).await;

    // 2. The new one is the first, the old one nothing any more.
    app.stop();
    swap(&mut app, &new, "").await;
    load.advance(300).await;
    load.settle().await;
    app.drain().await;
    let copies = whole(bootstrap, &mut app, &new).await;
    assert_eq!(copies, 0, "every stop was a clean one");
    assert_eq!(app.get("/health/kafka").await.json()["second"], Value::Null);
    let page = app.get("/health/kafka").await.json();
    assert_eq!(page["status"], "healthy", "{page}");
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_change_sides_and_back_whatever_is_killed_and_nothing_is_lost() {
    let bootstrap = &servers::kafka().bootstrap;
    let mut app = Setup::shared().start().await;
    let old = app.topic.clone();
    let new = format!("{old}-new");
    app.set("KAFKA_SECOND_TOPIC", &new);
    app.restart().await;
    let load = Load::start(&[&app.base], plan()).await;
    for (first, second) in [(&new, &old), (&old, &new), (&new, &old)] {
        load.advance(100).await;
        // Killed in the middle of everything: neither topic need be in step.
        app.kill(Signal::SIGKILL);
        swap(&mut app, first, second).await;
        load.advance(100).await;
        app.kill(Signal::SIGKILL);
        app.restart().await;
    }
    load.settle().await;
    app.drain().await;
    in_step(&app).await;
    for name in [&old, &new] {
        let copies = whole(bootstrap, &mut app, name).await;
        println!("{name}: {copies} copies");
    }
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_cluster_that_is_away_hinders_nobody_and_is_shown() {
    let port = wallex::cli::dev::child::free_port().unwrap();
    let app = Setup::shared()
        .with("KAFKA_SECOND_BROKERS", format!("127.0.0.1:{port}"))
        .with("KAFKA_CONNECTION_TIMEOUT", 500)
        .start()
        .await;
    for wallet in ["a", "b", "c"] {
        app.open(wallet, "5").await;
    }
    app.drain().await;
    let second = eventually("its error is shown", PATIENCE, async || {
        let page = app.get("/health/kafka").await.json();
        assert!(page["kafka"]["status"] == "connected" || page["kafka"]["error"].is_null());
        let second = page["second"].clone();
        second["error"].is_string().then_some(second)
    })
    .await;
    assert_eq!((&second["connected"], &second["state"]), (&Value::Bool(false), &"running".into()));
    let page = app.get("/health/kafka").await.json();
    assert_eq!(page["status"], "healthy", "{page}");
    topic::assert_same(&servers::kafka().bootstrap, &app).await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_topic_may_begin_now_and_goes_on_where_it_was() {
    let bootstrap = &servers::kafka().bootstrap;
    let mut app = Setup::shared().start().await;
    app.open("before", "5").await;
    app.open("both", "5").await;
    app.drain().await;
    let new = format!("{}-new", app.topic);
    app.stop();
    app.set("KAFKA_SECOND_TOPIC", &new);
    app.set("KAFKA_SECOND_FROM", "now");
    app.restart().await;
    in_step(&app).await;
    let credit = async |app: &App| {
        let body = serde_json::json!({"amount": "1"});
        assert_eq!(app.post("/wallets/both/credit", body).await.status, 201);
    };
    credit(&app).await;
    in_step(&app).await;
    // Off for a while, and on again: nothing of that while is missing.
    app.stop();
    app.set("KAFKA_SECOND_TOPIC", "");
    app.restart().await;
    credit(&app).await;
    app.drain().await;
    let off = app.wallex(&["outbox", "status", "--json"]);
    let off: Value = serde_json::from_slice(&off.stdout).unwrap();
    assert_eq!(off["second"], Value::Null);
    app.stop();
    app.set("KAFKA_SECOND_TOPIC", &new);
    app.restart().await;
    in_step(&app).await;
    credit(&app).await;
    in_step(&app).await;
    let versions = topic::versions(bootstrap, &new).await;
    assert_eq!(versions, [("both".to_owned(), vec![3, 4, 5])].into());
    let status = app.wallex(&["outbox", "status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains(&format!("second topic {new}: 0 events wait")), "{said}");
    assert_eq!(app.get("/admin/outbox").await.json()["second"]["backlog"], 0);
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two more brokers: scripts/test --full"]
async fn a_deployment_moves_to_another_cluster_where_topics_have_the_same_names() {
    let (one, mut other) = (servers::own_kafka(), servers::own_kafka());
    let mut app = Setup::on(servers::postgres(), Some(&one)).start().await;
    let name = app.topic.clone();
    app.stop();
    app.set("KAFKA_SECOND_BROKERS", &other.bootstrap);
    app.restart().await;
    let load = Load::start(&[&app.base], plan()).await;
    load.advance(200).await;
    // The second goes away and comes back; the first does not care.
    other.kill(Signal::SIGKILL).unwrap();
    load.advance(200).await;
    other.restart().unwrap();
    load.advance(100).await;
    lacks(&app, 100).await;
    load.advance(100).await;
    app.stop();
    app.set("KAFKA_BROKERS", &other.bootstrap);
    app.set("KAFKA_SECOND_BROKERS", &one.bootstrap);
    app.restart().await;
    load.advance(200).await;
    load.settle().await;
    app.drain().await;
    in_step(&app).await;
    for bootstrap in [&one.bootstrap, &other.bootstrap] {
        let copies = whole(bootstrap, &mut app, &name).await;
        println!("{bootstrap}: {copies} copies");
    }
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn either_feed_of_the_projectors_is_switched_off_by_one_setting_under_load() {
    let mut app = Setup::shared().start().await;
    for feeds in ["outbox", "kafka", "kafka,outbox"] {
        let load = Load::start(&[&app.base], plan()).await;
        load.advance(50).await;
        app.stop();
        app.set("PROJECTOR_FEEDS", feeds);
        app.restart().await;
        load.advance(50).await;
        load.settle().await;
        // The events of this while are projected by what is on.
        app.drain().await;
        let groups = app.get("/health/kafka/stats").await.json()["groups"].clone();
        for name in ["ledger-projector", "read-model-projector"] {
            let copying = groups[app.group(name)]["offsets"]["copying"].as_bool().unwrap();
            assert!(feeds.contains("kafka") || !copying, "{feeds}: {groups}");
        }
    }
    topic::assert_same(&servers::kafka().bootstrap, &app).await;
    app.assert_reconciled();
}
