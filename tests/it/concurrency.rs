//! Many clients at once: nothing is lost, nothing is spent twice, nobody waits for a stranger.

mod contention;
mod held;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::app::App;

/// Runs `count` requests from `workers` clients and counts their statuses, in ascending order.
async fn storm(
    workers: usize,
    count: usize,
    request: impl AsyncFn(usize) -> u16,
) -> Vec<(u16, usize)> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let worker = async || {
        let mut statuses = Vec::new();
        loop {
            let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if n >= count {
                return statuses;
            }
            statuses.push(request(n).await);
        }
    };
    let answers = join_all((0..workers).map(|_| worker())).await.concat();
    let mut counts = std::collections::BTreeMap::new();
    answers.into_iter().for_each(|status| *counts.entry(status).or_default() += 1);
    counts.into_iter().collect()
}

async fn status(app: &App, path: &str, body: Value) -> u16 {
    app.post(path, body).await.status
}

/// Balance and version.
async fn stand(app: &App, id: &str) -> (String, i64) {
    let wallet = app.get(&format!("/wallets/{id}")).await.json();
    (wallet["balance"].as_str().unwrap().to_owned(), wallet["version"].as_i64().unwrap())
}

/// Opens a wallet that may go below zero.
async fn open_with_overdraft(app: &App, id: &str, balance: &str, overdraft: &str) {
    let body = json!({
        "walletId": id, "ownerId": "it", "initialBalance": balance, "overdraftLimit": overdraft,
    });
    assert_eq!(status(app, "/wallets", body).await, 201);
}

/// Deadlocks that Postgres has resolved in the test's database.
async fn deadlocks(app: &App) -> i64 {
    let seen = "select deadlocks from pg_stat_database where datname = current_database()";
    sqlx::query_scalar(seen).fetch_one(&app.pool).await.unwrap()
}

/// The longer form of a storm, on demand.
fn full() -> bool {
    std::env::var_os("WALLEX_TEST_FULL").is_some_and(|value| value == "1")
}

/// Every event is published and projected, the books are right, and Postgres broke no deadlock.
async fn assert_settled(app: &App) {
    app.drain().await;
    app.assert_reconciled();
    assert_eq!(deadlocks(app).await, 0, "40P01");
    let log = app.log_text();
    assert!(!log.contains("40P01") && !log.contains("deadlock"), "{log}");
}
