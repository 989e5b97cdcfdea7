//! A lane: drains its queue into batches and runs them, one at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::batch::{Prepared, Session};
use super::{Job, RequestIds, Shared, doubt, fail_all, side};
use crate::answer::Failure;
use crate::store::commands::Locking;
use crate::store::{self, Blame, Class};

/// Bytes of commands in one batch, about: one statement's parameters must stay handy.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Times a batch is tried when others are in its way.
const ATTEMPTS: usize = 3;
/// The index that a key is reserved in.
const KEYS: &str = "idempotency_keys_pkey";
/// A batch that Postgres has left unanswered for this long is not tried again.
const AWAY: Duration = Duration::from_secs(2);

/// One lane's end of its queue. [`Lane::run`] is for a thread of its own: on one that serves
/// requests, too, the answers of Postgres would wait behind them, several times in each batch.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Job>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, queue: mpsc::UnboundedReceiver<Job>) -> Self {
        Self { shared, queue }
    }

    /// Runs until the queue is closed and empty.
    pub async fn run(mut self) {
        let mut session = None;
        while let Some(jobs) = self.next_batch().await {
            // Without a session it was the database that they waited for.
            let late = if session.is_some() { Failure::Overloaded } else { Failure::Unavailable };
            let jobs = side::divert(&self.shared, drop_stale(jobs, &late));
            if !jobs.is_empty() {
                let operations = jobs.iter().map(|job| job.request.operations.len()).sum();
                metrics::histogram!("command_batch_size").record(count(operations));
                run_batch(&self.shared, &mut session, jobs, Locking::Skip).await;
            }
        }
    }

    /// Waits for one command, then takes what else is there, bounded.
    async fn next_batch(&mut self) -> Option<Vec<Job>> {
        let first = self.queue.recv().await?;
        let batch_max = self.shared.settings.batch_max;
        let mut operations = first.request.operations.len();
        let mut bytes = first.request.weight();
        let mut jobs = vec![first];
        while operations < batch_max && bytes < BATCH_BYTES_MAX {
            let Ok(job) = self.queue.try_recv() else { break };
            operations += job.request.operations.len();
            bytes += job.request.weight();
            jobs.push(job);
        }
        jobs.iter_mut().for_each(|job| job.place = None);
        let waited = jobs.iter().map(|job| job.arrived.elapsed()).max();
        self.shared.pressure.note(operations, waited.unwrap_or_default());
        Some(jobs)
    }
}

/// Commands that have waited too long are refused before anything happens.
fn drop_stale(jobs: Vec<Job>, failure: &Failure) -> Vec<Job> {
    let (stale, fresh): (Vec<_>, Vec<_>) = jobs.into_iter().partition(Job::is_stale);
    fail_all(stale, failure);
    fresh
}

