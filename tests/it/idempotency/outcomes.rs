//! Which outcomes a key keeps, and what a retry is answered once the answer itself is gone.

use reqwest::Method;
use serde_json::json;

use super::{assert_replay, count, send, wallet};
use crate::support::app::{Answer, App, Setup};

const ONE: &str = r#"{"amount":"1"}"#;

async fn freeze(app: &App, status: &str) {
    let query = sqlx::query("update wallets set status = $1 where id = 'w'").bind(status);
    query.execute(&app.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_success_is_answered_again() {
    let app = Setup::without_kafka().start().await;
    for (path, body) in [
        ("/wallets", r#"{"walletId":"w","ownerId":"it","initialBalance":"10"}"#),
        ("/wallets", r#"{"walletId":"v","ownerId":"it"}"#),
        ("/wallets", r#"{"ownerId":"it","metadata":{"a":1}}"#),
        ("/wallets/w/credit", r#"{"amount":"1","reference":"r","metadata":{"a":1}}"#),
        ("/wallets/w/debit", ONE),
        ("/wallets/w/transfer", r#"{"amount":"1","toWalletId":"v"}"#),
    ] {
        let key = format!("key {body}").replace([' ', '"'], "_");
        let first = send(&app, path, &key, body).await;
        assert_eq!(first.status, 201, "{}", first.text);
        // What happened since does not show in it.
        assert_eq!(app.post("/wallets/w/credit", json!({"amount": 1})).await.status, 201);
        let before = count(&app, "events").await;
        assert_replay(&first, &send(&app, path, &key, body).await);
        assert_eq!(count(&app, "events").await, before);
    }
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_state_stay_refusals_although_the_state_has_changed() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "1").await;
    let yen = json!({"walletId": "yen", "ownerId": "it", "currency": "JPY"});
    assert_eq!(app.post("/wallets", yen).await.status, 201);
    let open = r#"{"walletId":"w","ownerId":"it"}"#;
    let (out, debit) = (r#"{"amount":"5","toWalletId":"yen"}"#, r#"{"amount":"5"}"#);
    let mut refused = Vec::new();
    for (path, body, code) in [
        ("/wallets/w/debit", debit, "insufficient_funds"),
        ("/wallets/w/transfer", out, "currency_mismatch"),
        ("/wallets", open, "wallet_exists"),
    ] {
        refused.push((path, body, code, send(&app, path, "k", body).await));
    }
    for (status, code) in [("frozen", "wallet_frozen"), ("closed", "wallet_closed")] {
        freeze(&app, status).await;
        let answer = send(&app, "/wallets/w/credit", status, ONE).await;
        assert_eq!(answer.code(), code);
        freeze(&app, "active").await;
        assert_replay(&answer, &send(&app, "/wallets/w/credit", status, ONE).await);
    }
    assert_eq!(app.post("/wallets/w/credit", json!({"amount": 100})).await.status, 201);
    let before = wallet(&app, "w").await;
    for (path, body, code, first) in refused {
        assert_eq!(first.code(), code);
        assert_replay(&first, &send(&app, path, "k", body).await);
    }
    assert_eq!(wallet(&app, "w").await, before);
    let full = "update wallets set balance = 1000000000000000000 where id = 'w'";
    sqlx::query(full).execute(&app.pool).await.unwrap();
    let overflow = send(&app, "/wallets/w/credit", "full", ONE).await;
    assert_eq!(overflow.code(), "balance_overflow");
    sqlx::query("update wallets set balance = 1").execute(&app.pool).await.unwrap();
    assert_replay(&overflow, &send(&app, "/wallets/w/credit", "full", ONE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_can_mend_is_not_kept() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "1").await;
    let cases: [(&str, &str, u16); 5] = [
        ("/wallets/later/credit", ONE, 404),
        ("/wallets/w/credit", r#"{"amount":"0.001"}"#, 400),
        ("/wallets/w/credit", r#"{"amount":"x"}"#, 400),
        ("/wallets/w/credit", "{", 400),
        ("/wallets/w/transfer", r#"{"amount":"1","toWalletId":"w"}"#, 400),
    ];
    for (path, body, status) in cases {
        assert_eq!(send(&app, path, "k", body).await.status, status);
    }
    assert_eq!(count(&app, "idempotency_keys").await, 0);
    app.open("later", "1").await;
    for path in ["/wallets/later/credit", "/wallets/w/credit"] {
        let mended = send(&app, path, "k", ONE).await;
        assert_eq!((mended.status, mended.header("idempotency-replayed")), (201, ""), "{path}");
    }
    // The version is a condition on the request, no part of it.
    let at = async |version: &str| {
        let request = app.request(Method::POST, "/wallets/w/debit").json(&json!({"amount": "1"}));
        let request = request.header("idempotency-key", "k").header("if-match", version);
        Answer::of(request.send().await.unwrap()).await
    };
    assert_eq!(at("\"1\"").await.code(), "version_mismatch");
    let first = at("\"3\"").await;
    assert_eq!((first.status, first.header("etag")), (201, "\"4\""));
    for version in ["\"3\"", "\"4\"", "*"] {
        assert_replay(&first, &at(version).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn once_the_answer_is_gone_the_key_still_forbids_a_second_effect() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let first = send(&app, "/wallets/w/credit", "k", ONE).await.json();
    // Its age is judged when it is read: no walk over the keys has to come by first.
    let age = "update idempotency_keys set created_at = created_at - interval '25 hours'";
    sqlx::query(age).execute(&app.pool).await.unwrap();
    let before = wallet(&app, "w").await;
    let expired = send(&app, "/wallets/w/credit", "k", ONE).await;
    assert_eq!((expired.status, expired.code().as_str()), (409, "idempotency_key_expired"));
    let problem = expired.json();
    assert_eq!(problem["transactionId"], first["transactionId"]);
    assert_eq!(problem["retryable"], false);
    assert_eq!(send(&app, "/wallets/w/credit", "k", r#"{"amount":"2"}"#).await.status, 422);
    assert_eq!(wallet(&app, "w").await, before);
}
