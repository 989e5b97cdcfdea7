//! Faults under load: processes killed, servers crashed, frozen and cut off, answers lost, clients
//! gone. Every test ends by closing the books: what was acknowledged is there once, what was
//! refused is not, what was unknown has settled, and all that is derived agrees.
//!
//! `WALLEX_TEST_FULL=1` runs the long form of each: more kills, longer freezes.

mod altered;
mod breaker;
mod broker;
mod commits;
mod disconnects;
mod frozen;
mod kills;
mod outage;
mod overload;
mod postgres;
mod refused;
mod shutdown;
mod without_kafka;

use crate::support::app::App;
use crate::support::checker::{self, Figures};
use crate::support::journal::{self, Answer, Line};
use crate::support::load::Load;
use crate::support::topic;

/// The first where time is short, the second in the long form.
fn sized<T>(short: T, full: T) -> T {
    if std::env::var("WALLEX_TEST_FULL").is_ok_and(|full| full == "1") { full } else { short }
}

/// Closes the books after a load has settled. Some of it is sent once more before: that must give
/// the first answers again, to the byte.
pub(crate) async fn close(app: &App, load: &Load) -> Figures {
    let unmarked = load.again(50).await;
    assert!(unmarked.is_empty(), "not marked as replays: {unmarked:?}");
    let figures = checker::assert_events(&app.pool, &load.lines()).await;
    app.drain().await;
    topic::assert_projected(app).await;
    app.assert_reconciled();
    figures
}

/// The answers that were neither a result nor a refusal.
pub(crate) fn failures(lines: &[Line]) -> Vec<&Answer> {
    journal::answers(lines).filter(|answer| !answer.verdict.is_definite()).collect()
}

/// While Postgres is away only 503 with `Retry-After` is given, and it says what is known.
fn assert_only_unavailable(lines: &[Line]) {
    assert_only(lines, &["database_unavailable", "outcome_unknown"]);
}

/// What was not answered was 503 with `Retry-After` and one of these codes.
fn assert_only(lines: &[Line], codes: &[&str]) {
    for failure in failures(lines) {
        let named = codes.contains(&failure.code.as_str());
        assert!(failure.status == 503 && named && failure.retry_after, "{failure:?}");
    }
}
