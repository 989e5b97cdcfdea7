//! The service is killed with SIGKILL under load and started again: nothing acknowledged is lost,
//! nothing is done twice.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{close, sized};
use crate::support::app::{App, Setup};
use crate::support::load::{Draw, Load, Plan};
use crate::support::proxy::{Fate, Proxy};
use crate::support::{eventually, servers, topic};

/// Kills at a moment drawn from the seed, every second time between a COMMIT and its answer, and
/// starts again; how long that took.
async fn kill(app: &mut App, load: &Load, draw: &mut Draw, proxy: &Proxy) -> Duration {
    tokio::time::sleep(draw.millis(50, 800)).await;
    load.advance(20).await;
    if draw.below(2) == 0 {
        let before = proxy.lost();
        proxy.lose_commits(1);
        let held = async || (proxy.lost() > before).then_some(());
        eventually("a COMMIT whose answer is on its way", Duration::from_secs(10), held).await;
    }
    app.kill(Signal::SIGKILL);
    proxy.lose_commits(0);
    let begun = Instant::now();
    app.spawn();
    app.ready().await;
    begun.elapsed()
}

/// Many at once, so that each kill meets many.
fn crowd() -> Plan {
    Plan { workers: 48, think: Duration::from_millis(2), ..Plan::default() }
}

async fn lanes_proxy() -> Proxy {
    Proxy::with_fates(servers::postgres().port, "wallex-lane", vec![Fate::Held]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_killed_under_load_loses_nothing_and_does_nothing_twice() {
    let proxy = lanes_proxy().await;
    let mut app = Setup::shared().through(proxy.port).start().await;
    let plan = crowd();
    let mut draw = Draw(plan.seed);
    let load = Load::start(&[&app.base], plan).await;
    let mut restarts = Vec::new();
    for _ in 0..sized(3, 10) {
        restarts.push(kill(&mut app, &load, &mut draw, &proxy).await);
    }
    let journal = load.settle().await;
    let figures = close(&app, &journal).await;
    let topic = topic::assert_same(&servers::kafka().bootstrap, &app).await;
    println!("{} kills: {figures:?} {topic:?} ready after {restarts:?}", restarts.len());
    assert!(figures.unknown >= 2 * restarts.len(), "kills that hurt nobody show nothing");
    assert!(proxy.lost() == 0 || figures.unknown_done > 0, "nobody missed an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_instances_killed_under_load_loses_nothing_and_does_nothing_twice() {
    let proxy = lanes_proxy().await;
    let mut first = Setup::shared().through(proxy.port).start().await;
    let mut second = first.second_instance().await;
    let plan = crowd();
    let mut draw = Draw(plan.seed);
    let load = Load::start(&[&first.base, &second.base], plan).await;
    let mut restarts = Vec::new();
    for number in 0..sized(2, 10) {
        let victim = if number % 2 == 0 { &mut second } else { &mut first };
        restarts.push(kill(victim, &load, &mut draw, &proxy).await);
    }
    let journal = load.settle().await;
    let figures = close(&first, &journal).await;
    let topic = topic::assert_same(&servers::kafka().bootstrap, &first).await;
    println!("{} kills of one of two: {figures:?} {topic:?} {restarts:?}", restarts.len());
    let rate = topic.duplicates as f64 * 100.0 / topic.records as f64;
    println!("duplicates: {rate:.2} % of {} records", topic.records);
    assert!(figures.unknown >= restarts.len(), "kills that hurt nobody show nothing");
    assert!(rate <= 2.0, "read-back keeps what is sent twice rare: {rate:.2} %");
}
