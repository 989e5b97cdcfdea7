//! Ten connections for everybody: whoever reads much held up publisher, projectors and readiness.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::app::Setup;
use crate::support::{eventually, servers};

/// Sessions of the service whose statement runs at the moment, by the beginning of their name.
const RUNNING: &str = "select count(*) from pg_stat_activity where datname = current_database() \
     and application_name like 'wallex%' and state = 'active'";

/// Reading the entries of the wallet `slow` takes a minute, or until somebody ends it.
const SLOW: &str = "create policy slowly on postings as restrictive for select using \
        (wallet_id <> 'slow' or pg_sleep(60) is not null)";

#[tokio::test(flavor = "multi_thread")]
async fn fifty_slow_reads_leave_readiness_commands_and_projections_alone_and_end_with_their_callers()
 {
    let app = Setup::on(servers::postgres(), Some(servers::kafka())).start().await;
    app.open("slow", "1.00").await;
    app.open("w", "0.00").await;
    app.drain().await;
    sqlx::raw_sql(SLOW).execute(&app.pool).await.unwrap();

    let mut readers = JoinSet::new();
    for number in 0..50 {
        let page = if number % 2 == 0 { "/summary" } else { "" };
        let (url, client) = (format!("{}/ledger/wallet/slow{page}", app.base), app.client.clone());
        readers.spawn(async move {
            // They ask again for as long as the test looks, and none waits for an answer.
            loop {
                let patience = Duration::from_secs(1);
                let _ = client.get(&url).timeout(patience).send().await;
            }
        });
    }
    let most = Duration::from_secs(5);
    let busy = async || {
        let running: i64 = sqlx::query_scalar(RUNNING).fetch_one(&app.pool).await.ok()?;
        (running >= 4).then_some(())
    };
    eventually("the slow reads run", most, busy).await;
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut looks = 0;
    while begun.elapsed() < Duration::from_secs(6) {
        let asked = Instant::now();
        let ready = app.get("/readyz").await;
        assert_eq!(ready.status, 200, "{}", ready.text);
        assert!(asked.elapsed() < Duration::from_millis(500), "readyz took {:?}", asked.elapsed());
        let asked = Instant::now();
        let done = app.post("/wallets/w/credit", json!({"amount": "1.00"})).await;
        assert_eq!(done.status, 201, "{}", done.text);
        let version = done.json()["version"].as_i64().unwrap();
        eventually("published and projected within a second", Duration::from_secs(1), async || {
            let behind: bool = sqlx::query_scalar(
                "select exists (select from outbox where processed_at is null) or \
                    (select count(*) from projected_versions \
                     where wallet_id = 'w' and version >= $1) < 2",
            )
            .bind(version)
            .fetch_one(&app.pool)
            .await
            .ok()?;
            (!behind).then_some(())
        })
        .await;
        slowest = slowest.max(asked.elapsed());
        looks += 1;
    }
    let sessions: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity where datname = current_database() \
             and application_name like 'wallex%'",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    println!("{looks} credits, the slowest in step after {slowest:?}; {sessions} sessions");
    // What OPERATIONS says an instance may open, and reads that are just being ended.
    assert!(sessions <= 25 + 3, "{sessions} sessions");

    // Whoever has gone asks for nothing any more, at the server either.
    readers.shutdown().await;
    let ended = async || {
        let running: i64 = sqlx::query_scalar(RUNNING).fetch_one(&app.pool).await.ok()?;
        (running == 0).then_some(())
    };
    eventually("abandoned reads end at the server", Duration::from_secs(4), ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_are_enough_for_all_of_the_pipeline() {
    let app = Setup::on(servers::postgres(), Some(servers::kafka()))
        .with("DATABASE_MAX_CONNECTIONS", 2)
        .start()
        .await;
    app.open("w", "1.00").await;
    for _ in 0..20 {
        let done = app.post("/wallets/w/credit", json!({"amount": "1.00"})).await;
        assert_eq!(done.status, 201, "{}", done.text);
    }
    app.drain().await;
    assert_eq!(app.get("/ledger/wallet/w/summary").await.json()["totalCredits"], "21.00");
}
