//! Kafka was away for long: many rows wait, and the broker dies once more while they are sent. What waits is told
//! within the page's time, and publishing goes on within seconds of the broker's return.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sqlx::AssertSqlSafe;

use super::sized;
use crate::support::app::{App, Setup};
use crate::support::{eventually, servers, topic};

const WALLETS: i64 = 20;
/// Events of a batch.
const BATCH: i64 = 10;
/// From the broker's return on; twice as long where other tests run beside it.
const SOON: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);

/// As commands would leave them, of which the projections know nothing yet.
async fn seed(app: &App, events: i64) {
    let versions = events / WALLETS;
    let sql = format!(
        "insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, \
             transaction_id, partition, created_at) \
         select 'default', w.id, v, gen_random_uuid(), 'WalletCredited', (\
             '{{\"transactionId\":\"00000000-0000-7000-8000-000000000000\",\"previousBalance\":\"' \
             || v - 3 || '.00\",\"newBalance\":\"' || v - 2 || '.00\",\"changeAmount\":\"1.00\",\
             \"changeType\":\"CREDIT\",\"reason\":null,\"currency\":\"USD\",\"reference\":null,\
             \"metadata\":null}}')::json, gen_random_uuid(), e.partition, now() \
         from generate_series(3, {last}) v cross join wallets w \
         join events e on e.wallet_id = w.id and e.version = 1; \
         insert into outbox_batches (tenant_id, topic, partition, created_at, wallets, versions) \
         select 'default', '{topic}', e.partition, e.created_at, \
             array_agg(e.wallet_id order by e.version), array_agg(e.version order by e.version) \
         from events e where e.version > 2 \
         group by e.wallet_id, e.partition, e.created_at, (e.version - 3) / {BATCH} \
         order by min(e.version); \
         update wallets set version = {last}, balance = {last} - 2;",
        last = versions + 2,
        topic = app.topic,
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&app.pool).await.unwrap();
}

async fn sent(app: &App) -> i64 {
    let sent = "select coalesce(sum(cardinality(versions)), 0)::bigint from outbox_batches where published";
    sqlx::query_scalar(sent).fetch_one(&app.pool).await.unwrap()
}

/// More than before are sent.
async fn goes_on(app: &App, before: i64) {
    eventually("it goes on", PATIENCE, async || (sent(app).await > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_long_outage_with_a_broker_that_dies_again_publishing_goes_on_at_once() {
    let mut kafka = servers::own_kafka();
    let app = Setup::on(servers::postgres(), Some(&kafka)).with("KAFKA_RETRY_MAX_MS", 2000);
    let app = app.start().await;
    for n in 0..WALLETS {
        app.open(&format!("w{n}"), "0.01").await;
    }
    app.drain().await;
    kafka.kill(Signal::SIGKILL).unwrap();
    let events = sized(40_000, 10_000_000);
    seed(&app, events).await;
    let asked = Instant::now();
    let health = app.get("/health/kafka").await.json();
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    let told = health["publisher"]["unprocessedEvents"].as_i64().unwrap();
    assert_eq!(
        (told, health["publisher"]["more"] == true),
        (events.min(100_000), events > 100_000)
    );

    for round in 0..2 {
        tokio::task::block_in_place(|| kafka.restart()).unwrap();
        let (back, before) = (Instant::now(), sent(&app).await);
        goes_on(&app, before).await;
        println!("round {round}: {} sent, on after {:?}", before, back.elapsed());
        assert!(back.elapsed() < sized(2, 1) * SOON, "{:?}", back.elapsed());
        if round == 0 {
            kafka.kill(Signal::SIGKILL).unwrap();
        }
    }
    if events < 100_000 {
        eventually("all is sent", PATIENCE, async || (sent(&app).await >= events).then_some(()))
            .await;
        app.drain().await;
        let found = topic::assert_same(&kafka.bootstrap, &app).await;
        println!("{} records, {} of them twice", found.records, found.duplicates);
    }
}
