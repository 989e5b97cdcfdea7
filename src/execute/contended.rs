//! Contended wallets: commands whose wallet another transaction has locked wait here, in sessions of
//! their own, so that no other command waits with them.
//!
//! While a wallet has a contended batch, its later commands join that one: they would otherwise take
//! the lock past those who wait for it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::batch::Session;
use super::lane::run_batch;
use super::{QueuedRequest, Request, Shared};
use crate::answer::Failure;
use crate::store::commands::Locking;
use crate::wallet::{TenantId, WalletId};

/// Contended batches that run at once.
pub const SESSIONS_MAX: usize = 8;

type Wallet = (TenantId, WalletId);

#[derive(Debug)]
pub(super) struct ContendedWallets {
    /// Wallets with a contended batch, and the commands that wait for its next turn.
    waiting: Mutex<HashMap<Wallet, Vec<QueuedRequest>>>,
    sessions: Mutex<Vec<Session>>,
    permits: Semaphore,
}

impl Default for ContendedWallets {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            sessions: Mutex::default(),
            permits: Semaphore::new(SESSIONS_MAX),
        }
    }
}

/// Takes out the requests that belong behind a running contended batch; the rest goes on.
pub(super) fn divert(shared: &Shared, requests: Vec<QueuedRequest>) -> Vec<QueuedRequest> {
    let mut waiting = lock(&shared.contended.waiting);
    if waiting.is_empty() {
        return requests;
    }
    let mut rest = Vec::with_capacity(requests.len());
    for queued in requests {
        let behind = wallets(&queued).find(|wallet| waiting.contains_key(wallet));
        match behind {
            Some(wallet) => join(shared, waiting.entry(wallet).or_default(), queued),
            None => rest.push(queued),
        }
    }
    rest
}

/// Starts a contended batch for each wallet in `contended` that has requests, unless it has one already.
pub(super) fn begin(
    shared: &Arc<Shared>,
    requests: Vec<QueuedRequest>,
    contended: &HashSet<Wallet>,
) {
    let mut waiting = lock(&shared.contended.waiting);
    for queued in requests {
        // It was left out for one of them.
        let behind = wallets(&queued).find(|wallet| contended.contains(wallet));
        let Some(wallet) = behind else {
            queued.fail(&Failure::Broken);
            continue;
        };
        if let Some(requests) = waiting.get_mut(&wallet) {
            join(shared, requests, queued);
        } else {
            waiting.insert(wallet.clone(), vec![queued]);
            shared.spawn(run(Arc::clone(shared), wallet));
        }
    }
}

/// The wallets that the queued locks.
fn wallets(queued: &QueuedRequest) -> impl Iterator<Item = Wallet> {
    let Request { tenant, .. } = &queued.request;
    queued.request.wallets().map(|id| (tenant.clone(), id.clone()))
}

fn join(shared: &Shared, requests: &mut Vec<QueuedRequest>, queued: QueuedRequest) {
    if requests.len() < shared.settings.queue_max {
        requests.push(queued);
    } else {
        queued.fail(&Failure::Overloaded);
    }
}

/// Runs one wallet's contended batches until no command waits for it.
async fn run(shared: Arc<Shared>, wallet: Wallet) {
    // The semaphore is never closed.
    let Ok(_permit) = shared.contended.permits.acquire().await else { return };
    let mut session = lock(&shared.contended.sessions).pop();
    while let Some(requests) = next(&shared, &wallet) {
        let (stale, fresh): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(QueuedRequest::is_stale);
        stale.into_iter().for_each(QueuedRequest::fail_busy);
        if !fresh.is_empty() {
            run_batch(&shared, &mut session, fresh, Locking::Wait).await;
        }
    }
    lock(&shared.contended.sessions).extend(session);
}

/// The wallet's next commands, at most a batch; none ends its contended batch.
fn next(shared: &Shared, wallet: &Wallet) -> Option<Vec<QueuedRequest>> {
    let mut waiting = lock(&shared.contended.waiting);
    let requests = waiting.get_mut(wallet)?;
    if requests.is_empty() {
        waiting.remove(wallet);
        return None;
    }
    let mut operations = 0;
    let fits = |queued: &&QueuedRequest| {
        operations += queued.request.operations.len();
        operations <= shared.settings.batch_max
    };
    // One that is larger than a batch runs alone.
    let most = requests.iter().take_while(fits).count().max(1);
    Some(requests.drain(..most).collect())
}

// Nothing panics while one of these locks is wallet; if it did, the map is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
