//! Records that are larger than their topic takes: the partition goes on, and what goes in their stead
//! says why.

use rskafka::record::Record;
use serde_json::{Value, json};

use super::{balances, credit, debit};
use crate::commands::{PATIENCE, answered, commands, letters, results, retry, send, start};
use crate::dead_letters::wire::{self, header, record};
use crate::support::app::{App, Setup};
use crate::support::load::Draw;
use crate::support::{eventually, servers};

/// Text that no codec makes much smaller.
fn noise(length: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut draw = Draw(length as u64);
    (0..length).map(|_| char::from(LETTERS[draw.below(64) as usize])).collect()
}

/// The broker follows a moment after its tool.
async fn limit(topic: &str, bytes: usize) {
    let config = format!("max.message.bytes={bytes}");
    let arguments = ["--alter", "--topic", topic, "--add-config", &config];
    servers::kafka_tool_said("kafka.admin.ConfigCommand", &arguments);
    eventually("the broker follows", PATIENCE, async || {
        let describe = ["--describe", "--topic", topic];
        let said = servers::kafka_tool_said("kafka.admin.ConfigCommand", &describe);
        said.contains(&config).then_some(())
    })
    .await;
}

/// Opens a wallet whose answers are large.
async fn open_large(app: &App, id: &str) {
    let metadata = json!({"noise": noise(8000)});
    let body = json!({"walletId": id, "ownerId": "it", "metadata": metadata});
    assert_eq!(app.post("/wallets", body).await.status, 201);
}

fn keyed(wallet: &str, id: &str, mut operation: Value) -> Record {
    operation["commandId"] = json!(id);
    record(Some(wallet.as_bytes()), Some(operation.to_string().as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_its_topic_does_not_take_is_told_in_fewer_words() {
    // Sizes are what they look like.
    let app = start(Setup::shared().with("PRODUCER_COMPRESSION", "none")).await;
    open_large(&app, "large").await;
    app.open("small", "0").await;
    limit(&results(&app), 3000).await;
    let mut operations = vec![credit("large", "2.00"), debit("large", "900.00")];
    operations.extend((0..200).map(|n| credit("large", &format!("0.{:02}", n % 99 + 1))));
    let bulk = json!({"op": "bulk", "operations": operations});
    let refused = json!({"op": "bulk", "operations": vec![debit("large", "900.00"); 900]});
    let sent = [
        keyed("large", "one", credit("large", "1.00")),
        keyed("large", "bulk", bulk),
        keyed("large", "refused", refused),
        // Of the same partition, behind them.
        keyed("large", "next", credit("small", "1.00")),
    ];
    send(&app, sent.to_vec()).await;
    let told = answered(&app, &["one", "bulk", "refused", "next"], 1).await;
    let of = |id: &str| {
        let [told] = &told[id][..] else { panic!("{told:?}") };
        told
    };
    assert_eq!(of("next").body["balance"], "1.00");
    let events = app.get("/wallets/large/events?limit=1000").await.json();
    let one = events["events"].as_array().unwrap().iter().find(|e| e["causationId"] == "one");
    assert!(one.is_some());
    for id in ["one", "bulk", "refused"] {
        let told = of(id);
        // The status is that of what was done: nobody may take it for a refusal.
        assert_eq!((told.status, &told.body["code"]), (201, &json!("result_too_large")), "{id}");
        assert!(told.body["detail"].as_str().unwrap().contains("/wallets/{id}/events"), "{id}");
        assert!(header(&told.record, "value-left-out").parse::<usize>().unwrap() > 3000);
        assert_eq!(header(&told.record, "correlation-id"), id);
    }
    assert!(of("one").body["transactionId"].is_string());
    let errors = json!([{"pointer": "/operations/1", "detail": "400 insufficient_funds"}]);
    assert_eq!(of("bulk").body["errors"], errors);
    assert_eq!(of("refused").body["errors"], Value::Null, "there is no room for them");
    assert!(of("bulk").body["detail"].as_str().unwrap().contains("201 × 201, 1 × 400"));
    let group = app.group("wallex-commands");
    let stats = app.get("/health/kafka/stats").await.json();
    assert_eq!(stats["groups"][&group]["lastError"], Value::Null, "nothing is held up");

    // Where there is room, the same command brings the whole of its first answer.
    limit(&results(&app), 10_485_760).await;
    send(&app, vec![sent[0].clone(), sent[1].clone()]).await;
    let told = answered(&app, &["one", "bulk"], 2).await;
    assert_eq!(told["one"][1].body["balance"], "1.00");
    assert_eq!(told["bulk"][1].body["results"].as_array().unwrap().len(), 202);
    assert_eq!(told["bulk"][1].body["results"][0]["body"]["balance"], "3.00");
    app.drain().await;
    app.assert_reconciled();
}

/// It cannot wait where it does not fit: its sender is told, and it is set aside.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_its_retry_topic_does_not_take_is_set_aside_and_the_partition_goes_on() {
    let app = start(Setup::shared()).await;
    app.open("held", "0").await;
    app.open("free", "0").await;
    limit(&retry(&app, "1min"), 2000).await;
    let mut stranger = app.pool.begin().await.unwrap();
    let lock = "select from wallets where id = 'held' for update";
    sqlx::query(lock).execute(&mut *stranger).await.unwrap();
    let mut large = credit("held", "1.00");
    large["metadata"] = json!({"noise": noise(8000)});
    let large = keyed("k", "large", large);
    let sent = [
        large.clone(),
        keyed("k", "small", credit("held", "2.00")),
        keyed("k", "free", credit("free", "3.00")),
    ];
    send(&app, sent.to_vec()).await;
    let told = answered(&app, &["large", "free"], 1).await;
    let result = &told["large"][0];
    assert_eq!((result.status, &result.body["code"]), (503, &json!("wallet_busy")));
    assert!(!told.contains_key("small"), "it waits in the retry topic");
    let letter = eventually("the dead letter", PATIENCE, async || {
        wire::read(&letters(&app)).await.into_iter().next()
    })
    .await;
    assert_eq!(letter.2.value, large.value);
    assert_eq!(header(&letter.2, "error-class"), "wallet_busy");
    assert_eq!(header(&letter.2, "attempts"), "1");
    assert_eq!(wire::read(&retry(&app, "1min")).await.len(), 1);
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("commands_dead_lettered_total 1"), "{metrics}");
    let kept = "select error_class from dead_letters";
    let kept: Vec<String> = sqlx::query_scalar(kept).fetch_all(&app.pool).await.unwrap();
    assert_eq!(kept, ["wallet_busy"], "operators have it as well");
    // Its sender may send it again.
    stranger.rollback().await.unwrap();
    send(&app, vec![large]).await;
    assert_eq!(answered(&app, &["large"], 2).await["large"][1].status, 201);
    assert_eq!(balances(&app, ["held", "free"]).await[1], "3.00");
}

/// With our headers, a record of the largest size that one topic takes is too large for another.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_a_command_keeps_of_the_record_what_its_topic_takes() {
    let app = start(Setup::shared()).await;
    limit(&letters(&app), 2000).await;
    let value = noise(8000);
    let of = |name: &str| record(Some(b"w"), Some(format!("{name}{value}").as_bytes()));
    let mut wide = of("wide");
    wide.headers.insert("wide".to_owned(), noise(5000).into_bytes());
    send(&app, vec![of("plain"), wide, record(Some(b"w"), Some(b"small"))]).await;
    let found = eventually("three dead letters", PATIENCE, async || {
        let found = wire::read(&letters(&app)).await;
        (found.len() == 3).then_some(found)
    })
    .await;
    let by_offset = |offset: &str| {
        let mut records = found.iter().map(|(_, _, record)| record);
        records.find(|record| header(record, "original-offset") == offset).unwrap()
    };
    let (plain, wide, small) = (by_offset("0"), by_offset("1"), by_offset("2"));
    assert_eq!((plain.key.as_deref(), &plain.value), (Some(b"w".as_slice()), &None));
    assert_eq!(header(plain, "from"), "a stranger");
    assert_eq!(header(plain, "value-left-out"), (value.len() + 5).to_string());
    assert_eq!((&wide.key, &wide.value), (&None, &None));
    assert!(!wide.headers.contains_key("wide"));
    for letter in [plain, wide, small] {
        assert_eq!(header(letter, "original-topic"), commands(&app));
        assert_eq!(header(letter, "error-class"), "malformed_json");
    }
    assert_eq!(small.value.as_deref(), Some(b"small".as_slice()));
}

