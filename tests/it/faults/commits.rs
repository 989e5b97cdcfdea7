//! COMMITs whose answer is lost: some did commit, some did not, some do so later. None is ever
//! done twice, and nobody is told "no" about what was done.

use std::time::Duration;

use super::{assert_only_unavailable, close, sized};
use crate::support::app::Setup;
use crate::support::journal::{Verdict, answers};
use crate::support::load::{Load, Plan};
use crate::support::proxy::{Fate, Flow, Proxy};
use crate::support::{eventually, servers, topic};

const FATES: [Fate; 4] =
    [Fate::Never, Fate::Answered, Fate::Never, Fate::Later(Duration::from_millis(300))];

/// Loses answers of COMMITs of these sessions under load, and closes the books.
async fn lose(application: &'static str, every: usize, cuts: usize) -> (usize, usize) {
    let postgres = servers::postgres();
    let proxy = Proxy::with_fates(postgres.port, application, FATES.to_vec()).await;
    let app = Setup::shared().through(proxy.port).start().await;
    let load = Load::start(&[&app.base], Plan { keyless: 4, ..Plan::default() }).await;
    proxy.lose_commits(every);
    eventually("answers of COMMITs lost", Duration::from_secs(120), async || {
        (proxy.lost() >= cuts).then_some(())
    })
    .await;
    proxy.lose_commits(0);
    load.advance(100).await;
    let journal = load.settle().await;
    let ops = journal.lines();
    assert_only_unavailable(&ops);
    let figures = close(&app, &journal).await;
    let definite = figures.acknowledged + figures.refused;
    assert_eq!(definite, figures.operations, "what has no key is right the first time");
    let topic = topic::assert_same(&servers::kafka().bootstrap, &app).await;
    let log = app.log_text();
    let settled = |verdict| log.matches(verdict).count();
    let (had, had_not) = (settled("in doubt had succeeded"), settled("in doubt had failed"));
    println!(
        "{} lost answers; batches in doubt: {had} done, {had_not} not: {figures:?} {topic:?}",
        proxy.lost()
    );
    (had, had_not)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_answer_is_settled_and_never_done_twice() {
    let cuts = sized(20, 60);
    let (had, had_not) = lose("wallex-lane", 3, cuts).await;
    assert!(had + had_not >= cuts, "{had} and {had_not} of {cuts}");
    assert!(had.min(had_not) >= cuts / 4, "{had} and {had_not}: both ends must have been met");
}

/// The publisher's marks and the projectors' checkpoints included.
#[tokio::test(flavor = "multi_thread")]
async fn lost_commit_answers_of_publisher_and_projectors_change_nothing() {
    lose("wallex", 10, sized(20, 60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_doubt_for_too_long_is_answered_unknown_and_its_key_tells() {
    let postgres = servers::postgres();
    let proxy = Proxy::with_fates(postgres.port, "wallex-lane", vec![Fate::Held]).await;
    let app = Setup::without_kafka().through(proxy.port).start().await;
    let load = Load::start(&[&app.base], Plan::default()).await;
    load.advance(50).await;
    proxy.lose_commits(1);
    let held = async || (proxy.lost() > 0).then_some(());
    eventually("a COMMIT whose answer is on its way", Duration::from_secs(10), held).await;
    // And nobody can be asked what became of it.
    proxy.flow(Flow::Silent, Flow::Silent);
    eventually("callers told that it is unknown", Duration::from_secs(35), async || {
        answers(&load.lines()).any(|told| told.verdict == Verdict::Unknown).then_some(())
    })
    .await;
    proxy.lose_commits(0);
    proxy.flow(Flow::Through, Flow::Through);
    load.advance(50).await;
    let journal = load.settle().await;
    assert_only_unavailable(&journal.lines());
    let figures = close(&app, &journal).await;
    println!("{figures:?}");
    assert_eq!(figures.unknown_done, figures.unknown, "the COMMIT had gone through");
}
