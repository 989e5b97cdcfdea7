//! Events that cannot be applied together: whose fault it is, found by halves.
//!
//! | what fails | what is done |
//! |---|---|
//! | the way to Postgres | nothing is concluded: the step fails |
//! | the projection's own statements, with no rows at all | a table, a column or a right is missing for every wallet: the step fails |
//! | some wallets, while rows of others are written | these are parked, whatever the code of the error |
//! | every wallet that is tried | the step fails; a few are parked where their values may be at fault |
//!
//! So an error that strikes every wallet is reported by its name and parks a handful at most, and one that
//! strikes one wallet holds up no other.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::apply::EVENTS_MAX;
use super::project::{Goal, Projected, Targets, project};
use super::{Job, report};
use crate::store::checkpoints::{Standing, version_of};
use crate::store::parked::Cause;
use crate::store::{self, Blame, Connection, Error};
use crate::wallet::WalletKey;

/// Events of one transaction, at most; then, of a wallet that fails, fewer and fewer.
const BUDGETS: [i64; 5] = [EVENTS_MAX, 500, 50, 5, 1];
/// For so long a step looks for the wallets at fault. What is applied by then stays so, the next goes on.
const TIME: Duration = Duration::from_secs(20);
/// Wallets that may be parked for each one whose rows were written: where more than four in five fail,
/// it is not the wallets.
const FOR_EACH: usize = 4;
/// Wallets that may be parked with nothing to compare them with: so many a step beside others that go
/// on, and so many in all where none does.
const UNPROVEN: usize = 10;

/// Why a search was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An error that stays.
    Lasting,
    /// Conflicts or time-outs, again and again.
    Passing,
}

/// A wallet and the version that it is to be brought to.
type Wanted = (WalletKey, i64);

/// What was found.
struct Search<'a> {
    job: &'a Job,
    /// Locked in each transaction.
    partitions: &'a [i32],
    begun: Instant,
    applied: u64,
    /// Wallets of which rows were written.
    written: usize,
    failing: Vec<(WalletKey, Error)>,
}

/// Brings wallets to their targets in several transactions, and parks those that cannot be. Returns how
/// many events were applied; with an error some may have been.
pub async fn narrow(
    connection: &mut Connection,
    job: &Job,
    targets: Targets,
    partitions: &[i32],
    reason: Reason,
) -> store::Result<u64> {
    probe(connection, job).await?;
    let wanted = missing(connection, job, targets).await?;
    let begun = Instant::now();
    let mut search = Search { job, partitions, begun, applied: 0, written: 0, failing: Vec::new() };
    let unfinished = search.halve(connection, wanted).await?;
    let left = search.judge(connection, reason).await?;
    unfinished.or(left).map_or(Ok(search.applied), Err)
}

/// Runs the statements of a projection with no rows: fails where they would fail for every wallet.
pub async fn probe(connection: &mut Connection, job: &Job) -> store::Result<()> {
    store::checkpoints::begin_apart(connection).await?;
    let probed = statements(connection, job).await;
    give_up(connection).await;
    probed
}

async fn statements(connection: &mut Connection, job: &Job) -> store::Result<()> {
    let of = &job.subscription;
    store::checkpoints::unparked_lock(connection, of, &job.kind.table, &[]).await?;
    store::parked::parked_of(connection, of, &[]).await?;
    store::recorded::recorded(connection, &[]).await?;
    (job.kind.write)(connection, &[], &Standing::new()).await?;
    store::checkpoints::note(connection, of, &[], &[]).await.map(drop)
}

/// Lists those that are not at their targets, in an order that has nothing to do with their names: wallets
/// that one constraint concerns often have names alike, and would all come first.
async fn missing(
    connection: &mut Connection,
    job: &Job,
    targets: Targets,
) -> store::Result<Vec<Wanted>> {
    let ids: Vec<&WalletKey> = targets.keys().collect();
    let (of, table) = (&job.subscription, &job.kind.table);
    let stands = store::checkpoints::versions(connection, of, table, &ids).await?;
    let behind = |(wallet, target): &Wanted| version_of(&stands, wallet) < *target;
    let mut wanted: Vec<Wanted> = targets.into_iter().filter(behind).collect();
    let order = RandomState::new();
    wanted.sort_by_cached_key(|(wallet, _)| order.hash_one(wallet));
    Ok(wanted)
}

/// The error that led here says more than that of a ROLLBACK; the pool mends the session anyway.
pub async fn give_up(connection: &mut Connection) {
    if let Err(error) = store::rollback(connection).await {
        tracing::debug!(%error, "rollback");
    }
}

