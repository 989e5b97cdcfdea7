//! COMMITs whose answer is lost: some did commit, some did not, some do so later. None is ever
//! done twice, and nobody is told "no" about what was done.

use std::time::Duration;

use super::{assert_only_unavailable, close, sized};
use crate::support::app::Setup;
use crate::support::load::{Load, Plan};
use crate::support::proxy::{Fate, Proxy};
use crate::support::{eventually, servers, topic};

const FATES: [Fate; 4] =
    [Fate::Never, Fate::Answered, Fate::Never, Fate::Later(Duration::from_millis(300))];

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_answer_is_settled_and_never_done_twice() {
    let cuts = sized(20, 60);
    let proxy = Proxy::with_fates(servers::postgres().port, FATES.to_vec()).await;
    let app = Setup::shared().through(proxy.port).start().await;
    let load = Load::start(&[&app], Plan::default()).await;
    proxy.lose_commits(7);
    eventually("answers of COMMITs lost", Duration::from_secs(120), async || {
        (proxy.lost() >= cuts).then_some(())
    })
    .await;
    proxy.lose_commits(0);
    load.advance(100).await;
    let journal = load.settle().await;
    let ops = journal.ops();
    assert_only_unavailable(&ops);
    let figures = close(&app, &journal).await;
    let topic = topic::assert_same(&servers::kafka().bootstrap, &app).await;
    let log = app.log_text();
    let settled = |verdict| log.matches(verdict).count();
    let (had, had_not) = (settled("in doubt had succeeded"), settled("in doubt had failed"));
    println!(
        "{} lost answers, batches in doubt found done {had}, not done {had_not}: {figures:?} \
         {topic:?}",
        proxy.lost()
    );
    assert!(had >= 3 && had_not >= 3, "{had} and {had_not}: too few commands were in doubt");
}
