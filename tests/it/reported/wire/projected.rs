//! Reads that ask for more than the projections have.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::support::app::{Answer, App, Setup};
use crate::support::eventually;

async fn read(app: &App, path: &str, token: &str) -> Answer {
    let request = app.request(Method::GET, path).header("consistency-token", token);
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_behind_its_token_is_told_not_hidden() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "1").await;
    app.open("v", "1").await;
    app.drain().await;
    // Whoever holds the table so can be read beside, but no projector gets on.
    let mut holder = app.pool.begin().await.unwrap();
    let lock = "lock table projected_versions in share row exclusive mode";
    sqlx::query(lock).execute(&mut *holder).await.unwrap();
    let credit = app.post("/wallets/w/credit", json!({"amount": 1, "reference": "r"})).await;
    let token = credit.header("consistency-token").to_owned();
    let paths = [
        "/ledger/wallet/w",
        "/ledger/wallet/v/summary",
        "/ledger/reference/r",
        "/ledger/transactions",
        "/wallets",
    ];
    let begun = Instant::now();
    let answers = futures_util::future::join_all(paths.map(|path| read(&app, path, &token))).await;
    let took = begun.elapsed();
    assert!((5..9).contains(&took.as_secs()), "{took:?}");
    for (path, answer) in paths.iter().zip(answers) {
        let code = answer.code();
        assert_eq!((answer.status, code.as_str()), (503, "projection_behind"), "{path}");
        assert_eq!(answer.header("retry-after"), "1", "{path}");
        let problem = answer.json();
        assert_eq!(problem["retryable"], true);
        assert!(problem["detail"].as_str().unwrap().contains("version 3 of wallet w"));
    }
    // Without the token there is no wait, and one that is reached has none either.
    let begun = Instant::now();
    assert_eq!(app.get("/ledger/wallet/w").await.json()["count"], 1);
    let old = app.get("/wallets/w").await;
    assert_eq!(old.json()["version"], 3);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    holder.rollback().await.unwrap();
    let there = async || {
        let answer = read(&app, "/ledger/wallet/w", &token).await;
        (answer.status == 200).then(|| answer.json())
    };
    let ledger = eventually("the projection", Duration::from_secs(30), there).await;
    assert_eq!((&ledger["count"], &ledger["projectedVersion"]), (&json!(2), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_versions_that_the_books_lack_asks_for_nothing() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "1").await;
    let token = app.post("/wallets/w/credit", json!({"amount": 1})).await;
    let token = token.header("consistency-token").to_owned();
    app.drain().await;
    // As after a restore to an earlier moment: nobody will ever project what is gone.
    sqlx::raw_sql(
        "update wallets set version = 2; update projected_wallets set version = 2; \
         update wallets_read_model set version = 2",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    let begun = Instant::now();
    assert_eq!(read(&app, "/ledger/wallet/w", &token).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
