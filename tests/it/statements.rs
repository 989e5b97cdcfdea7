//! Balances at a moment, and statements of periods: true, unchanging, and of any length.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::support::app::{App, Setup};

/// A wallet with this many events, from 2026-01-01T00:00:00Z on, one each 20 s: opened at version 1,
/// then credits of 1.00 with every tenth a debit of 0.50.
async fn wallet_of(app: &App, id: &str, versions: i64) {
    let balance = "((v - 1) - 1.50 * ((v - 1) / 10))";
    let before = "((v - 2) - 1.50 * ((v - 2) / 10))";
    let text = |sum: &str| format!("to_char({sum}, 'FM999999990.00')");
    let sql = format!(
        "insert into wallets (tenant_id, id, owner_id, currency, status, balance, version, created_at, \
             updated_at) select 'default', '{id}', 'it', 'USD', 'active', {balance}, v, \
             '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z'::timestamptz + (v - 1) * interval '20 s' \
             from (select {versions}::bigint as v) last; \
         insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, transaction_id, \
             partition, created_at) \
         select 'default', '{id}', v, gen_random_uuid(), case when v = 1 then 'WalletCreated' \
                 when (v - 1) % 10 = 0 then 'WalletDebited' else 'WalletCredited' end, \
             case when v = 1 then json_build_object('transactionId', t, 'ownerId', 'it', 'currency', 'USD', \
                     'overdraftLimit', '0.00', 'previousBalance', '0.00', 'newBalance', '0.00', \
                     'changeAmount', '0.00', 'changeType', 'CREDIT', 'reason', null, 'metadata', null) \
                 else json_build_object('transactionId', t, 'previousBalance', {}, 'newBalance', {}, \
                     'changeAmount', case when (v - 1) % 10 = 0 then '0.50' else '1.00' end, \
                     'changeType', case when (v - 1) % 10 = 0 then 'DEBIT' else 'CREDIT' end, \
                     'reason', 'for ' || v, 'currency', 'USD', 'reference', null, 'metadata', null) end, \
             t, 0, '2026-01-01T00:00:00Z'::timestamptz + (v - 1) * interval '20 s' \
         from (select v, gen_random_uuid() as t from generate_series(1, {versions}) v) rows",
        text(before),
        text(balance),
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&app.pool).await.unwrap();
}

