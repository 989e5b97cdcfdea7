//! A request can be found in the log by the ids that its answer carries.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Setup};
use crate::support::eventually;

const CORRELATION: &str = "order-4711";

/// A service that logs as it does in a container, at its default level.
async fn logging(level: &str) -> App {
    let setup = Setup::without_kafka().with("LOG_FORMAT", "json").with("LOG_LEVEL", level);
    setup.start().await
}

fn lines(app: &App) -> Vec<Value> {
    app.log_text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The first line with this message that names the request, once it is written.
async fn line_of(app: &App, message: &str, request_id: &str) -> Value {
    let what = format!("the line {message:?} of {request_id}");
    eventually(&what, Duration::from_secs(10), async || {
        lines(app)
            .into_iter()
            .find(|line| line["message"] == message && line.to_string().contains(request_id))
    })
    .await
}

async fn send(app: &App, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut request = app.request(method, path).header("x-correlation-id", CORRELATION);
    if let Some(body) = body {
        request = request.json(&body);
    }
    Answer::of(request.send().await.unwrap()).await
}

/// Takes a table away, as a mistake of an operator would.
async fn hide(app: &App, table: &str) {
    let sql = format!("alter table {table} rename to hidden_{table}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&app.pool).await.unwrap();
}

#[tokio::test]
async fn a_read_that_fails_is_found_by_its_request_id_and_correlation_id() {
    let app = logging("info").await;
    hide(&app, "postings").await;
    let answer = send(&app, Method::GET, "/ledger/wallet/w-1?reference=canary-query", None).await;
    assert_eq!(answer.status, 500, "{}", answer.text);
    let id = answer.json()["requestId"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("x-request-id"), id);

    let cause = line_of(&app, "read failed", &id).await;
    assert_eq!(cause["level"], "ERROR", "{cause}");
    assert_eq!(cause["span"]["request_id"], json!(id), "{cause}");
    assert_eq!(cause["span"]["correlation_id"], CORRELATION, "{cause}");
    assert!(cause["error"].as_str().unwrap().contains("postings"), "{cause}");

    let line = line_of(&app, "answered", &id).await;
    assert_eq!(line["level"], "INFO", "{line}");
    assert_eq!(line["route"], "/ledger/wallet/{id}", "{line}");
    assert_eq!((&line["method"], &line["status"]), (&json!("GET"), &json!(500)), "{line}");
    assert_eq!(line["span"]["tenant"], "default", "{line}");
    assert!(line["ms"].is_u64(), "{line}");
    assert!(!app.log_text().contains("canary-query"), "a query is logged");
}

#[tokio::test]
async fn a_batch_that_fails_names_the_requests_in_it() {
    let app = logging("info").await;
    app.open("w-1", "1.00").await;
    hide(&app, "outbox_batches").await;
    let body = json!({"amount": "1.00", "description": "canary-body"});
    let answer = send(&app, Method::POST, "/wallets/w-1/credit", Some(body)).await;
    assert_eq!(answer.status, 500, "{}", answer.text);
    let id = answer.json()["requestId"].as_str().unwrap().to_owned();
    let cause = line_of(&app, "batch failed", &id).await;
    assert_eq!(cause["requests"], json!(id), "{cause}");
    assert!(!app.log_text().contains("canary-body"), "a body is logged");
}

#[tokio::test]
async fn an_ordinary_request_has_its_line_at_debug_only() {
    let app = logging("info,wallex=debug").await;
    app.open("w-1", "1.00").await;
    let refused = send(&app, Method::POST, "/wallets/w-1/debit", Some(json!({"amount": 5}))).await;
    assert_eq!(refused.code(), "insufficient_funds");
    let line = line_of(&app, "answered", refused.header("x-request-id")).await;
    assert_eq!((&line["level"], &line["status"]), (&json!("DEBUG"), &json!(400)), "{line}");
}
