//! Money on hold: who wins, what is left, what a key remembers. One test for each situation of the list
//! that the rules were made from, by its number.

mod holds;
mod races;
mod state;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Setup};

/// Rounds of a race.
fn rounds() -> usize {
    if std::env::var_os("WALLEX_TEST_FULL").is_some() { 1000 } else { 50 }
}

async fn app() -> App {
    Setup::without_kafka().start().await
}

/// A wallet with a balance and an overdraft limit.
async fn open(app: &App, id: &str, balance: &str, overdraft: &str) {
    let body = json!({"walletId": id, "ownerId": "o", "initialBalance": balance,
        "overdraftLimit": overdraft});
    let opened = app.post("/wallets", body).await;
    assert_eq!(opened.status, 201, "{}", opened.text);
}

async fn place(app: &App, wallet: &str, body: Value) -> String {
    let placed = app.post(&format!("/wallets/{wallet}/holds"), body).await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    placed.json()["id"].as_str().unwrap().to_owned()
}

async fn on(app: &App, hold: &str, op: &str, body: Value) -> Answer {
    app.post(&format!("/holds/{hold}/{op}"), body).await
}

/// Balance, held and available.
async fn numbers(app: &App, wallet: &str) -> [String; 3] {
    let wallet = app.get(&format!("/wallets/{wallet}")).await.json();
    ["balance", "heldBalance", "availableBalance"]
        .map(|name| wallet[name].as_str().unwrap().to_owned())
}

#[track_caller]
fn is(answer: &Answer, status: u16, code: &str) {
    let found = if answer.status < 400 { String::new() } else { answer.code() };
    assert_eq!((answer.status, found.as_str()), (status, code), "{}", answer.text);
}

/// How many of the answers have each status and code.
fn tally(answers: &[Answer]) -> std::collections::BTreeMap<String, usize> {
    let mut tally = std::collections::BTreeMap::new();
    for answer in answers {
        let code = if answer.status < 400 { String::new() } else { answer.code() };
        *tally.entry(format!("{} {code}", answer.status).trim().to_owned()).or_default() += 1;
    }
    tally
}

async fn all<F: Future<Output = Answer>>(requests: impl IntoIterator<Item = F>) -> Vec<Answer> {
    join_all(requests).await
}
