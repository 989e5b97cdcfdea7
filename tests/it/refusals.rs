//! Every refusal with its code, and the promise that goes with it: a refused request had no effect.

mod bodies;
mod codes;
mod queries;
mod texts;
mod wire;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Setup};

const JSON: &str = "application/json";
const CREDIT: &str = "/wallets/w/credit";

/// The answer is the problem document of `code`, whole and about `pointers`.
#[track_caller]
fn assert_problem(what: &str, answer: &Answer, status: u16, code: &str, pointers: &[&str]) {
    let what = format!("{what}: {} {}", answer.status, answer.text);
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    let problem = answer.json();
    let retryable = matches!(status, 429 | 500 | 503) || code == "idempotency_key_in_flight";
    let retry_after = if retryable { "1" } else { "" };
    assert_eq!(answer.header("retry-after"), retry_after, "{what}");
    let fixed = json!({
        "type": format!("urn:wallex:problem:{code}"), "status": status, "code": code,
        "requestId": answer.header("x-request-id"), "retryable": retryable,
    });
    for (name, value) in fixed.as_object().unwrap() {
        assert_eq!(&problem[name], value, "{name} of {what}");
    }
    assert!(["title", "detail"].iter().all(|n| problem[n].as_str().is_some_and(|t| !t.is_empty())));
    let known = [
        "type",
        "title",
        "status",
        "detail",
        "code",
        "requestId",
        "retryable",
        "errors",
        "transactionId",
        // What explains a refusal of money.
        "available",
        "amount",
        "own",
        "main",
        "held",
        "overdraftLimit",
        "left",
        "used",
        "holdStatus",
        "closedBy",
        "closedAt",
        "holds",
    ];
    assert!(
        problem.as_object().unwrap().keys().all(|name| known.contains(&name.as_str())),
        "{what}"
    );
    let errors = problem["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let shown: Vec<&str> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
    assert_eq!(shown, pointers, "{what}");
    assert!(errors.iter().all(|e| e["detail"].is_string() && e.as_object().unwrap().len() == 2));
}

/// Everything that a request could leave behind.
pub async fn effects(app: &App) -> Value {
    sqlx::query_scalar(
        "select jsonb_build_object( \
            'wallets', (select jsonb_agg(w order by id) from wallets w), \
            'events', (select count(*) from events), \
            'outbox', (select count(*) from outbox), \
            'keys', (select count(*) from idempotency_keys))",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap()
}

/// Each request carries a key of its own: an error of form must not use it up.
async fn post(app: &App, path: &str, kind: &str, body: Vec<u8>) -> Answer {
    let key = uuid::Uuid::now_v7().to_string();
    let request = app.request(Method::POST, path).header("idempotency-key", key).body(body);
    let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
    Answer::of(request.send().await.unwrap()).await
}

/// `w` with 10.00, `v` with 1.00, and one in JPY.
async fn start() -> App {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    app.open("v", "1").await;
    let yen = json!({"walletId": "yen", "ownerId": "it", "currency": "JPY"});
    assert_eq!(app.post("/wallets", yen).await.status, 201);
    app
}
