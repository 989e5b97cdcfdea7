//! Requests and commands with several operations: one key, one fingerprint, one effect.

mod bulk;
mod commands;
mod commits;
mod races;
mod sizes;

use serde_json::{Value, json};

use crate::support::app::{Answer, App};

fn credit(wallet: &str, amount: &str) -> Value {
    json!({"op": "credit", "walletId": wallet, "amount": amount})
}

fn debit(wallet: &str, amount: &str) -> Value {
    json!({"op": "debit", "walletId": wallet, "amount": amount})
}

/// `POST /bulk` under a key for all of it.
async fn send(app: &App, key: &str, operations: &[Value], atomic: bool) -> Answer {
    let body = json!({"atomic": atomic, "operations": operations});
    app.post_with_key("/bulk", key, &body).await.unwrap()
}

async fn balance(app: &App, wallet: &str) -> String {
    let wallet = app.get(&format!("/wallets/{wallet}")).await.json();
    wallet["balance"].as_str().unwrap_or("none").to_owned()
}

async fn balances<const N: usize>(app: &App, wallets: [&str; N]) -> [String; N] {
    let mut found = [const { String::new() }; N];
    for (found, wallet) in found.iter_mut().zip(wallets) {
        *found = balance(app, wallet).await;
    }
    found
}

/// Status, and code of a problem, of each result.
fn results(answer: &Answer) -> Vec<(u64, String)> {
    let results = answer.json()["results"].as_array().cloned().unwrap_or_default();
    let one = |result: &Value| {
        let code = result["body"]["code"].as_str().unwrap_or_default().to_owned();
        (result["status"].as_u64().unwrap(), code)
    };
    results.iter().map(one).collect()
}

/// Without the mark that each result of a replay has.
fn unmarked(answer: &Answer) -> String {
    answer.text.replace(r#""replayed":true,"#, "")
}

/// The whole of the first answer again, and marked as such.
#[track_caller]
fn assert_replayed(first: &Answer, again: &Answer) {
    assert_eq!((again.status, unmarked(again)), (first.status, unmarked(first)));
    assert_eq!(again.header("consistency-token"), first.header("consistency-token"));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    let marks = (first.header("idempotency-replayed"), again.header("idempotency-replayed"));
    assert_eq!(marks, ("", "true"));
}

#[track_caller]
fn assert_reused(answer: &Answer) {
    let said = (answer.status, answer.code());
    assert_eq!(said, (422, "idempotency_key_reused".to_owned()), "{}", answer.text);
}
