//! A projection made anew from `events`, while the old one is read and written.
//!
//! | phase | what | who is held up |
//! |---|---|---|
//! | fill | every wallet's events into tables beside those in force | nobody |
//! | index | the indexes of the table in force | nobody |
//! | catch up | events of transactions since the fill began, again and again | nobody |
//! | swap | the last of them; versions, parked wallets and table change places | projectors, a second or two; readers for the moment of the commit |
//!
//! Projectors find their versions moved forward and take what they bring as copies. Killed at any
//! moment, the old projection stays in force; another run begins anew.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::narrow::{Reason, narrow};
use super::project::{AtHand, Targets, project};
use super::{Job, Projection};
use crate::config::DatabaseSettings;
use crate::recent::Recent;
use crate::store::checkpoints::{self, Subscription};
use crate::store::rebuild::{self as tables, Target};
use crate::store::{self, Blame, Connection};
use crate::wallet::TenantId;

const WALLETS: i64 = 500;
/// Events in one transaction, at most.
const EVENTS: i64 = 5000;
/// So many are left to the swap, at most: projectors wait for them.
const LAST: i64 = 1000;
/// Rounds of catching up before the swap, whatever is left.
const ROUNDS: usize = 20;
/// The swap gives up its locks and tries again when it cannot have each of them soon.
const ATTEMPTS: usize = 120;
/// Of these, that may end with an error that stays.
const LASTING: usize = 10;
const PAUSE: Duration = Duration::from_millis(500);
const NOTE: Duration = Duration::from_secs(1);