async fn get(app: &App, path: &str) -> Value {
    let answer = app.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_is_that_after_the_last_event_up_to_the_moment() {
    let app = Setup::without_kafka().start().await;
    wallet_of(&app, "w", 1001).await;
    for (at, version, balance) in [
        ("2025-12-31T23:59:59.999Z", 0, "0.00"),
        ("2026-01-01T00:00:00Z", 1, "0.00"),
        ("2026-01-01T00:00:19.999Z", 1, "0.00"),
        // An event of that very time counts.
        ("2026-01-01T00:00:20Z", 2, "1.00"),
        ("2026-01-01T02:00:20%2B02:00", 2, "1.00"),
        ("2026-01-01T00:03:20Z", 11, "8.50"),
        ("2026-01-01", 1001, "850.00"),
        ("9999-12-31T23:59:59Z", 1001, "850.00"),
    ] {
        let seen = get(&app, &format!("/wallets/w/balance?at={at}")).await;
        assert_eq!(
            (&seen["version"], &seen["balance"]),
            (&json!(version), &json!(balance)),
            "{at}"
        );
        assert_eq!(seen["updatedAt"].is_null(), version == 0);
    }
    let now = get(&app, "/wallets/w/balance").await;
    assert_eq!(
        (&now["at"], &now["balance"], &now["basis"]),
        (&Value::Null, &json!("850.00"), &json!("recorded"))
    );
    for version in 1..=1001_i64 {
        let at = chrono::DateTime::from_timestamp(1_767_225_600 + (version - 1) * 20, 0).unwrap();
        let at = at.format("%Y-%m-%dT%H:%M:%SZ");
        let seen = get(&app, &format!("/wallets/w/balance?at={at}")).await;
        assert_eq!(seen["version"], version);
    }
    for (path, status) in [
        ("/wallets/none/balance", 404),
        ("/wallets/w/balance?at=yesterday", 400),
        ("/wallets/w/balance?basis=wrong", 400),
        ("/wallets/w/statement", 400),
        ("/wallets/w/statement?from=2026-01-02&to=2026-01-02", 400),
        ("/wallets/w/statement?from=2026-01-02&to=2026-01-01", 400),
        ("/wallets/w/statement?from=2026-01-02&tz=Mars/Olympus", 400),
        ("/wallets/w/statement?from=2026-01-02&format=pdf", 400),
        ("/wallets/w/statement?from=9999-12-31&to=10000-01-01", 400),
        ("/wallets/none/statement?from=2026-01-02", 404),
    ] {
        assert_eq!(app.get(path).await.status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_and_what_is_held_are_those_of_the_moment() {
    let app = Setup::without_kafka().start().await;
    let body =
        json!({"walletId": "o", "ownerId": "it", "overdraftLimit": "20", "initialBalance": "5"});
    assert_eq!(app.post("/wallets", body).await.status, 201);
    let debit = app.post("/wallets/o/debit", json!({"amount": "15"})).await.json();
    let at = debit["updatedAt"].as_str().unwrap();
    let seen = get(&app, &format!("/wallets/o/balance?at={at}")).await;
    assert_eq!((&seen["balance"], &seen["availableBalance"]), (&json!("-10.00"), &json!("10.00")));
    assert_eq!((&seen["overdraftLimit"], &seen["heldBalance"]), (&json!("20.00"), &json!("0.00")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_half_open_and_the_same_for_ever() {
    let app = Setup::without_kafka().start().await;
    wallet_of(&app, "w", 1001).await;
    let path = "/wallets/w/statement?from=2026-01-01T00:00:20Z&to=2026-01-01T00:03:20Z";
    let answer = app.get(path).await;
    let seen = answer.json();
    // The event of the first moment counts, that of the last does not.
    let versions: Vec<i64> = seen["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["version"].as_i64().unwrap())
        .collect();
    assert_eq!(versions, (2..=10).collect::<Vec<_>>());
    assert_eq!((&seen["openingVersion"], &seen["closingVersion"]), (&json!(1), &json!(10)));
    assert_eq!(
        (&seen["openingBalance"], &seen["closingBalance"]),
        (&json!("0.00"), &json!("9.00"))
    );
    assert_eq!((&seen["final"], &seen["timezone"]), (&json!(true), &json!("UTC")));
    assert_eq!(app.get(path).await.text, answer.text);
    // Its neighbour goes on where it ended.
    let next = get(&app, "/wallets/w/statement?from=2026-01-01T00:03:20Z&to=2026-01-02").await;
    assert_eq!((&next["openingBalance"], &next["openingVersion"]), (&json!("9.00"), &json!(10)));
    assert_eq!(
        (&next["entries"][0]["version"], &next["closingBalance"]),
        (&json!(11), &json!("850.00"))
    );
    assert_eq!(
        next["totals"]["byType"],
        json!([
            {"transactionType": "CREDIT", "amount": "891.00", "count": 891},
            {"transactionType": "DEBIT", "amount": "50.00", "count": 100},
        ])
    );
    // Nothing happened, and before anything happened.
    for (from, balance) in [("2026-02-01", "850.00"), ("2025-02-01", "0.00")] {
        let to = format!("{}-03-01", &from[..4]);
        let seen = get(&app, &format!("/wallets/w/statement?from={from}&to={to}")).await;
        assert_eq!((&seen["entries"], &seen["totals"]["count"]), (&json!([]), &json!(0)));
        assert_eq!(
            (&seen["openingBalance"], &seen["closingBalance"]),
            (&json!(balance), &json!(balance))
        );
    }
    let running = get(&app, "/wallets/w/statement?from=2026-01-01").await;
    assert_eq!((&running["final"], &running["closingVersion"]), (&json!(false), &json!(1001)));
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_those_of_the_zone() {
    let app = Setup::without_kafka().start().await;
    wallet_of(&app, "w", 9000).await;
    // Honolulu's 1 January begins ten hours later.
    let path = "/wallets/w/statement?from=2026-01-01&to=2026-01-02&tz=Pacific/Honolulu";
    let seen = get(&app, path).await;
    assert_eq!(seen["from"], "2026-01-01T10:00:00.000Z");
    assert_eq!(
        (&seen["to"], &seen["timezone"]),
        (&json!("2026-01-02T10:00:00.000Z"), &json!("Pacific/Honolulu"))
    );
    assert_eq!(seen["entries"][0]["localTime"], "2026-01-01T00:00:00.000-10:00");
    assert_eq!(seen["totals"]["count"], 24 * 180);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_form_says_the_same() {
    let app = Setup::without_kafka().start().await;
    wallet_of(&app, "w", 1001).await;
    let path =
        |form: &str| format!("/wallets/w/statement?from=2026-01-01&to=2026-01-02&format={form}");
    let (json, lines) = (get(&app, &path("json")).await, app.get(&path("ndjson")).await);
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> =
        lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1002);
    assert_eq!(lines[1]["eventId"], json["entries"][0]["eventId"]);
    assert_eq!(lines[1001]["closingBalance"], json["closingBalance"]);
    let csv = app.get(&path("csv")).await;
    assert!(csv.header("content-type").starts_with("text/csv"));
    let rows: Vec<&str> = csv.text.lines().collect();
    assert_eq!(rows.len(), 1003);
    assert!(rows[1002].starts_with("closing,1001,"), "{}", rows[1002]);
    let html = app.get(&path("html")).await;
    assert!(html.header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(html.text.matches("<tr><td>2026-01-01").count(), 1000);
    assert!(html.text.contains("Closing balance") && html.text.ends_with("</html>\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn books_that_do_not_add_up_break_a_statement_off() {
    let app = Setup::without_kafka().start().await;
    wallet_of(&app, "w", 2001).await;
    let alter = "update events set payload = replace(payload::text, '\"1700.00\"', '\"1700.01\"')::json \
        where wallet_id = 'w' and version = 2001";
    let cut = "delete from events where wallet_id = 'w' and version = 1500";
    for (sql, forms) in [(alter, ["json", "csv"]), (cut, ["html", "ndjson"])] {
        assert_eq!(sqlx::query(sql).execute(&app.pool).await.unwrap().rows_affected(), 1);
        for form in forms {
            let path = format!(
                "{}/wallets/w/statement?from=2026-01-01&to=2026-01-02&format={form}",
                app.base
            );
            let response = app.client.get(path).send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.text().await.is_err(), "{form} came to an end");
        }
    }
    assert!(app.log_text().contains("a statement broke off"));
}

/// What the process has in memory, in kB.
fn resident(app: &App) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_of_any_length_takes_no_more_memory() {
    let app = Setup::without_kafka().start().await;
    wallet_of(&app, "w", 100_001).await;
    let path = |from: &str| format!("/wallets/w/statement?from={from}&to=2027-01-01");
    get(&app, &path("2026-01-23")).await;
    let before = resident(&app);
    let mut highest = before;
    let mut response =
        app.client.get(format!("{}{}", app.base, path("2026-01-01"))).send().await.unwrap();
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        bytes += chunk.len();
        highest = highest.max(resident(&app));
    }
    println!("{bytes} bytes of statement; {before} kB before, at most {highest} kB");
    assert!(bytes > 30_000_000, "{bytes}");
    assert!(highest < before + 16_000, "{before} kB, then {highest} kB");
    // A reader that goes in the middle leaves nothing behind.
    let response =
        app.client.get(format!("{}{}", app.base, path("2026-01-01"))).send().await.unwrap();
    drop(response);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(app.get("/wallets/w").await.status, 200);
}
