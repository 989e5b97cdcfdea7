//! Every problem code that can be reached, by the request that reaches it.

use reqwest::Method;
use serde_json::json;

use super::{assert_problem, effects};
use crate::support::app::{Answer, App, Setup};
use crate::support::{eventually, servers};

async fn post(app: &App, path: &str, body: &str) -> Answer {
    let request = app.request(Method::POST, path).header("content-type", "application/json");
    Answer::of(request.body(body.to_owned()).send().await.unwrap()).await
}

/// `usd` has 10.00, `full` all that a wallet can hold, `yen` 5 JPY; the others are in the state of
/// their names.
async fn some_wallets(app: &App) {
    for id in ["usd", "full", "frozen", "closed"] {
        app.open(id, "10").await;
    }
    let yen = json!({"walletId": "yen", "ownerId": "it", "currency": "JPY", "initialBalance": 5});
    assert_eq!(app.post("/wallets", yen).await.status, 201);
    for change in [
        "update wallets set balance = 1000000000000000000 where id = 'full'",
        "update wallets set status = id where id in ('frozen', 'closed')",
    ] {
        sqlx::query(change).execute(&app.pool).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_code_of_the_contract_has_its_status_and_its_document() {
    let app = Setup::without_kafka().start().await;
    some_wallets(&app).await;
    let before = effects(&app).await;
    let (credit, debit, transfer) =
        ("/wallets/usd/credit", "/wallets/usd/debit", "/wallets/usd/transfer");
    let one = r#"{"amount":"1"}"#;
    let cases: &[(&str, &str, u16, &str, &[&str])] = &[
        (credit, "{", 400, "malformed_json", &[]),
        (credit, r#"{"amount":"1","is_admin":true}"#, 400, "unknown_field", &["/is_admin"]),
        (credit, "{}", 400, "missing_field", &["/amount"]),
        (transfer, "{}", 400, "missing_field", &["/toWalletId", "/amount"]),
        (credit, r#"{"amount":"1","description":7}"#, 400, "invalid_value", &["/description"]),
        (credit, r#"{"amount":"-1"}"#, 400, "invalid_amount", &["/amount"]),
        (credit, r#"{"amount":"0.001"}"#, 400, "amount_scale", &[]),
        ("/wallets/full/credit", r#"{"amount":"0.01"}"#, 400, "balance_overflow", &[]),
        (transfer, r#"{"amount":"1","toWalletId":"full"}"#, 400, "balance_overflow", &[]),
        ("/wallets", r#"{"ownerId":"a b"}"#, 400, "invalid_id", &["/ownerId"]),
        ("/wallets/a%20b/credit", one, 400, "invalid_id", &["path"]),
        (
            "/wallets",
            r#"{"ownerId":"a","currency":"usd"}"#,
            400,
            "invalid_currency",
            &["/currency"],
        ),
        (transfer, r#"{"amount":"1","toWalletId":"yen"}"#, 400, "currency_mismatch", &[]),
        (transfer, r#"{"amount":"1","toWalletId":"usd"}"#, 400, "same_wallet", &[]),
        (debit, r#"{"amount":"10.01"}"#, 400, "insufficient_funds", &[]),
        ("/wallets/none/credit", one, 404, "wallet_not_found", &[]),
        (transfer, r#"{"amount":"1","toWalletId":"none"}"#, 404, "wallet_not_found", &[]),
        ("/nowhere", one, 404, "route_not_found", &[]),
        ("/wallets", r#"{"ownerId":"a","walletId":"usd"}"#, 409, "wallet_exists", &[]),
        ("/wallets/frozen/credit", one, 409, "wallet_frozen", &[]),
        ("/wallets/closed/debit", one, 409, "wallet_closed", &[]),
        (transfer, r#"{"amount":"1","toWalletId":"closed"}"#, 409, "wallet_closed", &[]),
    ];
    for (path, body, status, code, pointers) in cases {
        assert_problem(code, &post(&app, path, body).await, *status, code, pointers);
    }
    let refused = post(&app, credit, r#"{"amount":"x","b":1,"description":2,"a/~":3}"#).await;
    let pointers = ["/amount", "/description", "/b", "/a~1~0"];
    assert_problem("all that is wrong", &refused, 400, "invalid_amount", &pointers[..]);
    let crowd: String = (0..50_000).map(|n| format!(r#","f{n}":0"#)).collect();
    let refused = post(&app, credit, &format!(r#"{{"amount":1{crowd}}}"#)).await;
    assert_eq!(refused.code(), "unknown_field");
    assert!(refused.text.len() < 4096, "an answer larger than what it answers");

    for path in ["/wallets/none", "/wallets/none/events"] {
        assert_problem(path, &app.get(path).await, 404, "wallet_not_found", &[]);
    }
    for (method, path, allow) in [
        (Method::DELETE, "/wallets", "GET,HEAD,POST"),
        (Method::PUT, "/wallets/usd", "GET,HEAD,PATCH"),
        (Method::GET, credit, "POST"),
        (Method::POST, "/ledger/transactions", "GET,HEAD"),
        (Method::from_bytes(b"BREW").unwrap(), "/livez", "GET,HEAD"),
    ] {
        let answer = Answer::of(app.request(method, path).send().await.unwrap()).await;
        assert_problem(path, &answer, 405, "method_not_allowed", &[]);
        let mut allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{path}");
    }
    for (header, value, status, code) in [
        ("if-match", "\"9\"", 412, "version_mismatch"),
        ("if-match", "9", 400, "invalid_value"),
        ("if-match", "\"nine\"", 412, "version_mismatch"),
        ("content-type", "text/plain", 415, "unsupported_media_type"),
        ("content-encoding", "gzip", 415, "unsupported_media_type"),
        ("idempotency-key", "", 400, "invalid_idempotency_key"),
    ] {
        let request = app.request(Method::POST, credit).header("content-type", "application/json");
        let mut request = request.body(one).build().unwrap();
        request.headers_mut().insert(header, value.parse().unwrap());
        let answer = Answer::of(app.client.execute(request).await.unwrap()).await;
        let pointers: &[&str] = match code {
            "invalid_value" => &["If-Match"],
            "invalid_idempotency_key" => &["Idempotency-Key"],
            _ => &[],
        };
        assert_problem(value, &answer, status, code, pointers);
    }
    assert_eq!(effects(&app).await, before, "a refusal had an effect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_can_be_made_a_duty() {
    let app = Setup::without_kafka().with("REQUIRE_IDEMPOTENCY_KEY", true).start().await;
    let body = json!({"ownerId": "it"});
    let refused = app.post("/wallets", body.clone()).await;
    assert_problem("none", &refused, 400, "invalid_idempotency_key", &["Idempotency-Key"]);
    assert_eq!(app.post_with_key("/wallets", "k", &body).await.unwrap().status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_queue_holds_is_refused_at_once() {
    let app = Setup::without_kafka().with("COMMAND_QUEUE_MAX", 2).start().await;
    app.open("w", "0").await;
    // Whoever holds this table holds the lane: what arrives meanwhile has to queue.
    let mut stranger = app.pool.begin().await.unwrap();
    sqlx::query("lock table command_batches").execute(&mut *stranger).await.unwrap();
    let credit = async || app.post("/wallets/w/credit", json!({"amount": 1})).await;
    let crowd = futures_util::future::join_all((0..20).map(|_| credit()));
    let release = async {
        let waiting = async || {
            let asleep: bool = sqlx::query_scalar(
                "select exists (select from pg_locks l join pg_database d on d.oid = l.database \
                 where d.datname = current_database() and not l.granted)",
            )
            .fetch_one(&app.pool)
            .await
            .unwrap();
            asleep.then_some(())
        };
        eventually("the lane to wait", std::time::Duration::from_secs(10), waiting).await;
        // Refused at once, although nothing moves. Two in a batch and two that wait are all that fit,
        // however late the crowd comes.
        let refused = async || {
            let at_once = futures_util::future::join_all((0..6).map(|_| credit()));
            at_once.await.into_iter().find(|answer| answer.status == 429)
        };
        eventually("a 429", std::time::Duration::from_secs(20), refused).await;
        stranger.rollback().await.unwrap();
    };
    let (answers, ()) = tokio::join!(crowd, release);
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 201).collect();
    assert!(!refused.is_empty() && refused.len() < 20);
    for answer in refused {
        assert_problem("crowd", answer, 429, "overloaded", &[]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_every_route_says_so_and_none_waits_for_ever() {
    let mut postgres = servers::own_postgres();
    let app = Setup::on(&postgres, None).start().await;
    app.open("w", "0").await;
    postgres.stop();
    let begun = std::time::Instant::now();
    for path in ["/wallets/w", "/wallets", "/wallets/w/events", "/ledger/wallet/w"] {
        assert_problem(path, &app.get(path).await, 503, "database_unavailable", &[]);
    }
    let refused = app.post("/wallets/w/credit", json!({"amount": 1})).await;
    assert_problem("credit", &refused, 503, "database_unavailable", &[]);
    assert_eq!(app.get("/livez").await.status, 200);
    assert_eq!(app.get("/readyz").await.status, 503);
    assert_eq!(app.get("/health/kafka").await.json()["status"], "unhealthy");
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    postgres.restart().unwrap();
    app.ready().await;
    let credit = async || Some(app.post("/wallets/w/credit", json!({"amount": 1})).await.status);
    let taken = async || credit().await.filter(|status| *status == 201);
    eventually("commands again", std::time::Duration::from_secs(20), taken).await;
}
