//! Requests of several operations under one key at once: on one instance, on two, and while the first of
//! them waits for a wallet or for its COMMIT.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{assert_replayed, assert_reused, balance, balances, credit, send};
use crate::support::app::{Answer, App, Setup};
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(20);

/// Of what all were answered: the first answers, the replays, the refusals of the key.
fn kinds(answers: &[Answer]) -> (Vec<&Answer>, Vec<&Answer>, Vec<&Answer>) {
    let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 201);
    let (again, first) =
        done.into_iter().partition(|answer| answer.header("idempotency-replayed") == "true");
    (first, again, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_different_bodies_under_one_key_at_once_one_takes_effect() {
    let app = Setup::without_kafka().with("COMMAND_LANES", 2).start().await;
    let other = app.second_instance().await;
    let wallets: Vec<String> = (0..12).map(|n| format!("w{n}")).collect();
    for wallet in &wallets {
        app.open(wallet, "0").await;
    }
    let mut paid = 0;
    for round in 0..25 {
        let key = format!("race-{round}");
        // Four bodies on wallets of their own: no lock of a wallet keeps them apart.
        let bodies: Vec<Vec<Value>> = (0..4)
            .map(|n| wallets[n * 3..n * 3 + 3].iter().map(|w| credit(w, "1.00")).collect())
            .collect();
        let sends = (0..12).map(|n| {
            let app = if n % 2 == 0 { &app } else { &other };
            send(app, &key, &bodies[n / 2 % 4], round % 2 == 0)
        });
        let answers = join_all(sends).await;
        let (first, again, refused) = kinds(&answers);
        let [first] = first[..] else { panic!("{} effects: {answers:#?}", first.len()) };
        again.iter().for_each(|again| assert_replayed(first, again));
        refused.iter().for_each(|answer| assert_reused(answer));
        assert_eq!(again.len() + refused.len(), 11);
        paid += 300;
    }
    let sum = "select (sum(balance) * 100)::bigint from wallets";
    let sum: i64 = sqlx::query_scalar(sum).fetch_one(&app.pool).await.unwrap();
    assert_eq!(sum, paid);
    app.drain().await;
    app.assert_reconciled();
}

/// The first request waits for a wallet that somebody holds: it has reserved nothing yet. Whichever comes
/// first to its COMMIT has the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_that_waits_for_a_wallet_does_not_take_effect_after_another_body() {
    let app = Setup::without_kafka().start().await;
    app.open("held", "0").await;
    app.open("free", "0").await;
    for atomic in [false, true] {
        let mut stranger = app.pool.begin().await.unwrap();
        let lock = sqlx::query("select from wallets where id = 'held' for update");
        lock.execute(&mut *stranger).await.unwrap();
        let key = format!("held-{atomic}");
        let body = [credit("held", "1"), credit("held", "2")];
        let waiting = send_in_background(&app, &key, &body, atomic);
        let waits = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' \
                     and datname = current_database())";
        eventually("the first to wait", PATIENCE, async || {
            sqlx::query_scalar::<_, bool>(waits).fetch_one(&app.pool).await.unwrap().then_some(())
        })
        .await;
        let second = send(&app, &key, &[credit("free", "5")], atomic).await;
        assert_eq!(second.status, 201, "{}", second.text);
        stranger.rollback().await.unwrap();
        assert_reused(&waiting.await.unwrap());
    }
    assert_eq!(balances(&app, ["held", "free"]).await, ["0.00".to_owned(), "10.00".to_owned()]);
}

fn send_in_background(
    app: &App,
    key: &str,
    operations: &[Value],
    atomic: bool,
) -> tokio::task::JoinHandle<Answer> {
    let body = json!({"atomic": atomic, "operations": operations});
    let request = app.request(reqwest::Method::POST, "/bulk").header("idempotency-key", key);
    let request = request.json(&body).send();
    tokio::spawn(async move { Answer::of(request.await.unwrap()).await })
}

/// Another instance is between its INSERT of the key and its COMMIT: it is waited for, not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_bulk_is_held_up_on_another_instance_is_in_flight() {
    let app = Setup::without_kafka().start().await;
    for wallet in ["a", "b", "c"] {
        app.open(wallet, "0").await;
    }
    let first = send(&app, "k", &[credit("a", "1"), credit("b", "2")], false).await;
    assert_eq!(first.status, 201, "{}", first.text);
    // As if that COMMIT were still to come: what it wrote under its keys, held by a transaction.
    let rows = "create table kept as select * from idempotency_keys; delete from idempotency_keys";
    sqlx::raw_sql(rows).execute(&app.pool).await.unwrap();
    let mut twin = app.pool.begin().await.unwrap();
    let put_back = "insert into idempotency_keys select * from kept";
    sqlx::query(put_back).execute(&mut *twin).await.unwrap();
    let other = [credit("c", "4")];
    let refused = send(&app, "k", &other, false).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "idempotency_key_in_flight"));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(balance(&app, "c").await, "0.00");

    // Decided while the other body waits.
    let waiting = send_in_background(&app, "k", &other, false);
    let waits = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' \
                 and datname = current_database())";
    eventually("the other body to wait", PATIENCE, async || {
        sqlx::query_scalar::<_, bool>(waits).fetch_one(&app.pool).await.unwrap().then_some(())
    })
    .await;
    twin.commit().await.unwrap();
    assert_reused(&waiting.await.unwrap());
    assert_replayed(&first, &send(&app, "k", &[credit("a", "1"), credit("b", "2")], false).await);
    let all = balances(&app, ["a", "b", "c"]).await;
    assert_eq!(all, ["1.00", "2.00", "0.00"].map(str::to_owned));
}
