//! Health on full tables. (Reported of outboxes and projections: "the health check times out once the table
//! has grown", "healthy while it was hours behind".) What is not known is not well.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::app::{App, Setup};
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);
const WALLETS: i64 = 2000;
/// With the statistics of today, the count of before took seconds from some 100,000 events on.
const EVENTS: i64 = 400_000;
/// What a page may take at any size.
const PAGE: Duration = Duration::from_millis(50);

/// Events of wallets of their own, all projected and sent.
async fn fill(pool: &PgPool, topic: &str) {
    let versions = EVENTS / WALLETS;
    let sql = format!(
        "create table filled as select 'w' || lpad(g::text, 5, '0') as id, \
             (g % 10)::int as partition, g as number from generate_series(1, {WALLETS}) g; \
         insert into wallets (tenant_id, id, owner_id, currency, status, balance, version, \
             created_at, updated_at) select 'default', id, 'it', 'USD', 'active', {versions}, \
             {versions}, now(), now() from filled; \
         insert into projected_wallets (tenant_id, projector, wallet_id, version) \
             select 'default', 'ledger-projector', id, {versions} from filled; \
         insert into wallets_read_model (tenant_id, id, owner_id, currency, status, balance, version, \
             created_at, updated_at) select tenant_id, id, owner_id, currency, status, balance, \
             version, created_at, updated_at from wallets where id like 'w%';"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
    let sql = format!(
        "do $$ begin set local synchronous_commit = off; for v in 1..{versions} loop \
             insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, \
                 transaction_id, partition, created_at) \
             select 'default', id, v, gen_random_uuid(), 'WalletCredited', '{{}}', \
                 gen_random_uuid(), partition, clock_timestamp() from filled; \
             commit; end loop; end $$"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
    let sql = format!(
        "insert into outbox_purges (tenant_id, purged_through) values ('default', now()); \
        analyze; select '{topic}'"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

/// The page, and the shortest time that it took.
async fn page(app: &App, path: &str) -> (Value, Duration) {
    let (mut answer, mut best) = (Value::Null, Duration::MAX);
    for _ in 0..12 {
        let begun = Instant::now();
        let got = app.get(path).await;
        best = best.min(begun.elapsed());
        assert_eq!(got.status, 200, "{}", got.text);
        answer = got.json();
    }
    (answer, best)
}

fn lags(app: &App, page: &Value) -> [Value; 2] {
    ["ledger-projector", "read-model-projector"]
        .map(|name| page["consumers"][app.group(name)]["lag"].clone())
}

fn reasons(page: &Value) -> String {
    page["reasons"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_quick_and_true_on_full_tables_whoever_holds_a_snapshot() {
    let app = Setup::shared().start().await;
    app.open("mine", "5").await;
    app.drain().await;
    // Older than all events below: no cursor can pass it.
    let mut old = app.pool.acquire().await.unwrap();
    let hold = "set application_name = 'an old report'; begin; select pg_current_xact_id()";
    sqlx::raw_sql(hold).execute(&mut *old).await.unwrap();
    let pid: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *old).await.unwrap();
    fill(&app.pool, &app.topic).await;

    // The projectors have looked at all of it, and their cursors stand before it.
    let (held, took) = page(&app, "/health/kafka").await;
    println!("{EVENTS} events behind a held cursor: {took:?}");
    assert_eq!(lags(&app, &held), [0, 0].map(Value::from), "{held}");
    assert_eq!(held["status"], "healthy", "{held}");
    assert!(took < PAGE, "{took:?}");
    eventually("who holds it is shown", PATIENCE, async || {
        let stats = app.get("/health/kafka/stats").await.json();
        let held = stats["oldestSnapshots"].as_array().unwrap().clone();
        let is_it = |held: &Value| {
            let named = held["pid"] == pid && held["name"] == "an old report";
            named && held["seconds"].as_i64() >= Some(5)
        };
        held.iter().any(is_it).then_some(())
    })
    .await;
    eventually("the metrics tell", PATIENCE, async || {
        let metrics = app.get("/metrics").await.text;
        let over = |name: &str| {
            let mut lines = metrics.lines().filter(|line| line.starts_with(name));
            lines.any(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() >= 1.0)
        };
        let held = over("projection_cursor_held_seconds{") && over("oldest_snapshot_seconds ");
        held.then_some(())
    })
    .await;

    sqlx::raw_sql("rollback").execute(&mut *old).await.unwrap();
    let credited = app.post("/wallets/mine/credit", json!({"amount": "1"})).await;
    assert_eq!(credited.status, 201);
    app.drain().await;
    let (idle, took) = page(&app, "/health/kafka").await;
    println!("{EVENTS} events, idle: {took:?}");
    assert_eq!((&idle["status"], reasons(&idle).as_str()), (&json!("healthy"), "[]"), "{idle}");
    assert_eq!(lags(&app, &idle), [0, 0].map(Value::from), "{idle}");
    assert!(took < PAGE, "{took:?}");
    let begun = Instant::now();
    let status = app.wallex(&["projections", "status"]);
    assert!(status.status.success());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_postgres_does_not_finish_is_a_reason_and_never_healthy() {
    let app = Setup::shared().start().await;
    app.open("w", "5").await;
    app.drain().await;
    for (table, what, field) in [
        ("outbox_batches", "the outbox's backlog is not known", "/publisher/unprocessedEvents"),
        ("projector_checkpoints", "the projections' lag is not known", ""),
    ] {
        let mut held = app.pool.begin().await.unwrap();
        let lock = format!("lock table {table} in access exclusive mode");
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *held).await.unwrap();
        let begun = Instant::now();
        let page = app.get("/health/kafka").await.json();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(page["status"], "degraded", "{table}: {page}");
        assert!(reasons(&page).contains(what), "{table}: {page}");
        if field.is_empty() {
            assert_eq!(lags(&app, &page), [Value::Null, Value::Null], "{page}");
        } else {
            assert_eq!(page.pointer(field), Some(&Value::Null), "{page}");
        }
        held.rollback().await.unwrap();
        eventually("all is well again", PATIENCE, async || {
            let page = app.get("/health/kafka").await.json();
            (page["status"] == "healthy" && reasons(&page) == "[]").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_is_counted_no_further_than_it_helps() {
    let app = Setup::shared().with("PROJECTOR_FEEDS", "outbox").start().await;
    app.open("w", "5").await;
    app.drain().await;
    // As after requests that came one at a time: each event has a row of its own.
    let rows = "insert into outbox_batches (tenant_id, topic, partition, created_at, wallets, versions) \
        select 'default', 'another-topic', g % 10, now() - interval '90 s', '{nobody}', array[g] \
        from generate_series(1, 150000) g";
    sqlx::query(rows).execute(&app.pool).await.unwrap();
    let (page, took) = page(&app, "/health/kafka").await;
    println!("150,000 rows wait: {took:?}");
    let publisher = &page["publisher"];
    assert_eq!(
        (&publisher["unprocessedEvents"], &publisher["more"]),
        (&json!(100_000), &json!(true))
    );
    assert!(publisher["lagMs"].as_i64() >= Some(90_000), "{page}");
    assert_eq!(page["status"], "degraded", "{page}");
    assert!(reasons(&page).contains("the oldest event waits for Kafka for"), "{page}");
    assert!(took < Duration::from_millis(250), "{took:?}");
}
