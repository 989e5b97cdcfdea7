//! Kafka is killed, and frozen, under load: no command notices, the backlog drains in order, and
//! topic, events, ledger and read model end up the same.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{close, failures, sized};
use crate::support::app::Setup;
use crate::support::load::{Load, Plan};
use crate::support::{servers, topic};

#[tokio::test(flavor = "multi_thread")]
async fn kafka_killed_and_frozen_under_load_fails_no_command_and_loses_no_event() {
    let mut kafka = servers::own_kafka();
    let app = Setup::on(servers::postgres(), Some(&kafka)).start().await;
    let load = Load::start(&[&app.base], Plan::default()).await;
    load.advance(200).await;

    kafka.kill(Signal::SIGKILL).unwrap();
    load.advance(300).await;
    tokio::task::block_in_place(|| kafka.restart()).unwrap();
    load.advance(100).await;

    kafka.kill(Signal::SIGSTOP).unwrap();
    let frozen = Instant::now();
    load.advance(300).await;
    tokio::time::sleep(Duration::from_secs(sized(5, 20)).saturating_sub(frozen.elapsed())).await;
    kafka.kill(Signal::SIGCONT).unwrap();
    load.advance(100).await;

    let journal = load.settle().await;
    let backlog: i64 = sqlx::query_scalar("select count(*) from outbox where processed_at is null")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    let begun = Instant::now();
    app.drain().await;
    let drained = begun.elapsed();
    let ops = journal.lines();
    assert!(failures(&ops).is_empty(), "{:?}", failures(&ops));
    let figures = close(&app, &journal).await;
    let topic = topic::assert_same(&kafka.bootstrap, &app).await;
    println!("{figures:?} {topic:?}, backlog of {backlog} drained in {drained:?}");
}
