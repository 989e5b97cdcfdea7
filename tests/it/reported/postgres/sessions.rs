//! Sessions that lived through a change, and defaults that somebody set for everybody.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::app::{App, Setup};
use crate::support::{eventually, servers};

async fn credit(app: &App) {
    let done = app.post("/wallets/w/credit", json!({"amount": "1.00"})).await;
    assert_eq!(done.status, 201, "{}", done.text);
}

/// Reads that meet every session of their pool.
async fn read_all(app: &App, path: &str) -> Vec<u16> {
    let mut readers = JoinSet::new();
    for _ in 0..20 {
        let (url, client) = (format!("{}{path}", app.base), app.client.clone());
        readers.spawn(async move { client.get(url).send().await.unwrap().status().as_u16() });
    }
    readers.join_all().await
}

/// "cached plan must not change result type": a prepared statement outlives the table that it was
/// prepared for, and its session failed for as long as it lived.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_changes_its_type_under_the_service_costs_a_retry_and_no_restart() {
    let app = Setup::on(servers::postgres(), Some(servers::kafka())).start().await;
    app.open("w", "1.00").await;
    credit(&app).await;
    app.drain().await;
    let pages = ["/wallets/w", "/wallets/w/events", "/ledger/wallet/w", "/wallets"];
    for page in pages {
        let answers = read_all(&app, page).await;
        assert!(answers.iter().all(|status| *status == 200), "{page}: {answers:?}");
    }
    for change in [
        "alter table wallets alter column owner_id type varchar(300)",
        "alter table events alter column correlation_id type varchar(300)",
        "do $$ declare shown text := pg_get_viewdef('ledger_entries'); begin \
             drop view ledger_entries; \
             alter table postings alter column description type varchar(2000); \
             execute 'create view ledger_entries with (security_invoker = true) as ' || shown; \
             grant select on ledger_entries to wallex_app; end $$",
        "alter table wallets_read_model alter column owner_id type varchar(300)",
    ] {
        sqlx::raw_sql(change).execute(&app.pool).await.unwrap();
        credit(&app).await;
    }
    for page in pages {
        // One for each session that was opened before.
        let answers = read_all(&app, page).await;
        let failed = answers.iter().filter(|status| **status != 200).count();
        assert!(
            failed <= 5 && answers.iter().all(|status| [200, 503].contains(status)),
            "{answers:?}"
        );
        let answers = read_all(&app, page).await;
        assert!(answers.iter().all(|status| *status == 200), "{page}: {answers:?}");
    }
    for _ in 0..10 {
        credit(&app).await;
    }
    app.drain().await;
    app.assert_reconciled();
}

/// Whoever set them had other clients in mind.
#[tokio::test(flavor = "multi_thread")]
async fn defaults_that_an_operator_set_for_the_database_change_nothing() {
    let mut app = Setup::on(servers::postgres(), Some(servers::kafka())).start().await;
    let name: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(&app.pool).await.unwrap();
    for (setting, value) in [
        ("default_transaction_isolation", "serializable"),
        ("idle_session_timeout", "500ms"),
        ("statement_timeout", "20ms"),
        ("lock_timeout", "20ms"),
        ("idle_in_transaction_session_timeout", "1ms"),
        ("synchronous_commit", "off"),
        ("timezone", "Pacific/Auckland"),
        ("datestyle", "German"),
        ("intervalstyle", "sql_standard"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-15"),
    ] {
        let sql = format!("alter database {name} set {setting} = '{value}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&app.pool).await.unwrap();
    }
    app.restart().await;
    app.open("w", "1.00").await;
    let listeners = "select pid from pg_stat_activity where datname = current_database() \
         and application_name = 'wallex-listener'";
    let listener: i32 = eventually("it listens", Duration::from_secs(10), async || {
        sqlx::query_scalar(listeners).fetch_optional(&app.pool).await.ok()?
    })
    .await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let (url, client) = (format!("{}/wallets/w/credit", app.base), app.client.clone());
            callers.spawn(async move {
                client.post(url).json(&json!({"amount": "1.00"})).send().await.unwrap().status()
            });
        }
        let answers = callers.join_all().await;
        assert!(answers.iter().all(|status| *status == 201), "{answers:?}");
    }
    let still: Vec<i32> = sqlx::query_scalar(listeners).fetch_all(&app.pool).await.unwrap();
    assert_eq!(still, [listener], "the listener's session is not left over");
    app.drain().await;
    app.assert_reconciled();
    let log = app.log_text();
    for trouble in ["could not serialize", "idle-session timeout", "statement timeout"] {
        assert!(!log.contains(trouble), "{trouble}: {log}");
    }
}
