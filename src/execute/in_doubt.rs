//! A COMMIT whose answer was lost is unknown, not failed: the batch's id resolves it.
//!
//! On a new connection the same id is inserted again. While the lost transaction may still commit,
//! the INSERT waits for it; then a unique violation proves that it did, and success that it did
//! not and cannot any more. (`pg_xact_status` could not tell: after a crash the number of a lost
//! transaction is given out again.)

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::batch::{Prepared, Session};
use super::lane::{answer, run_batch};
use super::{QueuedRequest, RequestIds, Shared, fail_all};
use crate::answer::Failure;
use crate::store::commands::Locking;
use crate::store::{self, Class};

/// The server ends a silent session after 10 s; past this, the caller's retry has to tell.
const DEADLINE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

/// Answers the requests of a batch in doubt: from memory if it did commit, else by running it again.
pub(super) async fn resolve(
    shared: Arc<Shared>,
    id: Uuid,
    requests: Vec<QueuedRequest>,
    prepared: Prepared,
) {
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        match did_commit(&shared, id).await {
            Ok(true) => {
                tracing::info!(batch = %id, "the COMMIT in doubt had succeeded");
                shared.committed.fire();
                return answer(&shared, requests, prepared);
            }
            Ok(false) => {
                tracing::info!(batch = %id, "the COMMIT in doubt had failed: the batch runs again");
                return run_batch(&shared, &mut None, requests, Locking::Wait).await;
            }
            Err(error) => tracing::debug!(%error, batch = %id, "still in doubt"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::error!(
        batch = %id, requests = %RequestIds(&requests),
        "outcome unknown: callers have to ask again with their keys"
    );
    fail_all(requests, &Failure::OutcomeUnknown);
}

async fn did_commit(shared: &Shared, id: Uuid) -> store::Result<bool> {
    let mut session = Session::open(shared).await?;
    let verdict = match session.claim(id).await {
        Ok(()) => Ok(false),
        Err(error)
            if error.class() == Class::Data
                && error.is_unique_violation_of("command_batches_pkey") =>
        {
            Ok(true)
        }
        Err(error) => Err(error),
    };
    // Dropping the session would end the claim as well; this only says so politely.
    session.rollback().await;
    verdict
}
