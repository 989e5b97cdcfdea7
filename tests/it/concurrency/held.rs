//! A stranger's transaction holds a wallet's row: only those who want that wallet wait for it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{Postgres, Transaction};

use super::{assert_settled, stand, status, storm};
use crate::support::app::{App, Setup};
use crate::support::eventually;

/// Other wallets have no reason to wait at all: behind the held one each would wait for the lock's
/// timeout. The median, because a busy machine may stop for a while.
const PROMPT: Duration = Duration::from_secs(2);

async fn hold<'a>(app: &App, id: &str) -> Transaction<'a, Postgres> {
    let mut stranger = app.pool.begin().await.unwrap();
    sqlx::query("select 1 from wallets where id = $1 for update")
        .bind(id)
        .execute(&mut *stranger)
        .await
        .unwrap();
    stranger
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_wallet_is_busy_and_the_others_go_on() {
    let app = Setup::without_kafka().start().await;
    app.open("held", "10").await;
    app.open("free", "10").await;
    app.open("payer", "10").await;
    let stranger = hold(&app, "held").await;
    let begun = Instant::now();
    let held = async {
        let body = json!({"amount": 1});
        let answer = app.post_with_key("/wallets/held/credit", "k", &body).await.unwrap();
        (answer, begun.elapsed())
    };
    let busy_transfer =
        app.post("/wallets/payer/transfer", json!({"amount": 1, "toWalletId": "held"}));
    let took = Mutex::new(Vec::new());
    let others = async {
        let credit = async |_| {
            let begun = Instant::now();
            let status = status(&app, "/wallets/free/credit", json!({"amount": 1})).await;
            took.lock().unwrap().push(begun.elapsed());
            status
        };
        let statuses = storm(8, 200, credit).await;
        (statuses, stand(&app, "held").await, begun.elapsed())
    };
    let ((held, waited), transfer, (statuses, read, read_after)) =
        tokio::join!(held, busy_transfer, others);
    assert_eq!(statuses, [(201, 200)]);
    assert_eq!(read, ("10.00".to_owned(), 2), "reading waits for nobody");
    assert!(read_after < Duration::from_secs(20), "{read_after:?}");
    let mut took = took.into_inner().unwrap();
    took.sort();
    assert!(took[took.len() / 2] < PROMPT, "{took:?}");
    for answer in [&held, &transfer] {
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "wallet_busy"),
            "{}",
            answer.text
        );
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    assert!((Duration::from_secs(1)..Duration::from_secs(15)).contains(&waited), "{waited:?}");

    stranger.rollback().await.unwrap();
    // Nothing was done, and the key is as good as new.
    let again =
        app.post_with_key("/wallets/held/credit", "k", &json!({"amount": 1})).await.unwrap();
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, ""));
    assert_eq!(stand(&app, "held").await, ("11.00".to_owned(), 3));
    assert_eq!(stand(&app, "free").await, ("210.00".to_owned(), 202));
    assert_eq!(stand(&app, "payer").await, ("10.00".to_owned(), 2));
    assert_settled(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_held_wallet_is_served_once_it_is_released() {
    let app = Setup::without_kafka().start().await;
    app.open("held", "0").await;
    app.open("free", "5").await;
    let stranger = hold(&app, "held").await;
    // As a client should: the same request again while the wallet is busy.
    let crowd = storm(20, 20, async |n| {
        let (path, body) = match n % 2 {
            0 => ("/wallets/held/credit", json!({"amount": 1})),
            _ => ("/wallets/free/transfer", json!({"amount": "0.10", "toWalletId": "held"})),
        };
        let decided = async || {
            let answer = app.post_with_key(path, &format!("k-{n}"), &body).await.unwrap();
            (answer.status != 503).then_some(answer.status)
        };
        eventually("an outcome", Duration::from_secs(20), decided).await
    });
    let release = async {
        let waiting = async || {
            let waits = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' \
                         and datname = current_database())";
            sqlx::query_scalar::<_, bool>(waits).fetch_one(&app.pool).await.unwrap().then_some(())
        };
        eventually("somebody to wait", PROMPT, waiting).await;
        stranger.commit().await.unwrap();
    };
    assert_eq!(tokio::join!(crowd, release).0, [(201, 20)]);
    assert_eq!(stand(&app, "held").await, ("11.00".to_owned(), 21));
    assert_eq!(stand(&app, "free").await, ("4.00".to_owned(), 12));
    assert_settled(&app).await;
}
