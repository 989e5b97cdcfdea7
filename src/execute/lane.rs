//! A lane: drains its queue into batches and runs them, one at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::batch::{Prepared, Session};
use super::{QueuedRequest, RequestIds, Shared, contended, fail_all, in_doubt};
use crate::answer::Failure;
use crate::store::commands::Locking;
use crate::store::{self, Blame, Class};

/// Bytes of commands in one batch, about: one statement's parameters must stay handy.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Times a batch is tried when others are in its way.
const ATTEMPTS: usize = 3;
/// How the indexes begin that a key is reserved in: one for each partition of the table.
const KEYS_INDEXES: &str = "idempotency_keys";
/// A batch that Postgres has left unanswered for this long is not tried again.
const POSTGRES_SILENT_MAX: Duration = Duration::from_secs(2);

/// One lane's end of its queue. [`Lane::run`] is for a thread of its own: on one that serves
/// requests, too, the answers of Postgres would wait behind them, several times in each batch.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<QueuedRequest>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, queue: mpsc::UnboundedReceiver<QueuedRequest>) -> Self {
        Self { shared, queue }
    }

    /// Runs until the queue is closed and empty.
    pub async fn run(mut self) {
        let mut session = None;
        while let Some(requests) = self.next_batch().await {
            // Without a session it was the database that they waited for.
            let late = if session.is_some() { Failure::Overloaded } else { Failure::Unavailable };
            let requests = contended::divert(&self.shared, drop_stale(requests, &late));
            if !requests.is_empty() {
                let operations =
                    requests.iter().map(|queued| queued.request.operations.len()).sum();
                metrics::histogram!("command_batch_size").record(count(operations));
                run_batch(&self.shared, &mut session, requests, Locking::Skip).await;
            }
        }
    }

    /// Waits for one command, then takes what else is there, bounded.
    async fn next_batch(&mut self) -> Option<Vec<QueuedRequest>> {
        let first = self.queue.recv().await?;
        let batch_max = self.shared.settings.batch_max;
        let mut operations = first.request.operations.len();
        let mut bytes = first.request.weight();
        let mut requests = vec![first];
        while operations < batch_max && bytes < BATCH_BYTES_MAX {
            let Ok(queued) = self.queue.try_recv() else { break };
            operations += queued.request.operations.len();
            bytes += queued.request.weight();
            requests.push(queued);
        }
        requests.iter_mut().for_each(|queued| queued.place = None);
        let waited = requests.iter().map(|queued| queued.arrived.elapsed()).max();
        self.shared.throttle.observe(operations, waited.unwrap_or_default());
        Some(requests)
    }
}

/// Commands that have waited too long are refused before anything happens.
fn drop_stale(requests: Vec<QueuedRequest>, failure: &Failure) -> Vec<QueuedRequest> {
    let (stale, fresh): (Vec<_>, Vec<_>) = requests.into_iter().partition(QueuedRequest::is_stale);
    fail_all(stale, failure);
    fresh
}

/// Runs a batch to its answers. Every queued is answered here, or handed on to a contended batch or to
/// the resolution of a COMMIT in doubt, which answer it.
pub(super) fn run_batch<'a>(
    shared: &'a Arc<Shared>,
    session: &'a mut Option<Session>,
    requests: Vec<QueuedRequest>,
    locking: Locking,
) -> BoxFuture<'a, ()> {
    async move {
        let begun = Instant::now();
        let mut failure = Failure::WalletBusy;
        for attempt in 0..ATTEMPTS {
            let mut ready = match open(shared, session).await {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::warn!(%error, requests = %RequestIds(&requests), "no connection to Postgres");
                    let misfit = error.is_misfit();
                    let failure = if misfit { Failure::Schema } else { Failure::Unavailable };
                    return fail_all(requests, &failure);
                }
            };
            let id = Uuid::now_v7();
            let error = match ready.prepare(shared, id, &requests, locking).await {
                Ok(prepared) => {
                    *session = commit(shared, ready, id, requests, prepared).await;
                    return;
                }
                Err(error) => error,
            };
            tracing::debug!(
                %error, class = ?error.class(), requests = %RequestIds(&requests), "batch not written"
            );
            // Nothing was committed. A session that cannot roll back is dropped, and with it
            // whatever it had open.
            let mut usable = error.class() != Class::Unavailable && ready.rollback().await;
            if error.is_of_schema() {
                // The next session looks whether the schema fits this build still.
                shared.database.note_fit(false);
                usable = false;
            }
            *session = usable.then_some(ready);
            failure = match error.class() {
                // Another instance is about to commit under the key of one of them: no other queued has
                // to wait for that any longer.
                Class::Conflict if is_lock_timeout(&error) && error.waited_for(KEYS_INDEXES) => {
                    return match requests.len() {
                        1 => fail_all(requests, &Failure::KeyInFlight),
                        _ => one_by_one(shared, session, requests).await,
                    };
                }
                // Whatever its code: a trigger on a table may raise any.
                Class::Data | Class::Broken if requests.len() > 1 => {
                    return one_by_one(shared, session, requests).await;
                }
                // Alone: a twin committed the same key or id meanwhile. The next look sees it.
                Class::Data => Failure::Broken,
                // It has waited as long as a command may.
                Class::Conflict if locking == Locking::Wait && is_lock_timeout(&error) => {
                    return requests.into_iter().for_each(QueuedRequest::fail_busy);
                }
                Class::Conflict => Failure::WalletBusy,
                Class::Unavailable if begun.elapsed() > POSTGRES_SILENT_MAX => {
                    tracing::warn!(%error, requests = %RequestIds(&requests), "Postgres is silent");
                    return fail_all(requests, &Failure::Unavailable);
                }
                Class::Unavailable => Failure::Unavailable,
                Class::Broken if error.is_of_schema() && attempt == 0 => Failure::Broken,
                Class::Broken => {
                    let (error, ids) = (error.told(), RequestIds(&requests));
                    tracing::error!(error, requests = %ids, "batch failed");
                    failure = Failure::Broken;
                    break;
                }
            };
        }
        match failure {
            Failure::WalletBusy => requests.into_iter().for_each(QueuedRequest::fail_busy),
            // Only its guilty operation fails, where they need not all succeed.
            Failure::Broken if requests.iter().all(QueuedRequest::can_split) => {
                split(shared, session, requests).await
            }
            failure => fail_all(requests, &failure),
        }
    }
    .boxed()
}

