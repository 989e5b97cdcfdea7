//! An event that Postgres will not take: its wallet waits, whatever the error's code, and no other.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use wallex::config::{DatabaseSettings, Secret};
use wallex::projector::rebuild::Rebuild;
use wallex::projector::{Projection, Projector};
use wallex::store;

use super::dlq;
use crate::projectors::books::{Books, TOPIC, Topic, create, credit, some_history};
use crate::support::app::{App, Setup};
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(30);

/// Has a table refuse the rows of one wallet with this SQLSTATE, which stands in `state`.
async fn refuse(pool: &sqlx::PgPool, wallet: &str, state: &str, deferred: bool) {
    let (kind, when) = match deferred {
        true => ("constraint trigger", "after insert on postings deferrable initially deferred"),
        false => ("trigger", "before insert on postings"),
    };
    let sql = format!(
        "create function refuse() returns trigger language plpgsql as $$ begin \
             if new.wallet_id = '{wallet}' then \
                 raise exception 'not this wallet' using errcode = '{state}'; end if; \
             return new; end $$; \
         create {kind} refuse {when} for each row execute function refuse()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

async fn allow(pool: &sqlx::PgPool) {
    sqlx::raw_sql("drop function refuse cascade").execute(pool).await.unwrap();
}

/// Steps for as long as there is something to do or something fails; how often it failed.
async fn settle(projector: &mut Projector) -> usize {
    let (mut failed, mut idle) = (0, 0);
    while idle < 20 {
        match projector.step().await {
            Ok(progress) if progress.chunks > 0 => idle = 0,
            Ok(_) => idle += 1,
            Err(_) => {
                failed += 1;
                assert!(failed < 10, "it does not go on");
                idle = 0;
            }
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    failed
}

/// Wallets whose ledger lacks something.
const BEHIND: &str = "select count(*) from wallets w where version > coalesce((select version from \
     projected_versions v where v.wallet_id = w.id and projector = 'ledger-projector'), 0)";

async fn parked(books: &Books) -> Vec<(String, i64)> {
    sqlx::query_as("select wallet_id, version from parked_wallets order by wallet_id")
        .fetch_all(&books.pool)
        .await
        .unwrap()
}

fn database(books: &Books) -> DatabaseSettings {
    let url = Secret::new(books.url());
    DatabaseSettings { url: url.clone(), migration_url: url, max_connections: 10 }
}

/// Wallets that have entries.
async fn entered(app: &App) -> i64 {
    let sql = "select count(distinct wallet_id) from ledger_entries where wallet_id is not null";
    sqlx::query_scalar(sql).fetch_one(&app.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_trigger_refuses_parks_its_wallet_and_all_others_go_on() {
    let app = Setup::shared().start().await;
    app.open("guilty", "0").await;
    app.drain().await;
    refuse(&app.pool, "guilty", "P0001", false).await;
    app.post("/wallets/guilty/credit", json!({"amount": "1.00"})).await;
    for n in 0..30 {
        app.open(&format!("w{n}"), "10.00").await;
    }
    eventually("30 other wallets have entries", Duration::from_secs(10), async || {
        (entered(&app).await == 30).then_some(())
    })
    .await;
    let parked = eventually("the wallet is parked", PATIENCE, async || {
        let list = dlq(&app, &["list", "--cause", "parked"]);
        list["parkedWallets"].as_array().filter(|all| !all.is_empty()).cloned()
    })
    .await;
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert_eq!((&parked[0]["walletId"], &parked[0]["version"]), (&json!("guilty"), &json!(2)));
    let cause = parked[0]["cause"].as_str().unwrap();
    assert!(cause.contains("P0001") && cause.contains("not this wallet"), "{cause}");
    let metrics = app.get("/metrics").await.text;
    let counted = metrics.lines().find(|line| {
        line.starts_with("wallets_parked_total") && line.contains("P0") && line.ends_with(" 1")
    });
    assert!(counted.is_some(), "{metrics}");
    eventually("the page says that all is well again", PATIENCE, async || {
        let page = app.get("/health/kafka").await.json();
        (page["status"] == "healthy").then_some(())
    })
    .await;
    let log = app.log_text();
    assert!(log.contains("wallet parked"), "{log}");

    // Tried again while it is still refused, it waits on, and the others flow.
    let again = app.wallex(&["dlq", "replay", "--wallet", "guilty"]);
    assert_eq!(again.status.code(), Some(1), "{}", String::from_utf8_lossy(&again.stdout));
    app.open("late", "10.00").await;
    eventually("a wallet after it", Duration::from_secs(10), async || {
        (entered(&app).await == 31).then_some(())
    })
    .await;
    allow(&app.pool).await;
    let mended = app.wallex(&["dlq", "replay", "--wallet", "guilty"]);
    assert!(mended.status.success(), "{}", String::from_utf8_lossy(&mended.stdout));
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_code_of_the_error_only_the_guilty_wallet_waits() {
    // User code, rights, data, conflicts that never pass, time-outs, full disks, broken pages.
    for state in ["P0001", "42501", "23514", "22012", "40001", "57014", "53100", "55000", "XX001"] {
        let mut books = Books::open().await;
        books.write(&some_history()).await;
        refuse(&books.pool, "w7", state, false).await;
        let mut ledger = books.projector(Projection::LEDGER, 500, None);
        settle(&mut ledger).await;
        assert_eq!(parked(&books).await, [("w7".to_owned(), 2)], "{state}");
        allow(&books.pool).await;
        let now = "update parked_wallets set next_retry_at = clock_timestamp()";
        sqlx::raw_sql(now).execute(&books.pool).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        settle(&mut ledger).await;
        books.project(Projection::READ_MODEL).await;
        books.assert_clean().await;
        assert_eq!(books.count("select count(*) from parked_wallets").await, 0, "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_at_the_commit_parks_its_wallet_from_either_feed() {
    for from_topic in [false, true] {
        let mut books = Books::open().await;
        books.write(&some_history()).await;
        refuse(&books.pool, "w7", "P0001", true).await;
        if from_topic {
            let topic = Topic::new();
            books.publish(&topic);
            books.follow(Projection::LEDGER, &topic, 50).await;
        } else {
            settle(&mut books.projector(Projection::LEDGER, 500, None)).await;
        }
        assert_eq!(parked(&books).await, [("w7".to_owned(), 2)]);
        assert_eq!(books.count(BEHIND).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_the_books_that_cannot_be_read_at_all_parks_its_wallet() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    let topic = Topic::new();
    books.publish(&topic);
    // As where a page of the disk is damaged.
    let spoil = "create function damaged() returns json language plpgsql as $$ begin \
             raise exception 'missing chunk number 0' using errcode = 'XX001'; end $$; \
         alter table events rename to kept; create view events as select tenant_id, wallet_id, \
             version, event_id, event_type, schema_version, transaction_id, partition, commit_xid, \
             created_at, case when wallet_id = 'w3' and version = 2 then damaged() else payload end \
             as payload from kept";
    sqlx::raw_sql(spoil).execute(&books.pool).await.unwrap();
    books.follow(Projection::LEDGER, &topic, 50).await;
    assert_eq!(parked(&books).await, [("w3".to_owned(), 2)]);
    assert_eq!(books.count(BEHIND).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_wallet_that_fails_again_holds_up_nobody() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    refuse(&books.pool, "w7", "P0001", false).await;
    let mut ledger = books.projector(Projection::LEDGER, 500, None);
    settle(&mut ledger).await;
    for attempts in 2..=4 {
        let now = "update parked_wallets set next_retry_at = clock_timestamp()";
        sqlx::raw_sql(now).execute(&books.pool).await.unwrap();
        books.write(&[credit("w7", "1"), credit("w2", "1"), create("new", "USD", None)][..2]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(settle(&mut ledger).await, 0);
        let tried: i64 = books.count("select attempts::bigint from parked_wallets").await;
        assert_eq!(tried, attempts);
        assert_eq!(books.count(BEHIND).await, 1, "w7 alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_whose_row_is_held_keeps_only_itself_waiting() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    // With the time-outs that the service's sessions have.
    let settings = database(&books);
    let pools = store::Pools::new(&store::Way::new(&settings.url), &settings).unwrap();
    let owner = std::mem::replace(&mut books.pool, pools.pipeline);
    let mut lists = books.projector(Projection::READ_MODEL, 500, None);
    settle(&mut lists).await;
    let mut stranger = owner.begin().await.unwrap();
    sqlx::query("select from wallets_read_model where id = 'w7' for update")
        .execute(&mut *stranger)
        .await
        .unwrap();
    books.write(&[credit("w7", "1"), credit("w2", "1"), credit("w3", "1")]).await;
    // The first attempts wait for as long as a lock is waited for.
    assert_eq!(settle(&mut lists).await, 2);
    assert_eq!(parked(&books).await, [("w7".to_owned(), 6)]);
    stranger.rollback().await.unwrap();
    let now = "update parked_wallets set next_retry_at = clock_timestamp()";
    sqlx::raw_sql(now).execute(&books.pool).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    settle(&mut lists).await;
    books.project(Projection::LEDGER).await;
    books.assert_clean().await;
    assert!(parked(&books).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_parks_the_wallet_that_a_rule_of_the_table_refuses_and_no_other() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    let rule = "create function fits(wallet text) returns boolean language plpgsql as $$ begin \
             if wallet = 'w7' then raise exception 'not this wallet'; end if; return true; end $$; \
         alter table postings add constraint fits check (public.fits(wallet_id))";
    sqlx::raw_sql(rule).execute(&books.pool).await.unwrap();
    let owner = database(&books);
    let rebuild = Rebuild::open(&owner, TOPIC, Projection::LEDGER).await.unwrap();
    rebuild.run(&CancellationToken::new(), |_| {}).await.unwrap();
    assert_eq!(parked(&books).await, [("w7".to_owned(), 2)]);
    assert_eq!(books.count(BEHIND).await, 1);
    // One that would park everybody does not take place.
    let rule = "create or replace function fits(wallet text) returns boolean language plpgsql as $$ \
         begin raise exception 'no wallet at all'; end $$";
    sqlx::raw_sql(rule).execute(&books.pool).await.unwrap();
    let rebuild = Rebuild::open(&owner, TOPIC, Projection::LEDGER).await.unwrap();
    let refused = rebuild.run(&CancellationToken::new(), |_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("no wallet at all"), "{refused}");
    assert_eq!(parked(&books).await, [("w7".to_owned(), 2)]);
}