/// Runs a batch to its answers. Every job is answered here, or handed on to a side batch or to
/// the settlement of an unknown COMMIT, which answer it.
pub(super) fn run_batch<'a>(
    shared: &'a Arc<Shared>,
    session: &'a mut Option<Session>,
    jobs: Vec<Job>,
    locking: Locking,
) -> BoxFuture<'a, ()> {
    async move {
        let begun = Instant::now();
        let mut failure = Failure::WalletBusy;
        for _ in 0..ATTEMPTS {
            let mut ready = match open(shared, session).await {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::warn!(%error, requests = %RequestIds(&jobs), "no connection to Postgres");
                    return fail_all(jobs, &Failure::Unavailable);
                }
            };
            let id = Uuid::now_v7();
            let error = match ready.prepare(shared, id, &jobs, locking).await {
                Ok(prepared) => {
                    *session = commit(shared, ready, id, jobs, prepared).await;
                    return;
                }
                Err(error) => error,
            };
            tracing::debug!(
                %error, class = ?error.class(), requests = %RequestIds(&jobs), "batch not written"
            );
            // Nothing was committed. A session that cannot roll back is dropped, and with it
            // whatever it had open.
            let usable = error.class() != Class::Unavailable && ready.rollback().await;
            *session = usable.then_some(ready);
            failure = match error.class() {
                // Another instance is about to commit under the key of one of them: no other job has
                // to wait for that any longer.
                Class::Conflict if is_lock_timeout(&error) && error.waited_for(KEYS) => {
                    return match jobs.len() {
                        1 => fail_all(jobs, &Failure::KeyInFlight),
                        _ => one_by_one(shared, session, jobs).await,
                    };
                }
                // Whatever its code: a trigger on a table may raise any.
                Class::Data | Class::Broken if jobs.len() > 1 => {
                    return one_by_one(shared, session, jobs).await;
                }
                // Alone: a twin committed the same key or id meanwhile. The next look sees it.
                Class::Data => Failure::Broken,
                // It has waited as long as a command may.
                Class::Conflict if locking == Locking::Wait && is_lock_timeout(&error) => {
                    return jobs.into_iter().for_each(Job::fail_busy);
                }
                Class::Conflict => Failure::WalletBusy,
                Class::Unavailable if begun.elapsed() > AWAY => {
                    tracing::warn!(%error, requests = %RequestIds(&jobs), "Postgres is silent");
                    return fail_all(jobs, &Failure::Unavailable);
                }
                Class::Unavailable => Failure::Unavailable,
                Class::Broken => {
                    let (error, requests) = (error.told(), RequestIds(&jobs));
                    tracing::error!(error, %requests, "batch failed");
                    failure = Failure::Broken;
                    break;
                }
            };
        }
        match failure {
            Failure::WalletBusy => jobs.into_iter().for_each(Job::fail_busy),
            // Only its guilty operation fails, where they need not all succeed.
            Failure::Broken if jobs.iter().all(Job::can_split) => {
                split(shared, session, jobs).await
            }
            failure => fail_all(jobs, &failure),
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
async fn one_by_one(shared: &Arc<Shared>, session: &mut Option<Session>, jobs: Vec<Job>) {
    for job in jobs {
        // The others have had their turns; a silent server must not cost each of them its own.
        match job.is_stale() {
            true => job.fail(&Failure::Unavailable),
            false => run_batch(shared, session, vec![job], Locking::Wait).await,
        }
    }
}

/// Each operation of a request gets a transaction of its own.
async fn split(shared: &Arc<Shared>, session: &mut Option<Session>, jobs: Vec<Job>) {
    for job in jobs {
        let (parts, outcomes) = job.split();
        one_by_one(shared, session, parts).await;
        // Some may be waiting behind another transaction: nobody else has to wait with them.
        shared.spawn(outcomes);
    }
}

/// Commits and answers; an answer before COMMIT is the one unforgivable mistake.
async fn commit(
    shared: &Arc<Shared>,
    mut session: Session,
    id: Uuid,
    jobs: Vec<Job>,
    mut prepared: Prepared,
) -> Option<Session> {
    if prepared.read_only {
        answer(shared, jobs, prepared);
        return session.rollback().await.then_some(session);
    }
    match session.commit().await {
        Ok(()) => {
            let (server, events) = (prepared.server, std::mem::take(&mut prepared.events));
            answer(shared, jobs, prepared);
            shared.recent.keep(server, events);
            shared.committed.fire();
            Some(session)
        }
        Err(error) if error.blame() == Blame::Lasting => {
            // An answer: what is checked at the end of a transaction would not have it.
            let (error, requests) = (error.told(), RequestIds(&jobs));
            tracing::error!(error, batch = %id, %requests, "COMMIT refused");
            let mut session = Some(session);
            if jobs.len() > 1 {
                one_by_one(shared, &mut session, jobs).await;
            } else if jobs.iter().all(Job::can_split) {
                split(shared, &mut session, jobs).await;
            } else {
                fail_all(jobs, &Failure::Broken);
            }
            session
        }
        Err(error) => {
            tracing::warn!(
                %error, batch = %id, requests = %RequestIds(&jobs), "COMMIT without an answer"
            );
            shared.spawn(doubt::settle(Arc::clone(shared), id, jobs, prepared));
            None
        }
    }
}

/// Gives every job its outcome; those whose wallet is contended wait in side batches.
pub(super) fn answer(shared: &Arc<Shared>, jobs: Vec<Job>, prepared: Prepared) {
    let mut left_out = Vec::new();
    for (job, outcomes) in jobs.into_iter().zip(prepared.outcomes) {
        match outcomes {
            Some(outcomes) => job.answer(outcomes),
            None => left_out.push(job),
        }
    }
    side::begin(shared, left_out, &prepared.contended);
}

fn is_lock_timeout(error: &store::Error) -> bool {
    error.sqlstate().as_deref() == Some("55P03")
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}