/// Why a projection was not rebuilt. The old one is in force.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("another rebuild is running; `wallex projections status` shows how far it is")]
    Running,
    #[error(
        "this login may not replace {table}: set DATABASE_MIGRATION_URL to the owner's, who may also create schemas"
    )]
    NotOwner { table: &'static str },
    #[error("something has held {table} for minutes: look for long transactions, try again")]
    Busy { table: &'static str },
    #[error("stopped before the end; the projection is as it was")]
    Stopped,
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    pub events: i64,
    /// Events when it began.
    pub of: i64,
    pub elapsed: Duration,
}

/// A rebuild that may begin: it has the right and is the only one.
pub struct Rebuild {
    connection: Connection,
    target: Target,
    kind: &'static Projection,
    topic: String,
}

impl Rebuild {
    /// Connects as the owner, and makes sure that nobody else is at it.
    pub async fn open(
        database: &DatabaseSettings,
        topic: &str,
        kind: &'static Projection,
    ) -> Result<Self, RebuildError> {
        let mut connection = store::connect_owner(database).await?;
        let table = kind.table;
        let home = tables::home(&mut connection, table).await?;
        let home = home.ok_or(RebuildError::NotOwner { table })?;
        if !tables::claim(&mut connection).await? {
            return Err(RebuildError::Running);
        }
        let target = Target { table, projector: kind.name(), home };
        Ok(Self { connection, target, kind, topic: topic.to_owned() })
    }

    /// How many events there are to apply.
    pub async fn extent(&mut self) -> Result<i64, RebuildError> {
        Ok(tables::extent(&mut self.connection).await?.0)
    }

    /// Rebuilds. Returns how many events were applied.
    pub async fn run(
        mut self,
        stop: &CancellationToken,
        mut progress: impl FnMut(Filled) + Send,
    ) -> Result<Filled, RebuildError> {
        let begun = Instant::now();
        tables::note(&mut self.connection, &self.target, 0).await?;
        tables::begin(&mut self.connection, &self.target).await?;
        let (of, xid) = tables::extent(&mut self.connection).await?;
        let jobs = self.jobs().await?;
        let mut filled = Filled { events: 0, of, elapsed: Duration::ZERO };
        let mut noted = Instant::now();
        for job in &jobs {
            let mut after = String::new();
            loop {
                let tenant = &job.subscription.tenant;
                let page =
                    tables::wallets_after(&mut self.connection, tenant, &after, WALLETS).await?;
                let Some((last, _)) = page.last() else { break };
                last.as_str().clone_into(&mut after);
                for part in page.chunks(50) {
                    filled.events += self.apply(job, part.iter().cloned().collect()).await?;
                    filled.elapsed = begun.elapsed();
                    progress(filled);
                    if stop.is_cancelled() {
                        tables::abandon(&mut self.connection).await?;
                        return Err(RebuildError::Stopped);
                    }
                }
                if noted.elapsed() > NOTE {
                    noted = Instant::now();
                    tables::note(&mut self.connection, &self.target, filled.events.max(1)).await?;
                }
            }
        }
        tables::index(&mut self.connection, &self.target).await?;
        filled.events += self.finish(&jobs, xid, filled.events, stop).await?;
        filled.elapsed = begun.elapsed();
        progress(filled);
        Ok(filled)
    }

    /// One for each tenant: the table holds them all.
    async fn jobs(&mut self) -> store::Result<Vec<Job>> {
        let tenants = tables::tenants(&mut self.connection).await?;
        let job = |tenant: String| Job {
            kind: self.kind,
            subscription: Subscription {
                tenant: TenantId::stored(&tenant),
                projector: self.kind.name(),
                topic: self.topic.clone(),
            },
            partitions: 0,
            deployment: None,
            recent: Recent::default(),
        };
        Ok(tenants.into_iter().map(job).collect())
    }

    /// Catches up and swaps.
    async fn finish(
        &mut self,
        jobs: &[Job],
        mut xid: i64,
        before: i64,
        stop: &CancellationToken,
    ) -> Result<i64, RebuildError> {
        let (mut applied, mut lasting) = (0, 0);
        for _ in 0..ATTEMPTS {
            for _ in 0..ROUNDS {
                let mut next = i64::MAX;
                let mut round = 0;
                for job in jobs {
                    let (of, from) = (&job.subscription, xid);
                    let (seen, changed) =
                        tables::changed_since(&mut self.connection, &of.tenant, of.projector, from)
                            .await?;
                    next = next.min(seen);
                    round += self.apply(job, changed.into_iter().collect()).await?;
                }
                applied += round;
                xid = next.min(i64::MAX - 1).max(xid);
                if round <= LAST {
                    break;
                }
            }
            if stop.is_cancelled() {
                tables::abandon(&mut self.connection).await?;
                return Err(RebuildError::Stopped);
            }
            match self.swap(jobs, xid, before + applied).await {
                Ok(last) => return Ok(applied + last),
                Err(error) => {
                    // The last events may be some that cannot be applied: the next round parks their
                    // wallets. What is wrong with the swap itself does not pass.
                    lasting += usize::from(error.blame() == Blame::Lasting);
                    if error.blame() == Blame::Nobody || lasting > LASTING {
                        return Err(error.into());
                    }
                    tracing::debug!(%error, "swap not possible yet");
                    store::rollback(&mut self.connection).await?;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        tables::abandon(&mut self.connection).await?;
        Err(RebuildError::Busy { table: self.target.table })
    }

    /// The last events and the change of places, in one transaction.
    async fn swap(&mut self, jobs: &[Job], xid: i64, before: i64) -> store::Result<i64> {
        let connection = &mut self.connection;
        let mut last = 0;
        store::begin(connection).await?;
        tables::hold_projectors(connection, &self.target).await?;
        for job in jobs {
            let of = &job.subscription;
            // A statement after the locks: it sees all that projectors have applied.
            let (_, changed) =
                tables::changed_since(connection, &of.tenant, of.projector, xid).await?;
            let targets: Targets = changed.into_iter().collect();
            let projected =
                project(connection, job, &targets, &AtHand::default(), i64::MAX).await?;
            last += i64::try_from(projected.applied).unwrap_or(0);
        }
        tables::swap(connection, &self.target, before + last).await?;
        store::commit(connection).await?;
        Ok(last)
    }

    /// Applies some wallets' events up to their targets. An error that stays is narrowed down, so that only
    /// the guilty wallet is parked.
    async fn apply(&mut self, job: &Job, targets: Targets) -> store::Result<i64> {
        match self.apply_together(job, &targets).await {
            Err(error) if error.blame() == Blame::Lasting => {
                let narrowing = narrow(&mut self.connection, job, targets, &[], Reason::Lasting);
                Ok(i64::try_from(narrowing.await?).unwrap_or(0))
            }
            other => other,
        }
    }

    /// In transactions of bounded size.
    async fn apply_together(&mut self, job: &Job, targets: &Targets) -> store::Result<i64> {
        let mut applied = 0;
        loop {
            let connection = &mut self.connection;
            checkpoints::begin(connection).await?;
            match project(connection, job, targets, &AtHand::default(), EVENTS).await {
                Ok(projected) => {
                    store::commit(connection).await?;
                    applied += i64::try_from(projected.applied).unwrap_or(0);
                    if projected.complete {
                        return Ok(applied);
                    }
                }
                Err(error) => {
                    store::rollback(connection).await?;
                    return Err(error);
                }
            }
        }
    }
}
