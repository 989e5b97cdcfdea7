//! A wallet's totals. (Reported of ledgers: "the summary of a busy account takes seconds, and so does
//! everything else while it runs".) They are kept with the projection, and are what its entries sum to.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::app::{App, Setup};
use crate::support::load::{Load, Plan};

/// Every wallet's summary, byte for byte.
async fn summaries(app: &App) -> Vec<String> {
    let ids: Vec<String> = sqlx::query_scalar("select id from wallets order by id")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    let mut all = Vec::new();
    for id in ids {
        let answer = app.get(&format!("/ledger/wallet/{id}/summary")).await;
        assert_eq!(answer.status, 200);
        all.push(answer.text);
    }
    all
}

/// Wallets whose totals are not those of their version.
async fn late(pool: &PgPool) -> i64 {
    let late = "select count(*) from projected_versions \
        where projector = 'ledger-projector' and totals_at is distinct from version";
    sqlx::query_scalar(late).fetch_one(pool).await.unwrap()
}

async fn run(pool: &PgPool, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_the_sums_of_the_entries_whatever_was_done_to_them() {
    let app = Setup::without_kafka().start().await;
    let plan = || Plan { wallets: 8, workers: 4, ..Plan::default() };
    let load = Load::start(&[&app.base], plan()).await;
    load.advance(300).await;
    load.settle().await;
    app.drain().await;
    app.assert_reconciled();
    assert_eq!(late(&app.pool).await, 0);
    let kept = summaries(&app).await;

    // Without totals they are added up, and the answers are the same to the byte.
    let forget = "update projected_wallets set totals_at = null, total_credits = null, \
        total_debits = null, transaction_count = null where projector = 'ledger-projector'";
    run(&app.pool, forget).await;
    assert_eq!(summaries(&app).await, kept);
    // The next event of a wallet has them worked out.
    let ids: Vec<String> =
        sqlx::query_scalar("select id from wallets").fetch_all(&app.pool).await.unwrap();
    for id in &ids {
        let credited = app.post(&format!("/wallets/{id}/credit"), json!({"amount": "0.01"})).await;
        assert_eq!(credited.status, 201);
    }
    app.drain().await;
    assert_eq!(late(&app.pool).await, 0);
    app.assert_reconciled();

    // An instance of an earlier version moves the version alone.
    let before = summaries(&app).await;
    run(
        &app.pool,
        "create function earlier() returns trigger language plpgsql as $$ begin \
             new.totals_at := old.totals_at; new.total_credits := old.total_credits; \
             new.total_debits := old.total_debits; \
             new.transaction_count := old.transaction_count; return new; end $$; \
         create trigger earlier before update on projected_wallets \
             for each row execute function earlier()",
    )
    .await;
    let load = Load::start(&[&app.base], plan()).await;
    load.advance(100).await;
    load.settle().await;
    app.drain().await;
    assert!(late(&app.pool).await > 0);
    let stale = summaries(&app).await;
    assert_ne!(stale, before);
    app.assert_reconciled();
    run(&app.pool, "drop trigger earlier on projected_wallets").await;
    run(&app.pool, forget).await;
    assert_eq!(summaries(&app).await, stale);

    // A projection made anew has them.
    let rebuilt = app.wallex(&["projections", "rebuild", "ledger", "--yes"]);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    assert_eq!((late(&app.pool).await, summaries(&app).await == stale), (0, true));
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_of_a_wallet_with_a_long_history_is_read_in_constant_time() {
    const ENTRIES: i64 = 300_000;
    let app = Setup::without_kafka().start().await;
    app.open("long", "1").await;
    app.drain().await;
    let sql = format!(
        "insert into postings (tenant_id, wallet_id, version, id, event_id, transaction_id, \
             created_at, transaction_type, side, amount, currency, counter_account, balance_before, \
             balance_after, reference_id) \
         select 'default', 'long', v, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), \
             now(), 'CREDIT', 'CREDIT', 1.5, 'USD', 'external', 0, 1, 'r' \
         from generate_series(3, {ENTRIES}) v; \
         update projected_wallets set version = {ENTRIES}, totals_at = {ENTRIES}, \
             total_credits = 1 + ({ENTRIES} - 2) * 1.5, transaction_count = {ENTRIES} - 1 \
         where projector = 'ledger-projector'; analyze postings"
    );
    run(&app.pool, sql).await;
    let mut best = Duration::MAX;
    for _ in 0..12 {
        let begun = Instant::now();
        let answer = app.get("/ledger/wallet/long/summary").await;
        best = best.min(begun.elapsed());
        let page = answer.json();
        assert_eq!(page["transactionCount"], ENTRIES - 1, "{page}");
        assert_eq!(page["totalCredits"], "449998.00", "{page}");
    }
    println!("{ENTRIES} entries: {best:?}");
    assert!(best < Duration::from_millis(20), "{best:?}");
}
