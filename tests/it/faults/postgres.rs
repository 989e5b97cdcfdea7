//! PostgreSQL crashes under load and comes back: callers are told 503, nothing is lost, and the
//! service recovers by itself.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{assert_only_unavailable, close, sized};
use crate::support::app::Setup;
use crate::support::load::{Draw, Load, Plan};
use crate::support::{servers, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_postgres_means_503_and_recovery_without_help() {
    let mut postgres = servers::own_postgres();
    let app = Setup::on(&postgres, Some(servers::kafka())).start().await;
    let plan = Plan::default();
    let mut draw = Draw(plan.seed);
    let load = Load::start(&[&app.base], plan).await;
    let mut recoveries = Vec::new();
    for _ in 0..sized(2, 3) {
        load.advance(100).await;
        tokio::time::sleep(draw.millis(50, 400)).await;
        postgres.kill(Signal::SIGQUIT).unwrap();
        // Long enough for callers to meet a database that is not there.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        postgres.restart().unwrap();
        let begun = Instant::now();
        load.advance(1).await;
        recoveries.push(begun.elapsed());
    }
    load.advance(100).await;
    let journal = load.settle().await;
    let ops = journal.lines();
    assert_only_unavailable(&ops);
    let figures = close(&app, &journal).await;
    let topic = topic::assert_same(&servers::kafka().bootstrap, &app).await;
    println!("{} crashes: {figures:?} {topic:?} served after {recoveries:?}", recoveries.len());
    assert!(figures.not_done_answers > 20, "nobody met the database while it was away");
    assert!(recoveries.iter().all(|time| *time < Duration::from_secs(5)), "{recoveries:?}");
}
