//! Errors that strike every wallet: none is parked for them, or a few, and the page names the cause at
//! once.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use wallex::projector::{Projection, Projector};

use crate::projectors::books::{Books, create, credit};
use crate::support::app::{App, Setup};
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(30);

async fn parked(app: &App) -> i64 {
    sqlx::query_scalar("select count(*) from parked_wallets").fetch_one(&app.pool).await.unwrap()
}

async fn run(app: &App, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&app.pool).await.unwrap();
}

/// The page is degraded, and says why of a projector.
async fn degraded(app: &App, projector: &str, cause: &str) -> Value {
    // Far sooner than a projection counts as behind.
    eventually(&format!("degraded by {cause}"), Duration::from_secs(8), async || {
        let page = app.get("/health/kafka").await.json();
        let error = page["consumers"][&app.group(projector)]["error"].as_str()?.to_owned();
        (page["status"] == "degraded" && error.contains(cause)).then_some(page)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_or_right_parks_nobody_and_is_named_at_once() {
    let app = Setup::shared().start().await;
    app.open("w", "10.00").await;
    app.drain().await;
    for (harm, mend, projector, cause) in [
        (
            "revoke insert on postings from wallex_app",
            "grant insert on postings to wallex_app",
            "ledger-projector",
            "permission denied",
        ),
        (
            "alter table wallets_read_model rename to elsewhere",
            "alter table elsewhere rename to wallets_read_model",
            "read-model-projector",
            "wallets_read_model",
        ),
    ] {
        run(&app, harm).await;
        for n in 0..30 {
            let id = format!("{}-{n}", projector.len());
            app.open(&id, "1.00").await;
        }
        degraded(&app, projector, cause).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(parked(&app).await, 0);
        let metrics = app.get("/metrics").await.text;
        let counted = metrics.lines().any(|line| {
            line.starts_with("consumer_step_failures_total") && line.contains("cause=\"42\"")
        });
        assert!(counted, "{metrics}");
        run(&app, mend).await;
        app.drain().await;
        eventually("healthy again", PATIENCE, async || {
            (app.get("/health/kafka").await.json()["status"] == "healthy").then_some(())
        })
        .await;
    }
    app.assert_reconciled();
}

const REFUSE_ALL: &str = "create function refuse() returns trigger language plpgsql as $$ begin \
     raise exception 'nobody at all'; end $$; \
     create trigger refuse before insert on postings for each row execute function refuse()";

/// Steps a few times, whatever comes of it.
async fn try_steps(projector: &mut Projector, times: usize) -> Option<String> {
    let mut last = None;
    for _ in 0..times {
        if let Err(error) = projector.step().await {
            last = Some(error.to_string());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_refuses_all_parks_a_few_at_most() {
    let mut books = Books::open().await;
    let wallets: Vec<String> = (0..200).map(|n| format!("w{n}")).collect();
    books.write(&wallets.iter().map(|w| create(w, "USD", Some("1"))).collect::<Vec<_>>()).await;
    sqlx::raw_sql(REFUSE_ALL).execute(&books.pool).await.unwrap();
    let mut ledger = books.projector(Projection::LEDGER, 500, None);
    let error = try_steps(&mut ledger, 8).await;
    assert!(error.unwrap().contains("nobody at all"));
    assert!(books.count("select count(*) from parked_wallets").await <= 10);
    sqlx::raw_sql("drop function refuse cascade").execute(&books.pool).await.unwrap();
    sqlx::raw_sql("update parked_wallets set next_retry_at = clock_timestamp()")
        .execute(&books.pool)
        .await
        .unwrap();
    assert_eq!(try_steps(&mut ledger, 12).await, None);
    books.project(Projection::READ_MODEL).await;
    books.assert_clean().await;
    assert_eq!(books.count("select count(*) from parked_wallets").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_from_the_future_waits_for_the_version_that_knows_it() {
    let mut books = Books::open().await;
    books.write(&[create("new", "USD", Some("1")), create("old", "USD", Some("1"))]).await;
    let spoil = "update events set schema_version = 2 where wallet_id = 'new' and version = 2";
    sqlx::raw_sql(spoil).execute(&books.pool).await.unwrap();
    let mut ledger = books.projector(Projection::LEDGER, 500, None);
    assert_eq!(try_steps(&mut ledger, 4).await, None);
    // Its partition waits, however often it is tried: no wallet is set aside for what this build does not know.
    assert_eq!(try_steps(&mut ledger, 8).await, None);
    assert_eq!(books.count("select count(*) from parked_wallets").await, 0);
    // The version that knows it, at its start.
    let known = "update events set schema_version = 1 where schema_version = 2";
    sqlx::raw_sql(known).execute(&books.pool).await.unwrap();
    books.write(&[credit("new", "1")]).await;
    let mut next = books.projector(Projection::LEDGER, 500, None);
    assert_eq!(try_steps(&mut next, 8).await, None);
    books.project(Projection::READ_MODEL).await;
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_a_projection_that_cannot_go_on_is_told_as_well() {
    let app = Setup::without_kafka().start().await;
    run(&app, "revoke insert on postings from wallex_app").await;
    app.post("/wallets", json!({"walletId": "w", "ownerId": "o", "initialBalance": "1"})).await;
    eventually("its error is told", Duration::from_secs(8), async || {
        let page = app.get("/health/kafka").await.json();
        let error = page["consumers"][&app.group("ledger-projector")]["error"].as_str()?.to_owned();
        error.contains("permission denied").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn books_that_may_not_be_read_park_nobody() {
    let mut app = Setup::shared().start().await;
    for n in 0..5 {
        app.open(&format!("w{n}"), "1.00").await;
    }
    app.drain().await;
    app.kill(Signal::SIGKILL);
    // All of it is to be applied again, from the topic, by a service that remembers nothing.
    run(&app, "truncate projected_wallets, wallets_read_model; update projector_checkpoints set next_offset = 0")
        .await;
    run(&app, "revoke select on events from wallex_app").await;
    app.restart().await;
    degraded(&app, "ledger-projector", "permission denied").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(parked(&app).await, 0);
    run(&app, "grant select on events to wallex_app").await;
    app.drain().await;
    app.assert_reconciled();
}
