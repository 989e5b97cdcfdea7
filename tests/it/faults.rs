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
mod overload;
mod postgres;
mod refused;
mod shutdown;
mod without_kafka;

use std::sync::Arc;

use crate::support::app::App;
use crate::support::books::{self, Figures};
use crate::support::load::{Journal, Op, Outcome};
use crate::support::topic;

/// The first where time is short, the second in the long form.
fn sized<T>(short: T, full: T) -> T {
    if std::env::var("WALLEX_TEST_FULL").is_ok_and(|full| full == "1") { full } else { short }
}

/// Closes the books after a load has settled.
pub(crate) async fn close(app: &App, journal: &Arc<Journal>) -> Figures {
    let figures = books::assert_true(&app.pool, &journal.ops()).await;
    journal.assert_replays(50).await;
    app.drain().await;
    topic::assert_projected(app).await;
    app.assert_reconciled();
    figures
}

/// The answers that were neither a result nor a refusal, as they are told apart below.
pub(crate) fn failures(ops: &[Op]) -> Vec<&Outcome> {
    ops.iter().flat_map(|op| &op.attempts).filter(|outcome| !outcome.is_definite()).collect()
}

/// While Postgres is away only 503 with `Retry-After` is given, and it says what is known.
fn assert_only_unavailable(ops: &[Op]) {
    assert_only(ops, &["database_unavailable", "outcome_unknown"]);
}

/// What was not answered was 503 with `Retry-After` and one of these codes.
fn assert_only(ops: &[Op], codes: &[&str]) {
    for failure in failures(ops) {
        let (status, code, retry_after) = match failure {
            Outcome::NotDone { status, code, retry_after }
            | Outcome::Unknown { status, code, retry_after, .. } => (*status, code, *retry_after),
            Outcome::Done { .. } | Outcome::Refused { .. } => continue,
        };
        let named = codes.contains(&code.as_str());
        assert!(status == 503 && named && retry_after, "{failure:?}");
    }
}
