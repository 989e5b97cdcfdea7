//! Side batches: commands whose wallet another transaction holds wait here, in sessions of their
//! own, so that nobody else waits with them.
//!
//! While a wallet has a side batch, its later commands join that one: they would otherwise take
//! the lock past those who wait for it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::batch::Session;
use super::lane::run_batch;
use super::{Job, Request, Shared};
use crate::answer::Failure;
use crate::store::commands::Locking;
use crate::wallet::{TenantId, WalletId};

/// Side batches that run at once.
pub const SESSIONS_MAX: usize = 8;

type Wallet = (TenantId, WalletId);

#[derive(Debug)]
pub(super) struct SideBatches {
    /// Wallets with a side batch, and the commands that wait for its next turn.
    waiting: Mutex<HashMap<Wallet, Vec<Job>>>,
    sessions: Mutex<Vec<Session>>,
    permits: Semaphore,
}

impl Default for SideBatches {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            sessions: Mutex::default(),
            permits: Semaphore::new(SESSIONS_MAX),
        }
    }
}

/// Takes out the jobs that belong behind a running side batch; the rest goes on.
pub(super) fn divert(shared: &Shared, jobs: Vec<Job>) -> Vec<Job> {
    let mut waiting = lock(&shared.side.waiting);
    if waiting.is_empty() {
        return jobs;
    }
    let mut rest = Vec::with_capacity(jobs.len());
    for job in jobs {
        let behind = wallets(&job).find(|wallet| waiting.contains_key(wallet));
        match behind {
            Some(wallet) => join(shared, waiting.entry(wallet).or_default(), job),
            None => rest.push(job),
        }
    }
    rest
}

/// Starts a side batch for each wallet in `contended` that has jobs, unless it has one already.
pub(super) fn begin(shared: &Arc<Shared>, jobs: Vec<Job>, contended: &HashSet<Wallet>) {
    let mut waiting = lock(&shared.side.waiting);
    for job in jobs {
        // It was left out for one of them.
        let behind = wallets(&job).find(|wallet| contended.contains(wallet));
        let Some(wallet) = behind else {
            job.fail(&Failure::Broken);
            continue;
        };
        if let Some(jobs) = waiting.get_mut(&wallet) {
            join(shared, jobs, job);
        } else {
            waiting.insert(wallet.clone(), vec![job]);
            shared.spawn(run(Arc::clone(shared), wallet));
        }
    }
}

/// The wallets that the job locks.
fn wallets(job: &Job) -> impl Iterator<Item = Wallet> {
    let Request { tenant, .. } = &job.request;
    job.request.wallets().map(|id| (tenant.clone(), id.clone()))
}

fn join(shared: &Shared, jobs: &mut Vec<Job>, job: Job) {
    if jobs.len() < shared.settings.queue_max {
        jobs.push(job);
    } else {
        job.fail(&Failure::Overloaded);
    }
}

/// Runs one wallet's side batches until no command waits for it.
async fn run(shared: Arc<Shared>, wallet: Wallet) {
    // The semaphore is never closed.
    let Ok(_permit) = shared.side.permits.acquire().await else { return };
    let mut session = lock(&shared.side.sessions).pop();
    while let Some(jobs) = next(&shared, &wallet) {
        let (stale, fresh): (Vec<_>, Vec<_>) = jobs.into_iter().partition(Job::is_stale);
        stale.into_iter().for_each(Job::fail_busy);
        if !fresh.is_empty() {
            run_batch(&shared, &mut session, fresh, Locking::Wait).await;
        }
    }
    lock(&shared.side.sessions).extend(session);
}

/// The wallet's next commands, at most a batch; none ends its side batch.
fn next(shared: &Shared, wallet: &Wallet) -> Option<Vec<Job>> {
    let mut waiting = lock(&shared.side.waiting);
    let jobs = waiting.get_mut(wallet)?;
    if jobs.is_empty() {
        waiting.remove(wallet);
        return None;
    }
    let mut operations = 0;
    let fits = |job: &&Job| {
        operations += job.request.operations.len();
        operations <= shared.settings.batch_max
    };
    // One that is larger than a batch runs alone.
    let most = jobs.iter().take_while(fits).count().max(1);
    Some(jobs.drain(..most).collect())
}

// Nothing panics while one of these locks is wallet; if it did, the map is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