/// The bytes stay in Postgres, where `wallex dlq show` has them.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_an_event_keeps_of_the_record_what_its_topic_takes() {
    let app = Setup::shared().start().await;
    app.open("w", "10.00").await;
    app.drain().await;
    wire::produce(&app.topic, 0, vec![record(Some(b"w"), Some(b"first"))]).await;
    wire::dead_letters(&app, 1).await;
    limit(&format!("{}-dlq", app.topic), 2000).await;
    let mut wide = record(Some(b"w"), Some(noise(8000).as_bytes()));
    wide.headers.insert("wide".to_owned(), noise(5000).into_bytes());
    let mut sent = vec![record(Some(b"w"), Some(noise(7000).as_bytes())), wide];
    sent.push(record(Some(b"w"), Some(b"small")));
    wire::produce(&app.topic, 0, sent.clone()).await;
    let letters = wire::dead_letters(&app, 4).await;
    let [_, plain, wide, small] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((plain.key.as_deref(), &plain.value), (Some(b"w".as_slice()), &None));
    assert_eq!(
        (header(plain, "from"), header(plain, "value-left-out")),
        ("a stranger".into(), "7000".into())
    );
    assert_eq!((&wide.key, &wide.value, wide.headers.contains_key("wide")), (&None, &None, false));
    assert_eq!(header(wide, "value-left-out"), "8000");
    assert_eq!(small.value.as_deref(), Some(b"small".as_slice()));
    for (letter, original) in [plain, wide].into_iter().zip(&sent) {
        let shown = app.wallex(&["dlq", "show", &header(letter, "dead-letter-id"), "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let text = String::from_utf8(original.value.clone().unwrap()).unwrap();
        assert!(shown.to_string().contains(&text), "{shown}");
        assert_eq!((&shown["state"], &shown["refusal"]), (&json!("open"), &Value::Null));
    }
}
