//! The schema is brought up to date beside sessions that use it, and beside other releases.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::Connection as _;

use crate::projectors::books::Books;
use crate::support::app::Setup;
use crate::support::eventually;
use wallex::config::{DatabaseSettings, Secret};
use wallex::store;

const PATIENCE: Duration = Duration::from_secs(60);
/// Takes a migration back that gave a table its last columns.
const TAKEN_BACK: &str = "delete from _sqlx_migrations where version = 22; \
    alter table group_offsets drop column unanswered, drop column unanswered_at";

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_a_lock_lets_commands_go_on() {
    let books = Books::open().await;
    sqlx::raw_sql(TAKEN_BACK).execute(&books.pool).await.unwrap();
    let mut dump = books.pool.begin().await.unwrap();
    sqlx::query("select from group_offsets").execute(&mut *dump).await.unwrap();
    let url = Secret::new(books.url().to_owned());
    let settings = DatabaseSettings { url: url.clone(), migration_url: url, max_connections: 10 };
    let (done, told) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let migrate = async {
        let migrate = store::migrate(&settings, |text| told.lock().unwrap().push(text.to_owned()));
        let migrated = tokio::time::timeout(PATIENCE, migrate).await.unwrap();
        done.store(true, Ordering::Relaxed);
        migrated.unwrap();
    };
    let others = async {
        let mut other = sqlx::PgConnection::connect(books.url()).await.unwrap();
        // Two attempts, at least: a statement behind one waits no longer than its lock timeout.
        let begun = Instant::now();
        let mut longest = Duration::ZERO;
        while begun.elapsed() < Duration::from_secs(6) {
            let asked = Instant::now();
            sqlx::query("select from group_offsets").execute(&mut other).await.unwrap();
            longest = longest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(longest > Duration::from_millis(500), "none waited: no attempt, {longest:?}");
        assert!(longest < Duration::from_secs(4), "{longest:?}");
        assert!(!done.load(Ordering::Relaxed), "it cannot have its lock");
        dump.rollback().await.unwrap();
    };
    tokio::join!(migrate, others);
    let told = told.into_inner().unwrap();
    assert!(told.len() >= 2 && told[0].contains("waits for a lock of another session"), "{told:?}");
    assert_eq!(books.count("select count(unanswered) from group_offsets").await, 0);
}

/// Takes the last of this build's migrations that added a table back.
const TABLE_TAKEN_BACK: &str = "delete from _sqlx_migrations where description = 'schema compatibility'; \
    drop table schema_compatibility";

#[tokio::test(flavor = "multi_thread")]
async fn on_a_schema_of_an_earlier_release_commands_say_what_to_run() {
    let mut app = Setup::without_kafka().migrated();
    sqlx::raw_sql(TABLE_TAKEN_BACK).execute(&app.pool).await.unwrap();
    app.spawn();
    let wanted = "1 migrations are missing: run `wallex migrate`";
    eventually("an answer", PATIENCE, async || {
        let answer = app.client.get(format!("{}/readyz", app.base)).send().await.ok()?;
        assert_eq!(answer.status(), 503);
        answer.text().await.ok().filter(|text| text.contains(wanted)).map(drop)
    })
    .await;
    let health = app.get("/api/health").await;
    assert!(health.status == 503 && health.text.contains(wanted), "{}", health.text);
    let refused = app.post("/wallets", json!({"walletId": "w", "ownerId": "o"})).await;
    assert_eq!((refused.status, refused.code()), (503, "database_unavailable".to_owned()));
    assert!(refused.text.contains("run `wallex migrate`"), "{}", refused.text);
    let migrated = app.wallex(&["migrate"]);
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    eventually("a command is taken", PATIENCE, async || {
        (app.post("/wallets", json!({"walletId": "w", "ownerId": "o"})).await.status == 201)
            .then_some(())
    })
    .await;
    assert_eq!(app.get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_needs_a_later_build_is_refused_by_name() {
    let mut app = Setup::without_kafka().start().await;
    let later = "update schema_compatibility set min_build = 99999";
    sqlx::query(later).execute(&app.pool).await.unwrap();
    let ready = app.get("/readyz").await;
    assert!(ready.status == 503 && ready.text.contains("migration 99999"), "{}", ready.text);
    app.stop();
    app.forget_log();
    app.spawn();
    eventually("its end", PATIENCE, async || app.exited()).await;
    let text = app.log_text();
    assert!(text.contains("it needs a build that knows migration 99999"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_a_later_release_is_served_and_migrated_by_an_earlier_one() {
    let app = Setup::without_kafka().start().await;
    let later = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values (99999, 'of a later release', true, '\\x00', 1)";
    sqlx::query(later).execute(&app.pool).await.unwrap();
    let migrated = app.wallex(&["migrate"]);
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    eventually("readiness", PATIENCE, async || {
        (app.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    app.open("w", "1").await;
}
