//! Records that are no commands, and commands that could not be decided: the same desk as for events.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use wallex::envelope::partition_of;

use super::dlq;
use crate::commands::{PARTITIONS, answered, command, commands, letters, send, start, told};
use crate::dead_letters::wire::{self, header, record, wallets_in};
use crate::support::app::{App, Setup};
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until so many dead letters of commands are kept.
async fn kept(app: &App, count: usize) -> Vec<Value> {
    eventually(&format!("{count} dead letters of commands"), PATIENCE, async || {
        let list = dlq(app, &["list", "--source", "commands"]);
        let letters = list["deadLetters"].as_array().unwrap().clone();
        (letters.len() == count).then_some(letters)
    })
    .await
}

/// Puts any record where commands of this key go.
async fn put(app: &App, key: Option<&str>, value: &[u8]) -> i64 {
    let to = key.map_or(3, |key| partition_of(key, PARTITIONS));
    let put = record(key.map(str::as_bytes), Some(value));
    wire::produce(&commands(app), to, vec![put]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_are_listed_shown_counted_logged_and_sent_again() {
    let mut app = start(Setup::shared()).await;
    app.open("w", "0").await;
    let offset = put(&app, Some("w"), b"{").await;
    put(&app, Some("w"), b"{\"commandId\":\"\xff\"}").await;
    put(&app, None, br#"{"commandId":"c","op":"burn","walletId":"w"}"#).await;
    let list = kept(&app, 3).await;
    let [third, _, first] = &list[..] else { panic!("{list:?}") };
    let mut classes: Vec<_> = list.iter().map(|l| l["errorClass"].as_str().unwrap()).collect();
    classes.sort_unstable();
    assert_eq!(classes, ["invalid_utf8", "invalid_value", "malformed_json"]);
    for letter in &list {
        assert_eq!((&letter["source"], &letter["state"]), (&json!("commands"), &json!("open")));
        assert_eq!(letter["topic"], commands(&app));
    }
    let newest = list[0]["id"].as_i64().unwrap().to_string();
    let page = dlq(&app, &["list", "--source", "commands", "--before", &newest, "--limit", "1"]);
    assert_eq!(page["deadLetters"][0]["id"], list[1]["id"]);
    let bad = list.iter().find(|letter| letter["errorClass"] == "malformed_json").unwrap();
    assert_eq!(bad["offset"], offset);
    let keyless = list.iter().find(|letter| letter["errorClass"] == "invalid_value").unwrap();
    assert_eq!((&keyless["key"], &keyless["partition"]), (&Value::Null, &json!(3)));
    assert_ne!(first["id"], third["id"]);
    let id = bad["id"].as_i64().unwrap().to_string();
    let story = dlq(&app, &["show", &id]);
    assert_eq!((&story["value"], &story["key"]), (&json!("{"), &json!("w")));
    assert_eq!(story["projectors"], json!(["wallex-commands"]));
    assert_eq!(story["headers"], json!({"from": "a stranger"}));
    assert_ne!(story["publishedAt"], Value::Null);
    let over_http = app.get("/admin/dead-letters?source=commands").await.json();
    assert_eq!(over_http["deadLetters"].as_array().map(Vec::len), Some(3));
    let none = app.get("/admin/dead-letters?source=events").await.json();
    assert_eq!(none["deadLetters"], json!([]));
    assert_eq!(app.get("/admin/dead-letters?source=x").await.code(), "invalid_value");
    let metrics = app.get("/metrics").await.text;
    for class in classes {
        let counted = metrics.lines().any(|line| {
            line.starts_with("dead_letters_total")
                && line.contains("source=\"commands\"")
                && line.contains(class)
                && line.ends_with(" 1")
        });
        assert!(counted, "{class}: {metrics}");
    }
    let log = app.log_text();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("dead letter:")).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said.iter().all(|line| line.contains(&commands(&app))), "{said:?}");
    // The topic has them as before, and nobody else's topic does.
    let in_topic = wire::read(&letters(&app)).await;
    assert_eq!(in_topic.len(), 3);
    assert!(in_topic.iter().all(|(_, _, letter)| header(letter, "replay-count") == "0"));

    // Sent again it fails again: the same story, in the topic once more.
    dlq(&app, &["replay", &id]);
    let story = eventually("it failed again", PATIENCE, async || {
        let story = dlq(&app, &["show", &id]);
        (story["attempts"] == 2).then_some(story)
    })
    .await;
    assert_eq!((&story["state"], &story["replayCount"]), (&json!("open"), &json!(1)));
    assert_eq!(kept(&app, 3).await.len(), 3);
    let in_topic = wire::read(&letters(&app)).await;
    assert_eq!(in_topic.len(), 4);
    assert!(in_topic.iter().any(|(_, _, letter)| header(letter, "replay-count") == "1"));
    let settled =
        dlq(&app, &["quarantine", "--source", "commands", "--all", "--yes", "--note", "x"]);
    assert_eq!(settled["ids"].as_array().map(Vec::len), Some(3));
    assert_eq!(app.get("/health/kafka/stats").await.json()["deadLetters"], 0);
    assert_eq!(wire::read(&format!("{}-dlq", app.topic)).await.len(), 0);
    // Settled, they are kept for as long as the setting says.
    let age = "update dead_letters set quarantined_at = quarantined_at - interval '31 days' \
               where error_class <> 'malformed_json'";
    sqlx::raw_sql(age).execute(&app.pool).await.unwrap();
    app.restart().await;
    kept(&app, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_not_decided_has_one_effect_when_it_is_replayed() {
    let setup = Setup::shared().with("CONSUMER_RETRY_DELAYS_MS", "100,100,100");
    let app = start(setup).await;
    app.open("held", "10.00").await;
    let mut stranger = app.pool.begin().await.unwrap();
    sqlx::query("select from wallets where id = 'held' for update")
        .execute(&mut *stranger)
        .await
        .unwrap();
    let credit = json!({"commandId": "c", "op": "credit", "walletId": "held", "amount": "1.00"});
    send(&app, vec![command(&credit)]).await;
    let list = kept(&app, 1).await;
    let home = partition_of("held", PARTITIONS);
    let letter = &list[0];
    assert_eq!((&letter["topic"], &letter["partition"]), (&json!(commands(&app)), &json!(home)));
    assert_eq!(letter["errorClass"], "wallet_busy");
    let id = letter["id"].as_i64().unwrap().to_string();
    let story = dlq(&app, &["show", &id]);
    assert_eq!(story["headers"], json!({"from": "a stranger"}), "as its sender wrote it");
    stranger.rollback().await.unwrap();
    // By its sender and by an operator, who asks twice.
    send(&app, vec![command(&credit)]).await;
    dlq(&app, &["replay", &id]);
    dlq(&app, &["replay", &id]);
    let told = answered(&app, &["c"], 4).await;
    let statuses: Vec<u64> = told["c"].iter().map(|told| told.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 3, "{statuses:?}");
    assert_eq!(app.get("/wallets/held").await.json()["balance"], "11.00");
    let story = dlq(&app, &["show", &id]);
    assert_eq!((&story["state"], &story["replayCount"]), (&json!("replayed"), &json!(2)));
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_two_instances_keep_each_bad_command_once() {
    let mut app = start(Setup::shared().with("CONSUMER_SESSION_TIMEOUT_MS", 2000)).await;
    let mut other = app.second_instance().await;
    app.open("w", "0").await;
    let keys = wallets_in(5, "k", 1);
    for round in 0..3 {
        for partition in 0..PARTITIONS {
            let value = |n: usize| format!("{round} {partition} {n}").into_bytes();
            let bad = (0..100).map(|n| record(Some(keys[0].as_bytes()), Some(&value(n)))).collect();
            wire::produce(&commands(&app), partition, bad).await;
        }
        app.kill(Signal::SIGKILL);
        app.spawn();
        app.ready().await;
        other.kill(Signal::SIGKILL);
        other.spawn();
        other.ready().await;
    }
    eventually("all are kept", PATIENCE, async || {
        let all = "select count(*) from dead_letters where source = 'commands'";
        let all: i64 = sqlx::query_scalar(all).fetch_one(&app.pool).await.unwrap();
        (all >= 3000).then_some(())
    })
    .await;
    let places = "select count(*), count(distinct (topic, partition, \"offset\")), \
         count(distinct value) from dead_letters";
    let counts: (i64, i64, i64) = sqlx::query_as(places).fetch_one(&app.pool).await.unwrap();
    assert_eq!(counts, (3000, 3000, 3000));
    let in_topic = wire::read(&letters(&app)).await;
    let values: std::collections::BTreeSet<_> = in_topic.iter().map(|(_, _, r)| &r.value).collect();
    assert_eq!(values.len(), 3000, "each is in the topic, too");
    assert!(told(&app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "100,000 records; scripts/test --full"]
async fn a_poison_of_100_000_records_is_kept_listed_and_settled() {
    let app = start(Setup::shared().with("LOG_LEVEL", "warn")).await;
    app.open("w", "0").await;
    let begun = std::time::Instant::now();
    for round in 0..20 {
        for partition in 0..PARTITIONS {
            let value = |n: usize| format!("{round} {partition} {n}").into_bytes();
            let bad = (0..500).map(|n| record(None, Some(&value(n)))).collect();
            wire::produce(&commands(&app), partition, bad).await;
        }
    }
    let good = json!({"commandId": "good", "op": "credit", "walletId": "w", "amount": "1.00"});
    send(&app, vec![command(&good)]).await;
    eventually("all are kept", Duration::from_secs(300), async || {
        let all = "select count(*) from dead_letters where source = 'commands'";
        let all: i64 = sqlx::query_scalar(all).fetch_one(&app.pool).await.unwrap();
        (all == 100_000).then_some(())
    })
    .await;
    answered(&app, &["good"], 1).await;
    println!("100,000 kept after {:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    assert_eq!(dlq(&app, &["list", "--source", "commands"])["deadLetters"][49]["state"], "open");
    println!("listed in {:?}", begun.elapsed());
    let settle = ["quarantine", "--source", "commands", "--all", "--yes", "--note", "poison"];
    assert_eq!(dlq(&app, &settle)["ids"].as_array().map(Vec::len), Some(100_000));
    println!("settled in {:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    assert_eq!(app.get("/health/kafka/stats").await.json()["deadLetters"], 0);
    println!("counted in {:?}", begun.elapsed());
}
