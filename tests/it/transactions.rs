//! Transactions by their ids: known from their answer on, to every instance, however many there are.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use crate::support::app::{Answer, App, Setup};
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(30);
/// Events beside those that are looked for.
const ROWS: i64 = 300_000;

async fn moved(app: &App, path: &str, body: Value) -> String {
    let answer = app.post(path, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let answer = answer.json();
    let id = answer["transactionId"].as_str().or(answer["transferId"].as_str());
    id.unwrap().to_owned()
}

async fn shown(app: &App, id: &str) -> Value {
    let answer = app.get(&format!("/transactions/{id}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_transaction_says_what_it_did() {
    let app = Setup::without_kafka().start().await;
    app.open("a", "10.00").await;
    app.open("b", "0").await;
    let body = json!({"amount": "2.5", "description": "rent", "reference": "r-1", "metadata": {"n": 1.10}});
    let debit = moved(&app, "/wallets/a/debit", body).await;
    let transfer =
        moved(&app, "/wallets/a/transfer", json!({"toWalletId": "b", "amount": 3})).await;

    let seen = shown(&app, &debit).await;
    assert_eq!(
        (&seen["id"], &seen["kind"], &seen["status"]),
        (&json!(debit), &json!("debit"), &json!("posted"))
    );
    assert_eq!((&seen["amount"], &seen["reversedAmount"]), (&json!("2.50"), &json!("0.00")));
    assert_eq!((&seen["description"], &seen["reference"]), (&json!("rent"), &json!("r-1")));
    assert_eq!(seen["metadata"], json!({"n": 1.1}));
    assert_eq!(seen["legs"].as_array().map(Vec::len), Some(1));
    let leg = &seen["legs"][0];
    assert_eq!((&leg["walletId"], &leg["direction"]), (&json!("a"), &json!("DEBIT")));
    assert_eq!(
        (&leg["counterAccount"], &leg["balanceAfter"]),
        (&json!("external"), &json!("7.50"))
    );

    let seen = shown(&app, &transfer).await;
    assert_eq!((&seen["kind"], &seen["amount"]), (&json!("transfer"), &json!("3.00")));
    let legs: Vec<_> =
        seen["legs"].as_array().unwrap().iter().map(|leg| &leg["transactionType"]).collect();
    assert_eq!(legs, ["TRANSFER_OUT", "TRANSFER_IN"]);
    let events: Vec<_> =
        seen["events"].as_array().unwrap().iter().map(|of| &of["eventType"]).collect();
    assert_eq!(events, ["WalletTransferInitiated", "WalletTransferCompleted"]);

    // A creation's id is in its events.
    let events = app.get("/wallets/a/events").await.json();
    let created = events["events"][1]["data"]["transactionId"].as_str().unwrap().to_owned();
    let seen = shown(&app, &created).await;
    assert_eq!((&seen["kind"], &seen["amount"]), (&json!("creation"), &json!("10.00")));
    assert_eq!(seen["events"].as_array().map(Vec::len), Some(2));
    let events = app.get("/wallets/b/events").await.json();
    let created = events["events"][0]["data"]["transactionId"].as_str().unwrap().to_owned();
    let seen = shown(&app, &created).await;
    assert_eq!((&seen["amount"], &seen["legs"]), (&json!("0.00"), &json!([])));

    for (id, status, code) in [
        (Uuid::nil().to_string(), 404, "transaction_not_found"),
        (Uuid::now_v7().to_string(), 404, "transaction_not_found"),
        ("ffffffff-ffff-7fff-bfff-ffffffffffff".to_owned(), 404, "transaction_not_found"),
        ("debit-1".to_owned(), 400, "invalid_id"),
    ] {
        let answer = app.get(&format!("/transactions/{id}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_known_to_another_instance_from_its_answer_on() {
    let app = Setup::without_kafka().start().await;
    let other = app.second_instance().await;
    app.open("w", "0").await;
    for n in 0..200 {
        let (here, there) = if n % 2 == 0 { (&app, &other) } else { (&other, &app) };
        let id = moved(here, "/wallets/w/credit", json!({"amount": 1})).await;
        assert_eq!(shown(there, &id).await["amount"], "1.00");
    }
}

/// Events of other wallets, whose transactions' ids ascend as those of commands do.
async fn fill(app: &App) {
    let sql = format!(
        "insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, \
             transaction_id, partition, created_at) \
         select 'default', 'f' || g % 1000, 1 + g / 1000, gen_random_uuid(), 'WalletCredited', \
             ('{{\"padding\":\"' || repeat('x', 300) || '\"}}')::json, \
             (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' \
                 || substr(md5(g::text), 1, 3) || '8' || substr(md5(g::text), 4, 15))::uuid, 0, at \
         from (select g, now() - interval '1 day' + g * interval '100 ms' as at \
             from generate_series(1, {ROWS}) g) rows"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&app.pool).await.unwrap();
}

/// Blocks that one look-up reads as the service makes it, and what it took Postgres.
async fn blocks_of(app: &App, id: &str) -> (i64, f64) {
    let mut session = app.pool.acquire().await.unwrap();
    let sql = format!(
        "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
         set role wallex_app; select set_config('wallex.tenant', 'default', false); \
         prepare look(text, uuid, timestamptz, timestamptz) as select e.* from (select tenant_id, \
             wallet_id, version, event_id, payload::text as payload, created_at from events \
             where transaction_id = $2 and created_at >= $3 and created_at < $4 offset 0) e \
             where e.tenant_id = $1 order by e.event_id; \
         explain execute look('default', '{id}', '1970-01-01', '9999-01-01')"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *session).await.unwrap();
    let sql = format!(
        "explain (analyze, buffers, format json) \
             execute look('default', '{id}', '1970-01-01', '9999-01-01')"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut *session).await.unwrap();
    let text = row.try_get_raw(0).unwrap().as_str().unwrap().to_owned();
    let said: Value = serde_json::from_str(&text).unwrap();
    sqlx::raw_sql("reset all; reset role; deallocate all").execute(&mut *session).await.unwrap();
    let plan = &said[0]["Plan"];
    assert!(plan.to_string().contains("Bitmap Index Scan"), "{plan}");
    let blocks = |name: &str| plan[name].as_i64().unwrap();
    let took = said[0]["Execution Time"].as_f64().unwrap();
    (blocks("Shared Hit Blocks") + blocks("Shared Read Blocks"), took)
}

#[tokio::test(flavor = "multi_thread")]
async fn among_many_events_a_look_up_reads_few_of_their_pages() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "0").await;
    let first = moved(&app, "/wallets/w/credit", json!({"amount": 1})).await;
    fill(&app).await;
    let last = moved(&app, "/wallets/w/credit", json!({"amount": 1})).await;
    let pages: i64 = sqlx::query_scalar(
        "select (pg_relation_size('events') + coalesce((select sum(pg_relation_size(relid)) \
             from pg_partition_tree('events')), 0)::bigint) / 8192",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert!(pages > 10_000, "{pages}");
    // What is not summarized is read: both are found before and after.
    assert_eq!(shown(&app, &last).await["amount"], "1.00");
    let blocks = eventually("the index is summarized", PATIENCE, async || {
        let (blocks, took) = blocks_of(&app, &first).await;
        (blocks < 300).then_some((blocks, took))
    })
    .await;
    println!("{pages} pages of events; pages read for one transaction, and ms: {blocks:?}");
    let mut took = Vec::new();
    for id in [&first, &last].repeat(50) {
        let begun = Instant::now();
        assert_eq!(shown(&app, id).await["amount"], "1.00");
        took.push(begun.elapsed());
    }
    took.sort();
    println!("look-ups: median {:?}, p99 {:?}", took[50], took[98]);
    // Through the service's own sessions, too.
    eventually("the index was used each time", PATIENCE, async || {
        let through: i64 = sqlx::query_scalar(
            "select coalesce(max(idx_scan), 0) from pg_stat_user_indexes \
             where pg_get_indexdef(indexrelid) like '%brin (transaction_id)%'",
        )
        .fetch_one(&app.pool)
        .await
        .unwrap();
        (through >= 100).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_the_index_waits_for_nobody_and_holds_nobody_up() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "0").await;
    // As an autovacuum that is at work, or a backup's lock.
    let mut other = app.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table events in share update exclusive mode")
        .execute(&mut *other)
        .await
        .unwrap();
    fill(&app).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let id = moved(&app, "/wallets/w/credit", json!({"amount": 1})).await;
    assert_eq!(shown(&app, &id).await["amount"], "1.00");
    other.rollback().await.unwrap();
    eventually("the index is summarized after it", PATIENCE, async || {
        (blocks_of(&app, &id).await.0 < 300).then_some(())
    })
    .await;
    assert!(!app.log_text().contains("transaction index"), "no failure is said");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_a_transaction_has_no_body() {
    let app = Setup::without_kafka().start().await;
    let path = format!("/transactions/{}", Uuid::nil());
    let answer = Answer::of(app.request(Method::HEAD, &path).send().await.unwrap()).await;
    assert_eq!((answer.status, answer.text.as_str()), (404, ""));
}