async fn open(shared: &Shared, session: &mut Option<Session>) -> store::Result<Session> {
    match session.take() {
        Some(session) => Ok(session),
        None => Session::open(shared).await,
    }
}

/// Only the guilty command fails: each gets a transaction of its own.
async fn one_by_one(
    shared: &Arc<Shared>,
    session: &mut Option<Session>,
    requests: Vec<QueuedRequest>,
) {
    for queued in requests {
        // The others have had their turns; a silent server must not cost each of them its own.
        match queued.is_stale() {
            true => queued.fail(&Failure::Unavailable),
            false => run_batch(shared, session, vec![queued], Locking::Wait).await,
        }
    }
}

/// Each operation of a request gets a transaction of its own.
async fn split(shared: &Arc<Shared>, session: &mut Option<Session>, requests: Vec<QueuedRequest>) {
    for queued in requests {
        let (parts, outcomes) = queued.split();
        one_by_one(shared, session, parts).await;
        // Some may be waiting behind another transaction: no other request has to wait with them.
        shared.spawn(outcomes);
    }
}

/// Commits and answers; an answer before COMMIT is the one unforgivable mistake.
async fn commit(
    shared: &Arc<Shared>,
    mut session: Session,
    id: Uuid,
    requests: Vec<QueuedRequest>,
    mut prepared: Prepared,
) -> Option<Session> {
    if prepared.read_only {
        answer(shared, requests, prepared);
        return session.rollback().await.then_some(session);
    }
    match session.commit().await {
        Ok(()) => {
            let (server, events) = (prepared.server, std::mem::take(&mut prepared.events));
            // Before the answer: its caller may name the hold at once.
            shared.homes.note(&events);
            answer(shared, requests, prepared);
            shared.event_cache.insert(server, events);
            shared.committed.fire();
            Some(session)
        }
        Err(error) if error.blame() == Blame::Lasting => {
            // An answer: what is checked at the end of a transaction would not have it.
            let (error, ids) = (error.told(), RequestIds(&requests));
            tracing::error!(error, batch = %id, requests = %ids, "COMMIT refused");
            let mut session = Some(session);
            if requests.len() > 1 {
                one_by_one(shared, &mut session, requests).await;
            } else if requests.iter().all(QueuedRequest::can_split) {
                split(shared, &mut session, requests).await;
            } else {
                fail_all(requests, &Failure::Broken);
            }
            session
        }
        Err(error) => {
            tracing::warn!(
                %error, batch = %id, requests = %RequestIds(&requests), "COMMIT without an answer"
            );
            shared.spawn(in_doubt::resolve(Arc::clone(shared), id, requests, prepared));
            None
        }
    }
}

/// Gives every queued its outcome; those whose wallet is contended wait in contended batches.
pub(super) fn answer(shared: &Arc<Shared>, requests: Vec<QueuedRequest>, prepared: Prepared) {
    let mut left_out = Vec::new();
    for (queued, outcomes) in requests.into_iter().zip(prepared.outcomes) {
        match outcomes {
            Some(outcomes) => queued.answer(outcomes),
            None => left_out.push(queued),
        }
    }
    contended::begin(shared, left_out, &prepared.contended);
}

fn is_lock_timeout(error: &store::Error) -> bool {
    error.sqlstate().as_deref() == Some("55P03")
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}