/// An error of the way to Postgres ends a search.
fn of_rows(error: Error) -> store::Result<Error> {
    if error.blame() == Blame::None { Err(error) } else { Ok(error) }
}

impl Search<'_> {
    /// Applies what can be. An error: it is not done with all of them.
    async fn halve(
        &mut self,
        connection: &mut Connection,
        wanted: Vec<Wanted>,
    ) -> store::Result<Option<Error>> {
        let mut groups = vec![wanted];
        while let Some(mut group) = groups.pop() {
            let Err(error) = self.reach(connection, &group, EVENTS_MAX).await else { continue };
            let error = of_rows(error)?;
            if self.begun.elapsed() > TIME {
                return Ok(Some(error));
            }
            if group.len() > 1 {
                let half = group.split_off(group.len() / 2);
                groups.extend([half, group]);
                continue;
            }
            if let Some(error) = self.alone(connection, &group).await? {
                self.failing.extend(group.into_iter().map(|(wallet, _)| wallet).zip([error]));
            }
            if self.failing.len() > self.allowed().max(UNPROVEN) && !groups.is_empty() {
                // Enough is known: it is not the wallets.
                return Ok(self.failing.pop().map(|(_, error)| error));
            }
        }
        Ok(None)
    }

    /// One wallet up to the event that cannot be applied, in stretches that become shorter.
    async fn alone(
        &mut self,
        connection: &mut Connection,
        wallet: &[Wanted],
    ) -> store::Result<Option<Error>> {
        let mut last = None;
        for budget in BUDGETS {
            match self.reach(connection, wallet, budget).await {
                Ok(()) => return Ok(None),
                Err(error) => last = Some(of_rows(error)?),
            }
        }
        Ok(last)
    }

    /// One transaction after the other until all targets are reached.
    async fn reach(
        &mut self,
        connection: &mut Connection,
        wanted: &[Wanted],
        budget: i64,
    ) -> store::Result<()> {
        let targets: Targets = wanted.iter().cloned().collect();
        loop {
            store::checkpoints::begin_apart(connection).await?;
            let ended = match self.pass(connection, &targets, budget).await {
                // What is checked at the end of a transaction fails there.
                Ok(projected) => store::commit(connection).await.map(|()| projected),
                Err(error) => Err(error),
            };
            let projected = match ended {
                Ok(projected) => projected,
                Err(error) => {
                    give_up(connection).await;
                    return Err(error);
                }
            };
            self.applied += projected.applied;
            self.written += projected.written;
            if projected.complete {
                return Ok(());
            }
        }
    }

    async fn pass(
        &self,
        connection: &mut Connection,
        targets: &Targets,
        budget: i64,
    ) -> store::Result<Projected> {
        let of = &self.job.subscription;
        if !self.partitions.is_empty() {
            let places: Vec<(&str, i32)> =
                self.partitions.iter().map(|partition| (of.projector, *partition)).collect();
            store::checkpoints::lock(connection, &of.topic, &places).await?;
        }
        // What a newer build wrote is no wallet's fault.
        let goal = Goal { job: self.job, targets, moves: &[], newer_waits: true };
        project(connection, goal, budget).await
    }

    /// Parks the wallets at fault, as far as that is to be believed. An error: it is not, of some of them.
    async fn judge(
        &mut self,
        connection: &mut Connection,
        reason: Reason,
    ) -> store::Result<Option<Error>> {
        let of = &self.job.subscription;
        let mut room = self.allowed();
        if self.written == 0 && !self.failing.is_empty() {
            let parked = store::parked::count(connection, of).await?;
            room = UNPROVEN.saturating_sub(usize::try_from(parked).unwrap_or(usize::MAX));
        }
        let mut left = None;
        for (wallet, error) in std::mem::take(&mut self.failing) {
            let believed = match error.blame() {
                Blame::None => false,
                Blame::Lasting => true,
                Blame::Passing => self.written > 0 && reason == Reason::Passing,
            };
            if !believed || room == 0 {
                left = Some(error);
                continue;
            }
            room -= 1;
            let table = &self.job.kind.table;
            let stands = store::checkpoints::versions(connection, of, table, &[&wallet]).await?;
            let version = version_of(&stands, &wallet) + 1;
            let text = error.told();
            report::parked(self.job, &wallet, version, error.cause(), &text);
            let cause = Cause { text: &text, newer: false };
            store::parked::park(connection, of, &wallet, version, cause).await?;
        }
        Ok(left)
    }

    /// Wallets that may be parked beside those that go on.
    fn allowed(&self) -> usize {
        match self.written {
            0 => 0,
            written => FOR_EACH * written + UNPROVEN,
        }
    }
}
