//! PostgreSQL falls silent without closing a connection: callers are told so in bounded time, and
//! the service recovers by itself.

use std::time::{Duration, Instant};

use super::{assert_only, assert_only_unavailable, close, sized};
use crate::support::app::Setup;
use crate::support::journal::slowest;
use crate::support::load::{Load, Plan};
use crate::support::proxy::{Flow, Proxy};
use crate::support::servers;

/// A caller is told within this time, whatever the database does.
const BOUND: Duration = Duration::from_secs(25);

/// Falls silent for a while under load; how long the service took to serve again.
async fn silence(to_server: Flow, to_client: Flow) -> Duration {
    let proxy = Proxy::start(servers::postgres().port).await;
    let app = Setup::shared().through(proxy.port).start().await;
    let load = Load::start(&[&app.base], Plan::default()).await;
    load.advance(100).await;
    proxy.flow(to_server, to_client);
    let silent = Instant::now();
    tokio::time::sleep(Duration::from_secs(sized(12, 30))).await;
    let health = app.get("/api/health").await;
    assert_eq!(health.status, 503, "{}", health.text);
    let read = app.get("/wallets/none").await;
    assert_eq!((read.status, read.code().as_str()), (503, "database_unavailable"));
    let silent = silent.elapsed();
    proxy.flow(Flow::Through, Flow::Through);
    let begun = Instant::now();
    load.advance(50).await;
    let recovered = begun.elapsed();
    let journal = load.settle().await;
    let ops = journal.lines();
    assert_only_unavailable(&ops);
    let slowest = slowest(&ops);
    let figures = close(&app, &journal).await;
    println!("silent for {silent:?}: served after {recovered:?}, slowest {slowest:?} {figures:?}");
    assert!(slowest < BOUND, "a caller waited {slowest:?}");
    assert!(figures.not_done_answers + figures.unknown >= 16, "nobody noticed");
    recovered
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_postgres_means_503_in_bounded_time_and_recovery_without_help() {
    let recovered = silence(Flow::Silent, Flow::Silent).await;
    assert!(recovered < Duration::from_secs(10), "{recovered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hears_and_does_not_answer_means_the_same() {
    let recovered = silence(Flow::Through, Flow::Silent).await;
    assert!(recovered < Duration::from_secs(10), "{recovered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_while_postgres_is_frozen_still_ends_the_process() {
    let proxy = Proxy::start(servers::postgres().port).await;
    let mut app = Setup::shared().through(proxy.port).start().await;
    let load = Load::start(&[&app.base], Plan::default()).await;
    load.advance(100).await;
    proxy.flow(Flow::Silent, Flow::Silent);
    let begun = Instant::now();
    let ended = tokio::task::block_in_place(|| app.stop());
    let took = begun.elapsed();
    println!("ended after {took:?} with {ended}");
    // Requests, lanes, background tasks and sessions have 9, 20, 10 and 2 s to end.
    assert!(ended.success() && took < Duration::from_secs(45), "{took:?}");
    load.halt().await;
}

/// As after a failover: what was open is never answered again, what is new is.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_died_without_a_word_are_given_up_and_replaced() {
    let proxy = Proxy::start(servers::postgres().port).await;
    let app = Setup::shared().through(proxy.port).start().await;
    let load = Load::start(&[&app.base], Plan::default()).await;
    load.advance(100).await;
    proxy.strand();
    let begun = Instant::now();
    load.advance(50).await;
    let recovered = begun.elapsed();
    let journal = load.settle().await;
    // The server does not know yet that those sessions are dead: what they locked stays locked until it does.
    assert_only(&journal.lines(), &["database_unavailable", "outcome_unknown", "wallet_busy"]);
    let begun = Instant::now();
    let figures = close(&app, &journal).await;
    println!("served after {recovered:?}, in step after {:?}: {figures:?}", begun.elapsed());
    assert!(recovered < Duration::from_secs(20), "{recovered:?}");
}
