//! What a key is, what it covers, and what it does not.

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::json;

use super::{assert_replay, count, send, wallet};
use crate::support::app::{Answer, App, Setup};

const ONE: &str = r#"{"amount":"1"}"#;
const CREDIT: &str = "/wallets/w/credit";

async fn start() -> App {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    app.open("v", "10").await;
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_for_one_request_on_one_route() {
    let app = start().await;
    let first = send(&app, CREDIT, "k", ONE).await;
    for other in [
        r#"{"amount":"2"}"#,
        r#"{"amount":"1","description":""}"#,
        r#"{"amount":"1","reference":"r"}"#,
        r#"{"amount":"1","metadata":{}}"#,
    ] {
        let reused = send(&app, CREDIT, "k", other).await;
        assert_eq!((reused.status, reused.code().as_str()), (422, "idempotency_key_reused"));
    }
    let transfer = r#"{"amount":"1","toWalletId":"w"}"#;
    for (path, body) in [
        ("/wallets/v/credit", ONE),
        ("/wallets/w/debit", ONE),
        ("/wallets/v/transfer", transfer),
        ("/wallets", r#"{"ownerId":"it"}"#),
    ] {
        let other = send(&app, path, "k", body).await;
        assert_eq!((other.status, other.header("idempotency-replayed")), (201, ""), "{path}");
    }
    assert_replay(&first, &send(&app, CREDIT, "k", ONE).await);
    assert_eq!(wallet(&app, "w").await["balance"], "11.00");
    assert_eq!(count(&app, "idempotency_keys").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_in_another_spelling_is_the_same_request() {
    let app = start().await;
    let first = send(&app, CREDIT, "k", r#"{"amount":"1.50","description":"tip"}"#).await;
    assert_eq!(first.status, 201);
    for same in [
        r#"{"amount":1.5,"description":"tip"}"#,
        r#"{"amount":"1.5","description":"tip"}"#,
        r#" { "description" : "\u0074ip" , "amount" : 1.500 } "#,
        r#"{"amount":"1.50","description":"tip","reference":null,"metadata":null}"#,
    ] {
        assert_replay(&first, &send(&app, CREDIT, "k", same).await);
    }
    // The route is compared by what it says, not by how it is escaped; queries mean nothing here.
    for path in ["/wallets/%77/credit", "/wallets/w/credit?a=b"] {
        let same = r#"{"amount":"1.50","description":"tip"}"#;
        assert_replay(&first, &send(&app, path, "k", same).await);
    }
    let made = send(&app, "/wallets", "k", r#"{"ownerId":"it","currency":"USD"}"#).await;
    let defaults = r#"{"ownerId":"it","initialBalance":"0.00","overdraftLimit":0}"#;
    assert_replay(&made, &send(&app, "/wallets", "k", defaults).await);
    assert_eq!(count(&app, "events").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_bare_or_quoted_and_what_is_none_is_refused() {
    let app = start().await;
    let longest = "k".repeat(255);
    for (key, same) in [
        ("abc", "\"abc\""),
        ("\"quoted\"", "quoted"),
        (r#"a"b"#, r#""a\"b""#),
        ("padded", "  padded  "),
        (&longest, &format!("\"{longest}\"")),
    ] {
        let first = send(&app, CREDIT, key, ONE).await;
        assert_eq!(first.status, 201, "{key}");
        assert_replay(&first, &send(&app, CREDIT, same, ONE).await);
    }
    let upper = send(&app, CREDIT, "ABC", ONE).await;
    assert_eq!(upper.header("idempotency-replayed"), "", "keys are compared to the byte");

    let before = (wallet(&app, "w").await, count(&app, "idempotency_keys").await);
    let too_long = "k".repeat(256);
    let mut refused: Vec<HeaderMap> = ["", "\"\"", "a b", "\"open", "\"a\"b\"", &too_long, "a\tb"]
        .iter()
        .map(|key| HeaderMap::from_iter([(name(), HeaderValue::from_str(key).unwrap())]))
        .collect();
    for bytes in ["kä".as_bytes(), b"k\xff"] {
        let value = HeaderValue::from_bytes(bytes).unwrap();
        refused.push(HeaderMap::from_iter([(name(), value)]));
    }
    let twice = HeaderValue::from_static("abc");
    let mut both = HeaderMap::new();
    both.append(name(), twice.clone());
    both.append(name(), twice);
    refused.push(both);
    for headers in refused {
        let request = app.request(Method::POST, CREDIT).json(&json!({"amount": "1"}));
        let answer = request.headers(headers.clone()).send().await.unwrap();
        let answer = Answer::of(answer).await;
        let got = (answer.status, answer.code());
        assert_eq!(got, (400, "invalid_idempotency_key".to_owned()), "{headers:?}");
        assert_eq!(answer.json()["errors"][0]["pointer"], "Idempotency-Key");
    }
    assert_eq!((wallet(&app, "w").await, count(&app, "idempotency_keys").await), before);
}

fn name() -> reqwest::header::HeaderName {
    reqwest::header::HeaderName::from_static("idempotency-key")
}
