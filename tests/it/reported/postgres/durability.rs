//! What is acknowledged is on disk, whoever switched that off; and reconnects do not storm.

use std::time::Duration;

use serde_json::json;
use sqlx::Row as _;

use crate::support::app::Setup;
use crate::support::{eventually, servers};

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_committed_with_synchronous_commit_on_whatever_the_database_has() {
    let setup = Setup::without_kafka();
    let app = setup.start().await;
    let name: String =
        sqlx::query_scalar("select current_database()").fetch_one(&app.pool).await.unwrap();
    let off = format!(
        "alter database {name} set synchronous_commit = off; \
         create function seen() returns trigger language plpgsql as $$ begin \
             insert into commits values (current_setting('synchronous_commit')); return new; end $$; \
         create table commits (how text); grant insert on commits to wallex_app; \
         create trigger seen after insert on command_batches for each row execute function seen();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(off)).execute(&app.pool).await.unwrap();
    let mut app = app;
    app.restart().await;
    app.open("w", "1.00").await;
    let how: Vec<String> =
        sqlx::query_scalar("select how from commits").fetch_all(&app.pool).await.unwrap();
    assert!(!how.is_empty() && how.iter().all(|how| how == "on"), "{how:?}");
    let stats = app.get("/health/kafka/stats").await.json();
    let warnings = stats["database"]["warnings"].to_string();
    assert!(warnings.contains("synchronous_commit is off"), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_lose_what_it_committed_is_named_at_the_start_and_on_the_health_page() {
    let postgres = servers::own_postgres_with(&[("fsync", "off"), ("full_page_writes", "off")]);
    let app = Setup::on(&postgres, None).start().await;
    let database = eventually("the database looked at", Duration::from_secs(10), async || {
        let stats = app.get("/health/kafka/stats").await.json();
        (!stats["database"].is_null()).then(|| stats["database"].clone())
    })
    .await;
    assert_eq!(database["durable"], json!(false), "{database}");
    for name in ["fsync is off", "full_page_writes is off"] {
        assert!(database["warnings"].to_string().contains(name), "{database}");
        eventually("a warning in the log", Duration::from_secs(10), async || {
            app.log_text().contains(name).then_some(())
        })
        .await;
    }
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.lines().any(|line| line == "database_durable 0"), "{metrics}");
}

/// Attempts are counted at the server's own door: a proxy that lets nothing through.
#[tokio::test(flavor = "multi_thread")]
async fn lanes_pause_between_attempts_to_connect() {
    use crate::support::proxy::Proxy;
    let postgres = servers::own_postgres();
    let proxy = Proxy::start(postgres.port).await;
    let app = Setup::on(&postgres, None).through(proxy.port).start().await;
    app.open("w", "1.00").await;
    let sessions = async |name: &str| {
        let rows = sqlx::query("select count(*) from pg_stat_activity where application_name = $1");
        rows.bind(name.to_owned()).fetch_one(&app.pool).await.unwrap().get::<i64, _>(0)
    };
    assert_eq!(sessions("wallex-lane").await, 1);
    // Nobody may log in any more: each attempt reaches the server and fails. This session is in already.
    let mut session = app.pool.acquire().await.unwrap();
    let lock = "alter role postgres nologin";
    sqlx::raw_sql(lock).execute(&mut *session).await.unwrap();
    sqlx::raw_sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'wallex%'",
    )
    .execute(&mut *session)
    .await
    .unwrap();
    let before = proxy.taken();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        let answer = app.post("/wallets/w/credit", json!({"amount": "1.00"})).await;
        let told = !answer.header("retry-after").is_empty();
        assert!(answer.status == 503 && told, "{} {}", answer.status, answer.text);
    }
    let attempts = proxy.taken() - before;
    println!("{attempts} connections in 5 s");
    // At least half a second apart once the pauses have grown, the other sessions' own beside them.
    assert!(attempts < 120, "{attempts} connections");
    sqlx::raw_sql("alter role postgres login").execute(&mut *session).await.unwrap();
    eventually("commands are taken again", Duration::from_secs(5), async || {
        let answer = app.post("/wallets/w/credit", json!({"amount": "1.00"})).await;
        (answer.status == 201).then_some(())
    })
    .await;
}
