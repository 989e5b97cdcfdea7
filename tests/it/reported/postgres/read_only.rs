//! Nothing can be written for a while: a provider made the database read-only when its disk was full, or
//! the server is a standby. Sessions that were opened meanwhile stay read-only for ever: commands
//! recovered, but publisher and projectors kept theirs, and readiness had said yes all along.

use std::time::{Duration, Instant};

use serde_json::json;
use wallex::cli::dev::postgres::Postgres;

use crate::support::app::{App, Setup};
use crate::support::{eventually, servers};

/// Commands that are told to come again, for as long as that.
async fn assert_told_to_wait(app: &App, lasts: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        let answer = app.post("/wallets/w/credit", json!({"amount": "1.00"})).await;
        let told = !answer.header("retry-after").is_empty();
        assert!(answer.status == 503 && told, "{} {}", answer.status, answer.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Readiness, load balancers and metrics say it, and reads go on.
async fn assert_shown(app: &App, why: &str) {
    eventually("not ready", Duration::from_secs(5), async || {
        let ready = app.get("/readyz").await;
        (ready.status == 503 && ready.text.contains(why)).then_some(())
    })
    .await;
    let health = app.get("/api/health").await;
    assert!(health.status == 503 && health.text.contains(why), "{}", health.text);
    let database = app.get("/health/kafka/stats").await.json()["database"].clone();
    assert_eq!(database["writable"], false, "{database}");
    assert_eq!(app.get("/wallets/w").await.status, 200);
    eventually("the metric", Duration::from_secs(15), async || {
        app.get("/metrics")
            .await
            .text
            .lines()
            .any(|line| line == "database_writable 0")
            .then_some(())
    })
    .await;
}

/// Within half a minute all is as before: ready, taken, published, projected.
async fn assert_back(app: &App) {
    let begun = Instant::now();
    eventually("all is back", Duration::from_secs(30), async || {
        let ready = app.client.get(format!("{}/readyz", app.base)).send().await.ok()?;
        let done = app.post("/wallets/w/credit", json!({"amount": "1.00"})).await;
        let behind: bool = sqlx::query_scalar(
            "select exists (select from outbox where processed_at is null) or exists \
                (select from wallets w cross join (values ('ledger-projector'), \
                    ('read-model-projector')) p(name) \
                 left join projected_versions v on v.wallet_id = w.id and v.projector = p.name \
                 where w.version > coalesce(v.version, 0) + 1)",
        )
        .fetch_one(&app.pool)
        .await
        .ok()?;
        (ready.status() == 200 && done.status == 201 && !behind).then_some(())
    })
    .await;
    println!("back after {:?}", begun.elapsed());
    app.drain().await;
    app.assert_reconciled();
}

/// Switches it on, ends the sessions there were, waits, and takes it back.
async fn spell(postgres: &Postgres, app: &App, on: &[String], off: &[String]) {
    app.drain().await;
    on.iter().for_each(|statement| drop(postgres.psql(statement).unwrap()));
    let ended = "select pg_terminate_backend(pid) from pg_stat_activity \
         where application_name like 'wallex%'";
    postgres.psql(ended).unwrap();
    assert_shown(app, "default_transaction_read_only is on").await;
    assert_told_to_wait(app, Duration::from_secs(8)).await;
    off.iter().for_each(|statement| drop(postgres.psql(statement).unwrap()));
    assert_back(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_read_only_spell_everything_is_back_and_it_was_not_ready_meanwhile() {
    let postgres = servers::own_postgres();
    let app = Setup::on(&postgres, Some(servers::kafka())).start().await;
    app.open("w", "1.00").await;
    let name: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(&app.pool).await.unwrap();
    let database = format!("alter database {name}");
    spell(
        &postgres,
        &app,
        &[format!("{database} set default_transaction_read_only = on")],
        &[format!("{database} reset default_transaction_read_only")],
    )
    .await;
    let reload = "select pg_reload_conf()".to_owned();
    spell(
        &postgres,
        &app,
        &["alter system set default_transaction_read_only = on".to_owned(), reload.clone()],
        &["alter system reset default_transaction_read_only".to_owned(), reload],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_standby_it_is_not_ready_and_after_its_promotion_it_goes_on() {
    let mut primary = servers::own_postgres();
    let mut app = Setup::on(&primary, Some(servers::kafka())).start().await;
    app.open("w", "1.00").await;
    app.drain().await;
    let name: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(&app.pool).await.unwrap();
    assert!(app.stop().success());
    app.pool.close().await;
    let standby = servers::standby_of(&mut primary);
    app.set("DATABASE_URL", standby.url_of(&name));
    app.pool = sqlx::PgPool::connect_lazy(&standby.url_of(&name)).unwrap();
    app.spawn();
    eventually("it listens", Duration::from_secs(20), async || {
        app.client.get(format!("{}/livez", app.base)).send().await.ok()
    })
    .await;
    assert_shown(&app, "the server is a standby").await;
    assert_told_to_wait(&app, Duration::from_secs(2)).await;
    standby.psql("select pg_promote()").unwrap();
    assert_back(&app).await;
}
