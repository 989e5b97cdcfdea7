//! The tour of a new user: every route once, each answer exactly as the contract has it.

mod ledger;
mod operations;
mod wallets;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Setup};
use crate::support::golden::Golden;

/// A wallet's JSON, but for what a call is about.
fn wallet(id: &str, currency: &str, balance: &str, version: i64) -> Value {
    json!({
        "id": id, "ownerId": "ann", "currency": currency, "status": "active",
        "balance": balance, "heldBalance": zero(currency), "availableBalance": balance,
        "overdraftLimit": zero(currency), "version": version, "metadata": null,
        "createdAt": "<time>", "updatedAt": "<time>",
    })
}

fn zero(currency: &str) -> &'static str {
    match currency {
        "JPY" => "0",
        "KWD" => "0.000",
        _ => "0.00",
    }
}

/// `base` with other or further fields.
fn with(mut base: Value, fields: Value) -> Value {
    let (Value::Object(base_fields), Value::Object(fields)) = (&mut base, fields) else {
        panic!("not objects");
    };
    base_fields.extend(fields);
    base
}

/// Posts with ids of the caller's own, which the events have to carry.
async fn post(app: &App, path: &str, body: Value) -> Answer {
    let request = app
        .request(Method::POST, path)
        .header("x-correlation-id", "tour")
        .header("x-causation-id", "first-steps")
        .json(&body);
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-correlation-id"), "tour");
    assert!(uuid::Uuid::parse_str(answer.header("x-request-id")).is_ok());
    assert!(!answer.header("consistency-token").is_empty());
    assert!(answer.headers.get("idempotency-replayed").is_none());
    answer
}

/// 200 with JSON: its body.
async fn get(app: &App, path: &str) -> Value {
    let answer = app.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}
