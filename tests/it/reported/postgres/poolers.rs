//! PgBouncer between the service and PostgreSQL. By transactions and by statements its clients get one
//! session by turns: the service was never ready ("prepared statement already exists"), or, where
//! that went well, had none of its time limits and left its role to others. By sessions it works.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::app::{App, Setup};
use crate::support::pgbouncer::PgBouncer;
use crate::support::{eventually, servers};

/// As people set it to get connections at all: what the service says at start-up is dropped.
const IGNORING: &str = "ignore_startup_parameters = extra_float_digits,options";
const REASON: &str = "behind a pooler that gives one session to several clients by turns";

/// The service's database is there, and migrated; it is not started.
async fn migrated() -> (App, String) {
    let mut app = Setup::without_kafka().start().await;
    assert!(app.stop().success());
    let name = sqlx::query_scalar("select current_database()::text");
    let name = name.fetch_one(&app.pool).await.unwrap();
    (app, name)
}

/// What the process says as it ends, in time and with an error.
async fn refused(app: &mut App) -> String {
    app.spawn();
    let ended = eventually("the service ends", Duration::from_secs(20), async || app.ended()).await;
    assert!(!ended.success(), "{ended}");
    app.log_text()
}

/// Nobody after the service finds what it told a session.
async fn assert_untouched(pooler: &PgBouncer, database: &str) {
    let mut client = pooler.client(database).await;
    let asked = "select current_user::text, current_setting('lock_timeout'), \
         current_setting('enable_seqscan'), \
         (select count(*) from pg_locks l join pg_database d on d.oid = l.database \
            where l.locktype = 'advisory' and d.datname = current_database())";
    let row: (String, String, String, i64) =
        sqlx::query_as(asked).persistent(false).fetch_one(&mut client).await.unwrap();
    assert_eq!(row, ("postgres".to_owned(), "0".to_owned(), "on".to_owned(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_by_transactions_or_statements_is_refused_by_name_at_the_start() {
    let postgres = servers::postgres();
    let (mut app, database) = migrated().await;
    for mode in ["transaction", "statement"] {
        for more in [IGNORING, "default_pool_size = 1", "server_round_robin = 1"] {
            let pooler = PgBouncer::start(postgres, mode, more);
            app.set("DATABASE_URL", pooler.url_of(&database));
            app.forget_log();
            let said = refused(&mut app).await;
            assert!(said.contains(REASON) && said.contains("pool_mode = session"), "{said}");
            assert_untouched(&pooler, &database).await;
            for command in [&["migrate"][..], &["reconcile"], &["dlq", "list"]] {
                let output = app.wallex(command);
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(!output.status.success() && said.contains(REASON), "{command:?} {said}");
            }
            assert_untouched(&pooler, &database).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_by_transactions_is_told_apart_while_others_use_it_too_and_when_it_comes_later() {
    let (mut app, database) = migrated().await;
    let more = format!("{IGNORING}\ndefault_pool_size = 4");
    let mut pooler = PgBouncer::stopped(servers::postgres(), "transaction", &more);
    app.set("DATABASE_URL", pooler.url_of(&database));
    app.forget_log();
    // It starts without its database, as it does without Postgres.
    app.spawn();
    eventually("it listens", Duration::from_secs(20), async || {
        app.client.get(format!("{}/livez", app.base)).send().await.ok()
    })
    .await;
    pooler.restart();
    let mut others = JoinSet::new();
    for _ in 0..6 {
        let mut client = pooler.client(&database).await;
        others.spawn(async move {
            loop {
                let asked = sqlx::raw_sql("begin; select pg_sleep(0.001); commit");
                asked.execute(&mut client).await.unwrap();
            }
        });
    }
    let ended = eventually("the service ends", Duration::from_secs(20), async || app.ended()).await;
    assert!(!ended.success() && app.log_text().contains(REASON), "{}", app.log_text());
    // And while they go on, however often it is tried.
    for _ in 0..5 {
        app.forget_log();
        let said = refused(&mut app).await;
        assert!(said.contains(REASON), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_by_sessions_works_as_it_is_with_all_guarantees() {
    let postgres = servers::own_postgres();
    let pooler = PgBouncer::start(&postgres, "session", "default_pool_size = 60");
    let app = Setup::on(&postgres, Some(servers::kafka())).through(pooler.port).start().await;
    let mut second = app.second_instance().await;
    app.open("w", "1.00").await;
    for number in 0..40 {
        let app = if number % 2 == 0 { &app } else { &second };
        let done = app.post("/wallets/w/credit", json!({"amount": "1.00"})).await;
        assert_eq!(done.status, 201, "{}", done.text);
    }
    app.drain().await;
    app.assert_reconciled();
    let database = app.get("/health/kafka/stats").await.json()["database"].clone();
    assert_eq!(database["role"], "wallex_app", "{database}");
    assert_eq!(database["booksProtected"], true, "{database}");
    let limits: Vec<String> = sqlx::query_scalar(
        "select count(*)::text from pg_stat_activity where application_name = 'wallex-listener'",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert_eq!(limits, ["2"], "both instances listen");
    // A session that goes back to the pooler is nobody's any more.
    assert!(second.stop().success());
    let database: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(&app.pool).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = pooler.client(&database).await;
        let row: (String, String) =
            sqlx::query_as("select current_user::text, current_setting('lock_timeout')")
                .fetch_one(&mut client)
                .await
                .unwrap();
        assert_eq!(row, ("postgres".to_owned(), "0".to_owned()));
        clients.push(client);
    }
}
