//! Parked wallets whose time has come: what they lack is read from `events` and applied.
//!
//! Each in transactions of its own, under the lock of the row that has its version. A projector
//! that applies new events of the wallet takes the same lock first: until the release commits they are
//! left to it, and it has seen them all; from then on the wallet is fed like the others.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::Job;
use super::narrow::{give_up, probe};
use super::project::{Targets, apply_ranges, ranges};
use crate::store::checkpoints::{Standing, version_of};
use crate::store::parked::Cause;
use crate::store::{self, Blame, Connection};
use crate::wallet::WalletKey;

/// Wallets tried at once, at most.
const WALLETS: i64 = 20;
/// Events of a wallet in one transaction, at most: its lock is held for so long.
const STRETCH: i64 = 500;
/// Where it meets a conflict or a time-out.
const TRIES: u32 = 3;
/// Events of one call, about. The other wallets wait for no more.
const EVENTS_MAX: u64 = 2000;
/// Nor for longer than about this, where each attempt waits for something.
const TIME: Duration = Duration::from_secs(3);

/// What was done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    pub applied: u64,
    pub wallets: u64,
    /// Wallets that failed again.
    pub failed: u64,
    /// There is more to do at once.
    pub more: bool,
}

/// How one transaction with a wallet ended.
enum Ended {
    /// Another instance is at it, or was.
    Taken,
    Released(u64),
    Failed(u64),
    More(u64),
}

/// Tries the wallets that are due.
pub async fn release(connection: &mut Connection, job: &Job) -> store::Result<Released> {
    let begun = Instant::now();
    let mut released = Released::default();
    for wallet in store::parked::due(connection, &job.subscription, WALLETS).await? {
        if released.applied >= EVENTS_MAX || begun.elapsed() > TIME {
            released.more = true;
            break;
        }
        one(connection, job, &wallet, &mut released).await?;
    }
    Ok(released)
}

/// One wallet, up to its last event or what a call may do.
pub(super) async fn one(
    connection: &mut Connection,
    job: &Job,
    wallet: &WalletKey,
    released: &mut Released,
) -> store::Result<()> {
    let of = &job.subscription;
    store::checkpoints::versions_open(connection, of, &job.kind.table, &[wallet]).await?;
    let (mut budget, mut tries) = (STRETCH, TRIES);
    loop {
        store::checkpoints::begin_apart(connection).await?;
        let ended = match pass(connection, job, wallet, budget).await {
            Ok(ended) => store::commit(connection).await.map(|()| ended),
            Err(error) => Err(error),
        };
        let error = match ended {
            Ok(Ended::More(applied)) => {
                released.applied += applied;
                if released.applied >= EVENTS_MAX {
                    released.more = true;
                    return Ok(());
                }
                continue;
            }
            Ok(ended) => {
                count(job, wallet, &ended, released);
                return Ok(());
            }
            Err(error) => error,
        };
        give_up(connection).await;
        match error.blame() {
            Blame::None => return Err(error),
            Blame::Passing if tries > 1 => tries -= 1,
            // Event by event up to the one that cannot be applied.
            Blame::Lasting if budget > 1 => budget = 1,
            Blame::Lasting | Blame::Passing => {
                // An attempt that no wallet's would have survived does not count.
                probe(connection, job).await?;
                released.failed += 1;
                return failed(connection, job, wallet, &error.told()).await;
            }
        }
    }
}

/// How a wallet's attempt ended, where it did.
fn count(job: &Job, wallet: &WalletKey, ended: &Ended, released: &mut Released) {
    match ended {
        Ended::Taken => {}
        Ended::Released(applied) => {
            released.applied += applied;
            released.wallets += 1;
            let (projector, (tenant, wallet)) = (job.subscription.projector, wallet);
            tracing::info!(projector, %tenant, %wallet, "wallet released");
        }
        Ended::Failed(applied) => {
            released.applied += applied;
            released.failed += 1;
        }
        Ended::More(applied) => released.applied += applied,
    }
}

/// One transaction's worth of a wallet. Neither begins nor commits.
async fn pass(
    connection: &mut Connection,
    job: &Job,
    wallet: &WalletKey,
    budget: i64,
) -> store::Result<Ended> {
    let of = &job.subscription;
    let before =
        store::checkpoints::versions_lock(connection, of, &job.kind.table, &[wallet]).await?;
    if !store::parked::claim(connection, of, wallet).await? {
        return Ok(Ended::Taken);
    }
    let last = store::recorded::last_version(connection, wallet).await?.unwrap_or(0);
    let targets = Targets::from([(wallet.clone(), last)]);
    // It waits, and is to be tried all the same.
    let (ranges, complete) = ranges(&targets, &before, &HashSet::new(), budget);
    let done = apply_ranges(connection, job, &ranges, &before).await?;
    if let Some(found) = done.refused.first() {
        let (version, cause) = (found.version, found.cause.as_str());
        stays(job, wallet, version, cause);
        let cause = Cause { text: cause, newer: found.newer };
        store::parked::record_failure(connection, of, wallet, version, cause).await?;
        return Ok(Ended::Failed(done.applied));
    }
    if complete {
        store::parked::remove(connection, of, wallet).await?;
        return Ok(Ended::Released(done.applied));
    }
    let reached = done.reached.get(wallet).copied();
    store::parked::set_version(connection, of, wallet, next(&before, wallet, reached)).await?;
    Ok(Ended::More(done.applied))
}

/// The event behind the last one that is applied cannot be: what Postgres said of it is known.
async fn failed(
    connection: &mut Connection,
    job: &Job,
    wallet: &WalletKey,
    cause: &str,
) -> store::Result<()> {
    let of = &job.subscription;
    let before = store::checkpoints::versions(connection, of, &job.kind.table, &[wallet]).await?;
    let version = next(&before, wallet, None);
    stays(job, wallet, version, cause);
    let cause = Cause { text: cause, newer: false };
    store::parked::record_failure(connection, of, wallet, version, cause).await
}

fn stays(job: &Job, (tenant, wallet): &WalletKey, version: i64, cause: &str) {
    let projector = job.kind.name();
    tracing::error!(projector, %tenant, %wallet, version, cause, "wallet stays parked");
}

fn next(before: &Standing, wallet: &WalletKey, reached: Option<i64>) -> i64 {
    reached.unwrap_or_else(|| version_of(before, wallet)) + 1
}
