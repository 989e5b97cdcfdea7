//! Commands that cannot be decided for now: those of a wallet that somebody holds wait in the retry
//! topics, for as long as the topics say; a database that is away holds up all, and moves none.

use std::time::Duration;

use nix::sys::signal::Signal;
use rskafka::record::Record;
use serde_json::json;

use super::{PATIENCE, answered, command, commands, letters, retry, send, start, told};
use crate::dead_letters::wire::{self, header, wallets_in};
use crate::support::app::{App, Setup};
use crate::support::{eventually, servers};

/// Of the three topics, in ms.
const DELAYS: [i64; 3] = [1_500, 2_500, 4_000];

/// The record of a command in a topic, once it is there.
async fn found(topic: &str, id: &str) -> Record {
    eventually(&format!("{id} in {topic}"), PATIENCE, async || {
        let records = wire::read(topic).await.into_iter().map(|(_, _, record)| record);
        let id = format!("\"{id}\"");
        let is_it = |record: &Record| {
            String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).contains(&id)
        };
        { records }.find(is_it)
    })
    .await
}

async fn held(app: &App, wallet: &str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut stranger = app.pool.begin().await.unwrap();
    sqlx::query("select from wallets where id = $1 for update")
        .bind(wallet)
        .execute(&mut *stranger)
        .await
        .unwrap();
    stranger
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_a_held_wallet_wait_their_delays_and_then_take_effect_or_are_set_aside() {
    let delays = DELAYS.map(|ms| ms.to_string()).join(",");
    let app = start(Setup::shared().with("CONSUMER_RETRY_DELAYS_MS", delays)).await;
    // Of one partition: nobody behind them waits for long.
    let [early, late, free] = &wallets_in(3, "w", 3)[..] else { panic!() };
    for wallet in [early, late, free] {
        app.open(wallet, "10.00").await;
    }
    let (mut first, second) = (Some(held(&app, early).await), held(&app, late).await);
    let credit = |id: &str, wallet: &str| {
        command(&json!({"commandId": id, "op": "credit", "walletId": wallet, "amount": "1.00"}))
    };
    let records = [("early", early), ("late", late), ("free", free)];
    send(&app, records.map(|(id, wallet)| credit(id, wallet)).to_vec()).await;
    answered(&app, &["free"], 1).await;

    // Each waits in the first, and is tried again from there after its delay.
    let stages = ["1min", "5min", "30min"];
    let mut passed = Vec::new();
    for (number, stage) in stages.iter().enumerate() {
        let record = found(&retry(&app, stage), "late").await;
        for (name, text) in [
            ("from", "a stranger"),
            ("original-topic", commands(&app).as_str()),
            ("original-partition", "3"),
            ("error-class", "wallet_busy"),
            ("attempts", &(number + 1).to_string()),
        ] {
            assert_eq!(header(&record, name), text, "{stage}");
        }
        assert_eq!(record.key.as_deref(), Some(late.as_bytes()));
        passed.push(record.timestamp);
        if number == 1 {
            assert!(!told(&app).await.contains_key("early"), "nothing is decided yet");
            // Tried from the second topic on, it finds its wallet free.
            first.take().unwrap().rollback().await.unwrap();
        }
    }
    let record = found(&letters(&app), "late").await;
    assert_eq!(
        (header(&record, "error-class"), header(&record, "attempts")),
        ("wallet_busy".into(), "4".into())
    );
    passed.push(record.timestamp);
    for ((pair, delay), stage) in passed.windows(2).zip(DELAYS).zip(stages) {
        let waited = (pair[1] - pair[0]).num_milliseconds();
        println!("{stage}: {waited} ms for a delay of {delay} ms");
        assert!(waited >= delay, "{stage}: {waited} ms");
    }
    second.rollback().await.unwrap();
    let told = answered(&app, &["early", "late"], 1).await;
    let [done] = &told["early"][..] else { panic!("{told:?}") };
    assert_eq!((done.status, &done.body["balance"]), (201, &json!("11.00")));
    let [undecided] = &told["late"][..] else { panic!("{told:?}") };
    assert_eq!((undecided.status, &undecided.body["code"]), (503, &json!("wallet_busy")));
    assert_eq!(undecided.body["retryable"], true);

    // Sent again with its id, as its sender may.
    send(&app, vec![credit("late", late)]).await;
    let told = answered(&app, &["late"], 2).await;
    assert!(told["late"].iter().any(|told| told.status == 201), "{told:?}");
    for wallet in [early, late, free] {
        assert_eq!(app.get(&format!("/wallets/{wallet}")).await.json()["balance"], "11.00");
    }
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("commands_retried_total"), "{metrics}");
    assert!(metrics.contains("commands_dead_lettered_total 1"), "{metrics}");
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_commands_wait_in_their_topic_and_keep_their_order() {
    let mut postgres = servers::own_postgres();
    let app = start(Setup::on(&postgres, Some(servers::kafka()))).await;
    app.open("w", "0").await;
    app.drain().await;
    postgres.kill(Signal::SIGQUIT).unwrap();
    // Each is refused unless the one before it has been done.
    let pair = |n: usize| {
        let (credit, debit) = (format!("credit-{n}"), format!("debit-{n}"));
        [
            command(
                &json!({"commandId": credit, "op": "credit", "walletId": "w", "amount": "1.00"}),
            ),
            command(&json!({"commandId": debit, "op": "debit", "walletId": "w", "amount": "1.00"})),
        ]
    };
    send(&app, (0..50).flat_map(pair).collect()).await;
    // Longer than a command is tried before it is moved where Postgres is there.
    let group = app.group("wallex-commands");
    let begun = std::time::Instant::now();
    eventually("the consumer says what it waits for", PATIENCE, async || {
        let stats = app.get("/health/kafka/stats").await.json();
        let said = stats["groups"][&group]["lastError"].as_str()?.to_owned();
        (said.contains("Postgres") && begun.elapsed() > Duration::from_secs(12)).then_some(())
    })
    .await;
    postgres.restart().unwrap();
    let ids: Vec<String> =
        (0..50).flat_map(|n| [format!("credit-{n}"), format!("debit-{n}")]).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let told = answered(&app, &ids, 1).await;
    assert!(told.values().flatten().all(|told| told.status == 201), "{told:?}");
    for stage in ["1min", "5min", "30min"] {
        assert_eq!(wire::read(&retry(&app, stage)).await, [], "{stage}");
    }
    assert_eq!(wire::read(&letters(&app)).await, []);
    assert_eq!(app.get("/wallets/w").await.json()["balance"], "0.00");
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_told_to_stop_finishes_what_it_has_in_hand() {
    let mut app = start(Setup::shared()).await;
    app.open("w", "0").await;
    let ids: Vec<String> = (0..300).map(|n| format!("c-{n}")).collect();
    let credit = |id: &String| {
        command(&json!({"commandId": id, "op": "credit", "walletId": "w", "amount": "1.00"}))
    };
    send(&app, ids.iter().map(credit).collect()).await;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    answered(&app, &ids[..1], 1).await;
    assert!(tokio::task::block_in_place(|| app.stop()).success());
    let log = app.log_text();
    assert!(!log.contains("tasks cut off") && !log.contains("unsettled"), "{log}");
    app.spawn();
    app.ready().await;
    let told = answered(&app, &ids, 1).await;
    assert!(told.values().all(|told| told.len() == 1), "nothing is repeated after a clean stop");
    assert_eq!(app.get("/wallets/w").await.json()["balance"], "300.00");
}
