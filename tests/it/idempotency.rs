//! One effect per key, for ever, and the first answer again, to the byte.

mod keys;
mod outcomes;
mod storm;

use reqwest::Method;
use serde_json::Value;

use crate::support::app::{Answer, App};

/// Posts JSON text as it is, under the key as it is.
async fn send(app: &App, path: &str, key: &str, body: &str) -> Answer {
    let request = app.request(Method::POST, path).header("content-type", "application/json");
    let request = request.header("idempotency-key", key).body(body.to_owned());
    Answer::of(request.send().await.unwrap()).await
}

/// The same answer again: equal to the byte, and marked.
#[track_caller]
fn assert_replay(first: &Answer, again: &Answer) {
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    for name in ["content-type", "etag", "consistency-token"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(first.header("idempotency-replayed"), "");
}

async fn count(app: &App, table: &str) -> i64 {
    let question = format!("select count(*) from {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(question)).fetch_one(&app.pool).await.unwrap()
}

async fn wallet(app: &App, id: &str) -> Value {
    app.get(&format!("/wallets/{id}")).await.json()
}
