//! A dump that is restored into another Postgres cluster brings transaction numbers of the old one. (Reported
//! of outboxes that walk by transaction number: "stops after pg_restore", "skips rows after moving to a
//! managed server".) Places by such numbers are given up, and nothing is counted by them.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;
use wallex::cli::dev::postgres::Postgres;

use crate::support::app::{App, Setup};
use crate::support::{eventually, servers, topic};

const PATIENCE: Duration = Duration::from_secs(60);
const FOREIGN: &str = "its places are of another Postgres cluster";

/// Takes transaction numbers until the cluster is far ahead of a new one.
async fn burn(pool: &PgPool) {
    let burn = "do $$ begin for i in 1..20000 loop \
        perform pg_current_xact_id(); commit; end loop; end $$";
    sqlx::raw_sql(burn).execute(pool).await.unwrap();
}

async fn credit(app: &App, wallet: &str) {
    let answer = app.post(&format!("/wallets/{wallet}/credit"), json!({"amount": "1"})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
}

/// An event that no projector has applied; the service is dead afterwards.
async fn leave_behind(app: &mut App, wallet: &str) {
    let mut held = app.pool.begin().await.unwrap();
    let lock = "lock table projected_versions in exclusive mode";
    sqlx::raw_sql(lock).execute(&mut *held).await.unwrap();
    credit(app, wallet).await;
    app.kill(Signal::SIGKILL);
    held.rollback().await.unwrap();
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The service's database, dumped into a file.
fn dump(old: &Postgres, app: &App) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut dump = Command::new(old.bin.join("pg_dump"));
    run(dump.args(["-Fc", "-d", &app.database_url, "-f"]).arg(file.path()));
    file
}

/// Restores it into a new cluster, and has the service work there from its next start on.
async fn restore(app: &mut App, file: &tempfile::NamedTempFile, fresh: &Postgres) {
    let database = app.database_url.rsplit('/').next().unwrap().to_owned();
    fresh.ensure_database(&database).unwrap();
    fresh.psql("create role wallex_app nologin").unwrap();
    let url = fresh.url_of(&database);
    let mut restore = Command::new(fresh.bin.join("pg_restore"));
    run(restore.args(["--exit-on-error", "-d", &url]).arg(file.path()));
    app.set("DATABASE_URL", &url);
    app.pool = PgPool::connect_lazy(&url).unwrap();
    app.database_url = url;
    let beyond: bool = sqlx::query_scalar(
        "select max(feed_xid::text::bigint) > pg_snapshot_xmax(pg_current_snapshot())::text::bigint \
         from projector_checkpoints",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert!(beyond, "the old cluster was not ahead of the new one");
}

fn said(app: &App, arguments: &[&str]) -> String {
    let output = app.wallex(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn lags(app: &App) -> Vec<Value> {
    let page = app.get("/health/kafka").await.json();
    ["ledger-projector", "read-model-projector"]
        .map(|name| page["consumers"][app.group(name)]["lag"].clone())
        .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restored_on_a_new_server_is_projected_without_kafka() {
    let (old, fresh) = (servers::own_postgres(), servers::own_postgres());
    let mut app = Setup::on(&old, None).start().await;
    for wallet in ["busy", "late", "idle"] {
        app.open(wallet, "100").await;
    }
    burn(&app.pool).await;
    credit(&app, "busy").await;
    app.drain().await;
    leave_behind(&mut app, "late").await;
    let file = dump(&old, &app);
    restore(&mut app, &file, &fresh).await;

    // Before anybody has mended it: no number of another cluster is shown as a lag.
    let status = said(&app, &["projections", "status"]);
    assert!(status.contains("not known how far behind") && status.contains(FOREIGN), "{status}");
    assert!(!status.contains(" 0 events behind"), "{status}");

    app.restart().await;
    credit(&app, "busy").await;
    app.drain().await;
    app.assert_reconciled();
    let status = said(&app, &["projections", "status"]);
    assert!(status.contains("ledger-projector: 0 events behind"), "{status}");
    let told = |app: &App| app.log_text().matches(FOREIGN).count();
    assert_eq!(told(&app), 2, "each projector says it once");

    // From now on it is counted by this cluster's numbers.
    let mut held = app.pool.begin().await.unwrap();
    let lock = "lock table projected_versions in exclusive mode";
    sqlx::raw_sql(lock).execute(&mut *held).await.unwrap();
    credit(&app, "idle").await;
    eventually("the lag is counted", PATIENCE, async || {
        lags(&app).await.iter().all(|lag| *lag == 1).then_some(())
    })
    .await;
    held.rollback().await.unwrap();
    app.drain().await;

    app.restart().await;
    credit(&app, "late").await;
    app.drain().await;
    assert_eq!(told(&app), 2, "it is mended once");
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_dump_restored_beside_a_topic_that_is_ahead_reaches_both_destinations() {
    let (old, fresh) = (servers::own_postgres(), servers::own_postgres());
    let bootstrap = &servers::kafka().bootstrap;
    let mut app = Setup::on(&old, Some(servers::kafka())).start().await;
    let second = format!("{}-second", app.topic);
    app.set("KAFKA_SECOND_TOPIC", &second);
    app.restart().await;
    for wallet in ["busy", "late", "idle", "ahead"] {
        app.open(wallet, "100").await;
    }
    burn(&app.pool).await;
    credit(&app, "busy").await;
    app.drain().await;
    let in_step = async |app: &App| {
        eventually("the second has all", PATIENCE, async || {
            let page = app.get("/health/kafka").await.json();
            (page["second"]["lag"] == 0).then_some(())
        })
        .await;
    };
    in_step(&app).await;
    leave_behind(&mut app, "late").await;
    let file = dump(&old, &app);
    // Both topics get events that the restored books will not have.
    app.restart().await;
    credit(&app, "ahead").await;
    app.drain().await;
    in_step(&app).await;
    app.stop();
    restore(&mut app, &file, &fresh).await;
    let status = said(&app, &["outbox", "status"]);
    assert!(status.contains("what it lacks is not known"), "{status}");

    // The feed from Postgres alone: the topic cannot help out.
    app.set("PROJECTOR_FEEDS", "outbox");
    app.restart().await;
    credit(&app, "busy").await;
    app.drain().await;
    app.assert_reconciled();
    in_step(&app).await;
    // And both feeds.
    app.stop();
    app.set("PROJECTOR_FEEDS", "kafka,outbox");
    app.restart().await;
    for wallet in ["idle", "ahead", "late"] {
        credit(&app, wallet).await;
    }
    app.drain().await;
    app.assert_reconciled();
    in_step(&app).await;
    let sent = topic::versions(bootstrap, &second).await;
    let wallets: Vec<(String, i64)> =
        sqlx::query_as("select id, version from wallets").fetch_all(&app.pool).await.unwrap();
    for (wallet, version) in wallets {
        let all: Vec<i64> = (1..=version).filter(|v| !sent[&wallet].contains(v)).collect();
        assert!(all.is_empty(), "{wallet} lacks {all:?} of {version} in {sent:?}");
    }
    for projection in ["ledger", "read-model"] {
        let told = said(&app, &["projections", "rebuild", projection, "--yes"]);
        assert!(told.contains("rebuilt from"), "{told}");
    }
    app.drain().await;
    app.assert_reconciled();
}
