//! SIGTERM under load: what runs is answered, what is open and idle does not hold the process.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{close, failures};
use crate::support::app::{App, Setup};
use crate::support::eventually;
use crate::support::journal::Verdict;
use crate::support::load::{Load, Plan};

/// Well below what orchestrators grant.
const GRACE: Duration = Duration::from_secs(10);

async fn open(app: &App, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_answers_what_runs_and_ends_in_order() {
    let mut app = Setup::shared().start().await;
    let load = Load::start(&[&app.base], Plan::default()).await;
    load.advance(100).await;
    // One connection is idle after an answer, one never spoke, one broke off in its header.
    let mut idle = open(&app, "GET /livez HTTP/1.1\r\nhost: wallex\r\n\r\n").await;
    assert!(idle.read(&mut [0; 512]).await.unwrap() > 0);
    let _mute = open(&app, "").await;
    let _half = open(&app, "POST /wallets HTTP/1.1\r\nhost: wal").await;
    // Connections are taken in turn: with this answer those before it have been taken, too.
    let mut last = open(&app, "GET /livez HTTP/1.1\r\nhost: wallex\r\n\r\n").await;
    assert!(last.read(&mut [0; 512]).await.unwrap() > 0);
    let begun = Instant::now();
    let ended = tokio::task::block_in_place(|| app.stop());
    let took = begun.elapsed();
    load.halt().await;
    let sent = load.journal.lines();
    app.restart().await;
    let journal = load.settle().await;
    let figures = close(&app, &journal).await;
    // Refused connections were never taken; a request that was must have its answer.
    let broken = failures(&sent).into_iter().filter(|answer| {
        answer.verdict == Verdict::Unknown && !answer.body.contains("ConnectionRefused")
    });
    let broken: Vec<&String> = broken.map(|answer| &answer.body).collect();
    println!("ended after {took:?} with {ended}; {} cut off; {figures:?}", broken.len());
    assert!(ended.success(), "{ended}");
    assert!(took < GRACE, "{took:?}");
    assert!(broken.is_empty(), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_for_a_lock_at_sigterm_get_their_answers() {
    let mut app = Setup::without_kafka().start().await;
    app.open("w-1", "10.00").await;
    let mut holder = app.pool.begin().await.unwrap();
    let lock = "select 1 from wallets where id = 'w-1' for update";
    sqlx::query(lock).execute(&mut *holder).await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let path = format!("{}/wallets/w-1/credit", app.base);
        let request = app.client.post(path).json(&json!({"amount": "1.00"}));
        waiting.spawn(async move { request.send().await.unwrap().status().as_u16() });
    }
    eventually("the commands wait for the lock", Duration::from_secs(5), async || {
        let query = "select count(*) from pg_stat_activity where datname = current_database() \
                     and wait_event_type = 'Lock'";
        let held: i64 = sqlx::query_scalar(query).fetch_one(&app.pool).await.unwrap();
        (held > 0).then_some(())
    })
    .await;
    app.kill(Signal::SIGTERM);
    let address = app.base.trim_start_matches("http://").to_owned();
    eventually("no new connections", Duration::from_secs(5), async || {
        TcpStream::connect(&address).await.err()
    })
    .await;
    holder.rollback().await.unwrap();
    assert_eq!(waiting.join_all().await, [201; 20]);
    assert!(tokio::task::block_in_place(|| app.stop()).success());
    let balance: String =
        sqlx::query_scalar("select balance::text from wallets").fetch_one(&app.pool).await.unwrap();
    assert_eq!(balance, "30.00000000");
}
