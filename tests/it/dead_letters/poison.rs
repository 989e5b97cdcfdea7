//! Poison of six kinds: each is kept whole and reported, and nobody in its partition waits for it.

use std::time::{Duration, Instant};

use rskafka::record::Record;
use serde_json::json;

use super::wire::{self, PATIENCE, envelope, header, produce, record, wallets_in};
use crate::support::app::{App, Setup};
use crate::support::eventually;

const HERE: i32 = 3;

/// Offset, class, key, value, attempts.
type Row = (i64, String, Option<Vec<u8>>, Option<Vec<u8>>, i32);

/// Credits each wallet and waits until the ledger has it: how long the slowest took.
async fn credited(app: &App, wallets: &[String]) -> Duration {
    let mut slowest = Duration::ZERO;
    for wallet in wallets {
        let begun = Instant::now();
        let path = format!("/wallets/{wallet}/credit");
        let answer = app.post(&path, json!({"amount": "1.00"})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let version = answer.json()["version"].clone();
        let path = format!("/ledger/wallet/{wallet}?limit=1");
        eventually(&format!("{wallet} at {version}"), PATIENCE, async || {
            (app.get(&path).await.json()["projectedVersion"] == version).then_some(())
        })
        .await;
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

/// The kinds, with the class that each is set aside under.
fn poison(victim: &str) -> Vec<(&'static str, &'static str, Record)> {
    let key = Some(victim.as_bytes());
    let json = |version, kind, schema| {
        record(key, Some(envelope(victim, version, kind, schema).to_string().as_bytes()))
    };
    vec![
        ("bad UTF-8", "invalid_utf8", record(key, Some(b"{\"eventId\":\"\xff\xfe\0\"}"))),
        ("bad JSON", "undecodable", record(key, Some(b"{\"eventId\":"))),
        ("an unknown type", "unknown_type", json(3, "WalletExploded", 1)),
        ("a schema of tomorrow", "unknown_schema", json(3, "WalletCredited", 2)),
        ("a version far ahead", "unknown_event", json(900, "WalletCredited", 1)),
        ("no bytes", "empty_value", record(key, Some(b""))),
        ("null", "empty_value", record(key, None)),
        ("null and no key", "empty_value", record(None, None)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_of_every_kind_is_kept_whole_and_delays_no_other_wallet() {
    let app = Setup::shared().start().await;
    let wallets = wallets_in(HERE, "w", 6);
    let (victim, others) = wallets.split_first().unwrap();
    for wallet in &wallets {
        app.open(wallet, "10.00").await;
    }
    app.drain().await;
    let before = credited(&app, others).await;
    let mut sent = Vec::new();
    let mut slowest = Duration::ZERO;
    for (name, class, record) in poison(victim) {
        let offset = produce(&app.topic, HERE, vec![record.clone()]).await;
        let took = credited(&app, others).await;
        println!("{name}: the slowest other wallet took {took:?}");
        slowest = slowest.max(took);
        sent.push((offset, class, record));
    }
    // None was waited for: the others went on at once, while every dead letter was still open.
    println!("without poison {before:?}, with poison {slowest:?}");
    wire::kept(&app, sent.len() as i64).await;
    let rows: Vec<Row> = sqlx::query_as(
        "select \"offset\", error_class, key, value, attempts from dead_letters order by id",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    for ((offset, class, record), row) in sent.iter().zip(&rows) {
        let expected = (*offset, (*class).to_owned(), record.key.clone(), record.value.clone(), 1);
        assert_eq!(row, &expected);
    }
    let letters = wire::dead_letters(&app, sent.len()).await;
    assert_eq!(letters.len(), sent.len());
    for (offset, class, original) in &sent {
        let copies = letters.iter().filter(|l| header(l, "original-offset") == offset.to_string());
        let copies: Vec<&Record> = copies.collect();
        let [copy] = copies[..] else { panic!("{class}: {copies:?}") };
        assert_eq!((&copy.key, &copy.value), (&original.key, &original.value));
        for (name, text) in [
            ("from", "a stranger"),
            ("original-topic", app.topic.as_str()),
            ("original-partition", "3"),
            ("error-class", class),
            ("attempts", "1"),
            ("replay-count", "0"),
        ] {
            assert_eq!(header(copy, name), text, "{class}");
        }
        assert!(!header(copy, "failed-at").is_empty() && !header(copy, "error-message").is_empty());
    }
    let stats = app.get("/health/kafka/stats").await.json();
    assert_eq!((&stats["deadLetters"], &stats["parkedWallets"]), (&json!(8), &json!(0)));
    assert_eq!(stats["status"], "healthy", "dead letters are no outage");
    eventually("the gauge", PATIENCE, async || {
        app.get("/metrics").await.text.contains("dead_letters_open 8").then_some(())
    })
    .await;
    credited(&app, std::slice::from_ref(victim)).await;
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_topic_lacks_is_read_from_the_books_when_the_next_one_comes() {
    // Only the topic may say what is new: a gap could else be healed by the other feed.
    let app = Setup::shared().with("PROJECTOR_FEEDS", "kafka").start().await;
    app.open("w", "10.00").await;
    app.drain().await;
    let skip = "create function skip() returns trigger language plpgsql as \
                'begin return null; end'; \
                create trigger skip before insert on outbox_batches for each row execute function skip()";
    sqlx::raw_sql(skip).execute(&app.pool).await.unwrap();
    for amount in ["1.00", "2.00"] {
        app.post("/wallets/w/credit", json!({"amount": amount})).await;
    }
    sqlx::raw_sql("drop trigger skip on outbox_batches").execute(&app.pool).await.unwrap();
    let last = app.post("/wallets/w/credit", json!({"amount": "4.00"})).await;
    assert_eq!(last.json()["version"], 5);
    app.drain().await;
    let stats = app.get("/health/kafka/stats").await.json();
    for group in ["ledger-projector", "read-model-projector"] {
        assert_eq!(stats["groups"][app.group(group)]["healed"], 2, "{stats}");
    }
    let summary = app.get("/ledger/wallet/w/summary").await.json();
    assert_eq!(summary["totalCredits"], "17.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_cannot_be_projected_delays_no_other_wallet_of_its_partition() {
    let app = Setup::shared().start().await;
    let wallets = wallets_in(HERE, "w", 5);
    let (victim, others) = wallets.split_first().unwrap();
    for wallet in &wallets {
        app.open(wallet, "10.00").await;
    }
    app.drain().await;
    // A row that is in the way of the victim's next entry, as a defect might leave it: its event
    // is in the books and in the topic, and cannot be applied.
    let spoil = format!(
        "create function spoil() returns trigger language plpgsql as $$ begin \
         if new.wallet_id = '{victim}' then raise check_violation; end if; \
         return new; end $$; \
         create trigger spoil before insert on postings for each row \
         execute function spoil()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(spoil)).execute(&app.pool).await.unwrap();
    app.post(&format!("/wallets/{victim}/credit"), json!({"amount": "1.00"})).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        app.post(&format!("/wallets/{victim}/credit"), json!({"amount": "1.00"})).await;
        slowest = slowest.max(credited(&app, others).await);
    }
    eventually("the victim parked", PATIENCE, async || {
        let list = app.wallex(&["dlq", "list", "--json"]).stdout;
        let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
        let parked = &list["parkedWallets"][0];
        (parked["walletId"] == **victim && parked["version"] == 3 && parked["events"] == 4)
            .then_some(())
    })
    .await;
    let ahead: bool = sqlx::query_scalar(
        "select next_retry_at > clock_timestamp() and attempts = 1 from parked_wallets",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert!(ahead, "nobody waited for a retry");
    println!("beside a parked wallet the slowest other one took {slowest:?}");
    // The read model has no part in it.
    assert_eq!(app.get("/health/kafka/stats").await.json()["parkedWallets"], 1);
    // Nothing is mended: an attempt now fails, and says so.
    let again = app.wallex(&["dlq", "replay", "--wallet", victim]);
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert_eq!(again.status.code(), Some(1), "{said}");
    assert!(said.contains("1 wallet failed again"), "{said}");
    sqlx::raw_sql("drop trigger spoil on postings").execute(&app.pool).await.unwrap();
    let mended = app.wallex(&["dlq", "replay", "--wallet", victim]);
    let said = String::from_utf8_lossy(&mended.stdout).into_owned();
    assert!(mended.status.success() && said.contains("released: 1 wallet"), "{said}");
    app.drain().await;
    app.assert_reconciled();
    credited(&app, &wallets).await;
    app.assert_reconciled();
}
