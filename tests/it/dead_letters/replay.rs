//! What operators do with dead letters, by command and by route.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::wire::{self, PARTITIONS, PATIENCE, header, produce, record};
use crate::support::app::{App, Setup};
use crate::support::load::Draw;
use crate::support::{eventually, servers};
use wallex::envelope::partition_of;

/// A command that succeeds, and the document that it prints.
fn dlq(app: &App, arguments: &[&str]) -> Value {
    let output = app.wallex(&[&["dlq"], arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn states(app: &App) -> Vec<(i64, String)> {
    let list = dlq(app, &["list"]);
    let letters = list["deadLetters"].as_array().unwrap().iter();
    let mut states: Vec<_> = letters
        .map(|l| (l["id"].as_i64().unwrap(), l["state"].as_str().unwrap().to_owned()))
        .collect();
    states.sort();
    states
}

async fn poison(app: &App, wallet: &str, value: &[u8]) {
    let key = Some(wallet.as_bytes());
    produce(&app.topic, partition_of(wallet, PARTITIONS), vec![record(key, Some(value))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_fails_again_is_the_same_story_and_one_that_succeeds_ends_it() {
    let mut app = Setup::shared().start().await;
    app.open("w", "10.00").await;
    app.drain().await;
    poison(&app, "w", b"not an event").await;
    wire::kept(&app, 1).await;
    wire::dead_letters(&app, 1).await;
    let dry = dlq(&app, &["replay", "1", "--dry-run"]);
    assert_eq!(dry, json!({"dryRun": true, "ids": [1], "parkedWallets": []}));
    assert_eq!(dlq(&app, &["show", "1"])["replayRequestedAt"], Value::Null);
    dlq(&app, &["replay", "1"]);
    let story = eventually("it failed again", PATIENCE, async || {
        let story = dlq(&app, &["show", "1"]);
        (story["attempts"] == 2).then_some(story)
    })
    .await;
    assert_eq!((&story["state"], &story["replayCount"]), (&json!("open"), &json!(1)));
    assert_eq!(story["value"], "not an event");
    assert_eq!(story["headers"], json!({"from": "a stranger"}));
    let letters = wire::dead_letters(&app, 2).await;
    let facts: Vec<_> =
        letters.iter().map(|l| (header(l, "attempts"), header(l, "replay-count"))).collect();
    assert_eq!(facts, [("1".into(), "0".into()), ("2".into(), "1".into())]);
    assert_eq!(header(&letters[0], "original-offset"), header(&letters[1], "original-offset"));
    wire::kept(&app, 1).await;

    // A record that names an event which the books know by another id, until they are mended. Nobody
    // may write there while the service runs: it remembers what it has committed.
    let events = app.get("/wallets/w/events?afterVersion=1").await.json();
    let event = serde_json::to_vec(&events["events"][0]).unwrap();
    let id = "select event_id from events where wallet_id = 'w' and version = 2";
    let id: uuid::Uuid = sqlx::query_scalar(id).fetch_one(&app.pool).await.unwrap();
    let rename = "update events set event_id = $1 where wallet_id = 'w' and version = 2";
    app.kill(Signal::SIGKILL);
    sqlx::query(rename).bind(uuid::Uuid::now_v7()).execute(&app.pool).await.unwrap();
    app.restart().await;
    poison(&app, "w", &event).await;
    wire::kept(&app, 2).await;
    sqlx::query(rename).bind(id).execute(&app.pool).await.unwrap();
    let chosen = dlq(&app, &["replay", "--wallet", "w", "--cause", "unknown_event"]);
    let second = chosen["ids"][0].as_i64().unwrap();
    assert_eq!(chosen["ids"].as_array().unwrap().len(), 1);
    // Behind it in the partition: once this one has failed again, the other was met before it.
    dlq(&app, &["replay", "1"]);
    eventually("the first failed a third time", PATIENCE, async || {
        (dlq(&app, &["show", "1"])["attempts"] == 3).then_some(())
    })
    .await;
    assert_eq!(states(&app), [(1, "open".to_owned()), (second, "replayed".to_owned())]);
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_outlives_the_service_and_bulk_leaves_alone_what_is_settled() {
    let mut app = Setup::shared().start().await;
    app.open("w", "10.00").await;
    app.open("v", "10.00").await;
    app.drain().await;
    for (wallet, value) in [("w", "{"), ("w", "[]x"), ("v", "{"), ("v", "")] {
        poison(&app, wallet, value.as_bytes()).await;
    }
    wire::kept(&app, 4).await;
    wire::dead_letters(&app, 4).await;
    let of = |wallet: &str| -> Vec<i64> {
        let list = dlq(&app, &["list", "--wallet", wallet]);
        let letters = list["deadLetters"].as_array().unwrap().iter();
        letters.map(|letter| letter["id"].as_i64().unwrap()).collect()
    };
    let (ours, theirs) = (of("w"), of("v"));
    assert_eq!((ours.len(), theirs.len()), (2, 2));
    let settled = ours[0].to_string();
    let quarantine = app.wallex(&["dlq", "quarantine", &settled]);
    assert_eq!(quarantine.status.code(), Some(2), "a note is needed");
    dlq(&app, &["quarantine", &settled, "--note", "a test of theirs"]);
    assert_eq!(dlq(&app, &["show", &settled])["note"], "a test of theirs");
    assert_eq!(app.wallex(&["dlq", "replay"]).status.code(), Some(2), "of what?");
    let unasked = app.wallex(&["dlq", "replay", "--all"]);
    assert_eq!(unasked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unasked.stderr).contains("--yes"));
    let unknown = app.wallex(&["dlq", "replay", "999"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no dead letter 999"));

    app.kill(Signal::SIGKILL);
    let open = dlq(&app, &["replay", "--all", "--yes", "--no-wait"]);
    assert_eq!(open["ids"].as_array().unwrap().len(), 3, "{open}");
    let waiting = app.wallex(&["dlq", "replay", &settled]);
    let said = String::from_utf8_lossy(&waiting.stdout).into_owned();
    assert_eq!(waiting.status.code(), Some(1), "{said}");
    assert!(said.contains("is a service running"), "{said}");
    assert!(states(&app).iter().all(|(_, state)| state == "requested"));
    app.restart().await;
    eventually("all failed again", PATIENCE, async || {
        let attempts = "select count(*) from dead_letters where attempts = 2 and replay_count = 1";
        let count: i64 = sqlx::query_scalar(attempts).fetch_one(&app.pool).await.unwrap();
        (count == 4).then_some(())
    })
    .await;
    wire::kept(&app, 4).await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_do_what_the_command_does() {
    let app = Setup::shared().start().await;
    app.open("w", "10.00").await;
    app.drain().await;
    poison(&app, "w", b"{").await;
    poison(&app, "w", b"\xff").await;
    wire::kept(&app, 2).await;
    wire::dead_letters(&app, 2).await;
    let list = app.get("/admin/dead-letters?walletId=w&state=open").await.json();
    assert_eq!(list["deadLetters"].as_array().map(Vec::len), Some(2), "{list}");
    let page = app.get("/admin/dead-letters?limit=1").await.json();
    let cursor = page["nextCursor"].as_str().unwrap();
    let next = app.get(&format!("/admin/dead-letters?limit=1&cursor={cursor}")).await.json();
    assert_ne!(page["deadLetters"][0]["id"], next["deadLetters"][0]["id"]);
    let binary = app.get("/admin/dead-letters?cause=invalid_utf8").await.json();
    let id = binary["deadLetters"][0]["id"].as_i64().unwrap();
    let story = app.get(&format!("/admin/dead-letters/{id}")).await.json();
    assert_eq!(story["value"], json!({"base64": "/w=="}));
    for (path, status, code) in [
        ("/admin/dead-letters/999", 404, "dead_letter_not_found"),
        ("/admin/dead-letters/x", 400, "invalid_id"),
        ("/admin/dead-letters?state=lost", 400, "invalid_value"),
    ] {
        let answer = app.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
    }
    let replay = "/admin/dead-letters/replay";
    for (body, status, code) in [
        (json!({}), 400, "missing_field"),
        (json!({"ids": [999]}), 404, "dead_letter_not_found"),
        (json!({"ids": "1"}), 400, "invalid_value"),
        (json!({"all": 1}), 400, "invalid_value"),
        (json!({"all": true, "more": 1}), 400, "unknown_field"),
    ] {
        let answer = app.post(replay, body.clone()).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
    }
    let dry = app.post(replay, json!({"all": true, "dryRun": true})).await.json();
    assert_eq!((dry["ids"].as_array().map(Vec::len), &dry["dryRun"]), (Some(2), &json!(true)));
    assert!(states(&app).iter().all(|(_, state)| state == "open"));
    let quarantine = "/admin/dead-letters/quarantine";
    assert_eq!(app.post(quarantine, json!({"ids": [id]})).await.code(), "missing_field");
    let settled = app.post(quarantine, json!({"ids": [id], "note": "seen"})).await;
    assert_eq!((settled.status, &settled.json()["ids"]), (200, &json!([id])));
    let asked = app.post(replay, json!({"walletId": "w"})).await.json();
    let other = asked["ids"][0].as_i64().unwrap();
    assert!(asked["ids"].as_array().unwrap().len() == 1 && other != id, "{asked}");
    eventually("it failed again", PATIENCE, async || {
        let story = app.get(&format!("/admin/dead-letters/{other}")).await.json();
        (story["attempts"] == 2 && story["replayCount"] == 1).then_some(())
    })
    .await;
    let quiet = app.get(&format!("/admin/dead-letters/{id}")).await.json();
    assert_eq!((&quiet["state"], &quiet["attempts"]), (&json!("quarantined"), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_send_every_dead_letter_once() {
    let app = Setup::shared().start().await;
    app.open("w", "10.00").await;
    app.drain().await;
    let other = app.second_instance().await;
    for partition in 0..PARTITIONS {
        let value = |n: usize| format!("{partition} {n}").into_bytes();
        let records = (0..40).map(|n| record(Some(&value(n)), Some(&value(n)))).collect();
        produce(&app.topic, partition, records).await;
    }
    wire::kept(&app, 400).await;
    eventually("all are published", PATIENCE, async || {
        let left = "select count(*) from dead_letters where published_at is null";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&app.pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
    let letters = wire::dead_letters(&app, 400).await;
    let values: std::collections::BTreeSet<_> = letters.iter().map(|l| &l.value).collect();
    assert_eq!((letters.len(), values.len()), (400, 400));
    drop(other);
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_too_large_goes_without_its_value_and_is_kept_whole() {
    let app = Setup::shared().start().await;
    app.open("w", "10.00").await;
    app.drain().await;
    poison(&app, "w", b"first").await;
    wire::dead_letters(&app, 1).await;
    let topic = format!("{}-dlq", app.topic);
    let configure = |limit: &str| {
        let limit = format!("max.message.bytes={limit}");
        let arguments = ["--alter", "--entity-type", "topics", "--entity-name", topic.as_str()];
        let arguments = [&arguments[..], &["--add-config", &limit]].concat();
        let output = servers::kafka_tool("kafka.admin.ConfigCommand", &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    configure("2000");
    // Nothing that a codec could make smaller.
    let mut draw = Draw(7);
    let large: Vec<u8> = (0..5000).map(|_| draw.below(256) as u8).collect();
    poison(&app, "w", &large).await;
    poison(&app, "w", b"small").await;
    wire::kept(&app, 3).await;
    let letters = wire::dead_letters(&app, 3).await;
    let values: Vec<_> = letters.iter().map(|letter| letter.value.as_deref()).collect();
    assert_eq!(values, [Some(b"first".as_slice()), None, Some(b"small".as_slice())]);
    assert_eq!(header(&letters[1], "value-left-out"), "5000");
    let large_id = "select id from dead_letters where length(value) = 5000";
    let id: i64 = sqlx::query_scalar(large_id).fetch_one(&app.pool).await.unwrap();
    let story = eventually("it was published", PATIENCE, async || {
        let story = dlq(&app, &["show", &id.to_string()]);
        story["publishedAt"].is_string().then_some(story)
    })
    .await;
    assert_eq!((&story["state"], &story["refusal"]), (&json!("open"), &Value::Null));
    configure("10485760");
    dlq(&app, &["replay", &id.to_string()]);
    let letters = eventually("it went out in the end", PATIENCE, async || {
        let letters = wire::dead_letters(&app, 4).await;
        letters.iter().any(|letter| letter.value.as_ref() == Some(&large)).then_some(letters)
    })
    .await;
    assert_eq!(letters.len(), 4);
}
