//! Parked wallets whose time has come: what they lack is read from `events` and applied.
//!
//! Each in transactions of its own, under the lock of its row in `projected_versions`. Whoever
//! applies new events of the wallet takes the same lock first: until the release commits they are
//! left to it, and it has seen them all; from then on the wallet is fed like the others.

use std::collections::{HashMap, HashSet};

use super::Job;
use super::project::{AtHand, Targets, ranges, stretch};
use crate::store::{self, Class, Connection};
use crate::wallet::WalletId;

/// Wallets tried at once, at most.
const WALLETS: i64 = 20;
/// Events of a wallet in one transaction, at most: its lock is held for so long.
const STRETCH: i64 = 500;
/// Events of one call, about. The other wallets wait for no more.
const EVENTS_MAX: u64 = 2000;

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
    let mut released = Released::default();
    for wallet in store::parked::due(connection, &job.subscription, WALLETS).await? {
        if released.applied >= EVENTS_MAX {
            released.more = true;
            break;
        }
        one(connection, job, &wallet, &mut released).await?;
    }
    Ok(released)
}

/// One wallet, up to its last event or what a call may do.
async fn one(
    connection: &mut Connection,
    job: &Job,
    wallet: &WalletId,
    released: &mut Released,
) -> store::Result<()> {
    let of = &job.subscription;
    store::checkpoints::versions_open(connection, of, wallet).await?;
    let mut budget = STRETCH;
    loop {
        store::checkpoints::begin(connection).await?;
        match pass(connection, job, wallet, budget).await {
            Ok(ended) => {
                store::commit(connection).await?;
                match ended {
                    Ended::Taken => return Ok(()),
                    Ended::Released(applied) => {
                        released.applied += applied;
                        released.wallets += 1;
                        tracing::info!(projector = of.projector, %wallet, "wallet released");
                        return Ok(());
                    }
                    Ended::Failed(applied) => {
                        released.applied += applied;
                        released.failed += 1;
                        return Ok(());
                    }
                    Ended::More(applied) => released.applied += applied,
                }
                if released.applied >= EVENTS_MAX {
                    released.more = true;
                    return Ok(());
                }
            }
            Err(error) => {
                give_up(connection).await;
                if error.class() != Class::Data {
                    return Err(error);
                }
                if budget > 1 {
                    // Event by event up to the one that cannot be applied.
                    budget = 1;
                    continue;
                }
                released.failed += 1;
                return failed(connection, job, wallet, &error.to_string()).await;
            }
        }
    }
}

/// One transaction's worth of a wallet. Neither begins nor commits.
async fn pass(
    connection: &mut Connection,
    job: &Job,
    wallet: &WalletId,
    budget: i64,
) -> store::Result<Ended> {
    let of = &job.subscription;
    let before = store::checkpoints::versions_lock(connection, of, &[wallet.as_str()]).await?;
    if !store::parked::take(connection, of, wallet).await? {
        return Ok(Ended::Taken);
    }
    let last = store::recorded::last_version(connection, &of.tenant, wallet).await?.unwrap_or(0);
    let targets = Targets::from([(wallet.clone(), last)]);
    // It waits, and is to be tried all the same.
    let (ranges, complete) = ranges(&targets, &before, &HashSet::new(), budget);
    let done = stretch(connection, job, &ranges, &AtHand::default(), &before).await?;
    if let Some(found) = done.refused.first() {
        let (version, cause) = (found.version, found.cause.as_str());
        tracing::error!(projector = of.projector, %wallet, version, cause, "wallet stays parked");
        store::parked::failed_again(connection, of, wallet, version, cause).await?;
        return Ok(Ended::Failed(done.applied));
    }
    if complete {
        store::parked::remove(connection, of, wallet).await?;
        return Ok(Ended::Released(done.applied));
    }
    let reached = done.reached.get(wallet).copied();
    store::parked::moved(connection, of, wallet, next(&before, wallet, reached)).await?;
    Ok(Ended::More(done.applied))
}

/// The event behind the last one that is applied cannot be: what Postgres said of it is known.
async fn failed(
    connection: &mut Connection,
    job: &Job,
    wallet: &WalletId,
    cause: &str,
) -> store::Result<()> {
    let of = &job.subscription;
    let before = store::checkpoints::versions_lock(connection, of, &[wallet.as_str()]).await?;
    let version = next(&before, wallet, None);
    tracing::error!(projector = of.projector, %wallet, version, cause, "wallet stays parked");
    store::parked::failed_again(connection, of, wallet, version, cause).await
}

fn next(before: &HashMap<WalletId, i64>, wallet: &WalletId, reached: Option<i64>) -> i64 {
    reached.or_else(|| before.get(wallet).copied()).unwrap_or(0) + 1
}

// The error that led here says more than that of a ROLLBACK; the pool mends the session anyway.
async fn give_up(connection: &mut Connection) {
    if let Err(error) = store::rollback(connection).await {
        tracing::debug!(%error, "rollback");
    }
}
