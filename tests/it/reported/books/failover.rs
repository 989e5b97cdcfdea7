//! A standby that was promoted without the last commits. (Reported of outboxes and event stores beside
//! asynchronous replication: "after failover the read side shows events that are not in the store".)

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::PgPool;

use crate::support::app::Setup;
use crate::support::proxy::Proxy;
use crate::support::{eventually, servers};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_before_a_failover_and_lost_is_in_no_ledger_after_it() {
    let mut primary = servers::own_postgres();
    let proxy = Proxy::start(primary.port).await;
    let mut app = Setup::on(&primary, Some(servers::kafka())).through(proxy.port).start().await;
    app.open("w", "100").await;
    app.drain().await;
    let standby = servers::streaming_standby_of(&primary);
    let database = app.database_url.rsplit('/').next().unwrap().to_owned();
    // From here on it gets nothing any more.
    standby.psql("alter system set primary_conninfo = ''").unwrap();
    standby.psql("select pg_reload_conf()").unwrap();
    eventually("the standby is cut off", PATIENCE, async || {
        let receivers = standby.psql("select count(*) from pg_stat_wal_receiver").unwrap();
        (receivers.trim() == "0").then_some(())
    })
    .await;

    // Committed, answered, sent: and then lost.
    let answer = app.post("/wallets/w/credit", json!({"amount": "1"})).await;
    assert_eq!((answer.status, &answer.json()["version"]), (201, &json!(3)), "{}", answer.text);
    app.drain().await;
    primary.kill(Signal::SIGQUIT).unwrap();
    standby.psql("select pg_promote()").unwrap();
    proxy.lead_to(standby.port);
    proxy.cut();
    primary.stop();
    app.database_url = standby.url_of(&database);
    app.pool = PgPool::connect_lazy(&app.database_url).unwrap();

    let answer = eventually("the service works on the new primary", PATIENCE, async || {
        let answer = app.post("/wallets/w/credit", json!({"amount": "7"})).await;
        (answer.status == 201).then_some(answer)
    })
    .await;
    let answer = answer.json();
    assert_eq!((&answer["version"], &answer["balance"]), (&json!(3), &json!("107.00")), "{answer}");
    app.drain().await;
    app.assert_reconciled();
    let entries = app.get("/ledger/wallet/w").await.json();
    assert_eq!(entries["transactions"][0]["amount"], "7.00", "{entries}");
    // The record of the lost event names none of ours.
    let letters: i64 = eventually("the lost event's record is set aside", PATIENCE, async || {
        let counted = "select count(*) from dead_letters where error_class = 'unknown_event'";
        let letters: i64 = sqlx::query_scalar(counted).fetch_one(&app.pool).await.ok()?;
        (letters > 0).then_some(letters)
    })
    .await;
    assert!(letters <= 2, "one for each projector: {letters}");
    // The numbers and the cluster's identifier are those of before: nothing is to be mended.
    assert!(
        !app.log_text().contains("of another Postgres cluster"),
        "a standby is the same cluster"
    );
}
