//! Clients that go away in the middle of a request cancel their waiting, and nothing else.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{close, sized};
use crate::support::app::Setup;
use crate::support::load::{Draw, Load, Op, Plan};
use crate::support::proxy::{Flow, Proxy};
use crate::support::{eventually, servers};

/// Sends an operation and goes away after `delay`, in order or by reset.
async fn send_and_leave(
    address: &str,
    path: &str,
    key: &str,
    body: &str,
    delay: Duration,
    rst: bool,
) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: wallex\r\nidempotency-key: {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(delay).await;
    if rst {
        stream.set_zero_linger().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_leave_no_transaction_open_and_nothing_half_done() {
    let proxy = Proxy::start(servers::postgres().port).await;
    let app = Setup::without_kafka().through(proxy.port).start().await;
    let load = Load::start(&[&app.base], Plan { workers: 2, ..Plan::default() }).await;
    // Slow enough that clients go away between BEGIN and COMMIT, too.
    proxy.flow(Flow::Late(Duration::from_millis(2)), Flow::Late(Duration::from_millis(2)));
    let address = app.base.trim_start_matches("http://").to_owned();
    let mut draw = Draw(17);
    let mut going = tokio::task::JoinSet::new();
    for number in 0..sized(400, 2_000) {
        let Op { key, ask, .. } = load.abandon(&mut draw);
        let (path, body) = ask.request(&key);
        let (address, delay) = (address.clone(), Duration::from_micros(100 * (number % 400)));
        going.spawn(async move {
            send_and_leave(&address, &path, &key, &body, delay, number % 2 == 0).await;
        });
        // Reads, too, go away in the middle of their query.
        let path = format!("{}/ledger/transactions", app.base);
        let reading = app.client.get(path).timeout(Duration::from_millis(number % 20)).send();
        going.spawn(async move { drop(reading.await) });
        if going.len() >= 24 {
            going.join_next().await.unwrap().unwrap();
        }
    }
    going.join_all().await;
    let journal = load.settle().await;
    proxy.flow(Flow::Through, Flow::Through);
    eventually("no transaction stays open", Duration::from_secs(5), async || {
        let open: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() \
             and state like 'idle in transaction%' and state_change < now() - interval '1 s'",
        )
        .fetch_one(&app.pool)
        .await
        .unwrap();
        (open == 0).then_some(())
    })
    .await;
    let figures = close(&app, &journal).await;
    println!("{figures:?}");
    assert!(figures.unknown_done > 100, "too few went away before their answer");
}
