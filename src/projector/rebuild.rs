//! A projection made again from `events`, wallet by wallet, while it is read and written.
//!
//! | step | transaction |
//! |---|---|
//! | a few wallets: lock their versions, clear their rows, apply their events from the first | one |
//! | a wallet that this fails for: delete its rows and park it; its release applies what it can | one, then the release's |
//! | rows that no event and no wallet stands behind | one |
//!
//! Readers see a wallet's old rows until its new ones are committed. Projectors of every instance wait
//! for those wallets only, find their versions where they belong, and take what they bring as copies.
//! Killed at any moment it leaves each wallet old or new, and the next one goes on from its last note.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::project::{Goal, Targets, project};
use super::release::{self, Released};
use super::{Job, Projection};
use crate::config::DatabaseSettings;
use crate::event_cache::EventCache;
use crate::store::archives;
use crate::store::checkpoints::{self, Subscription};
use crate::store::rebuild::{self as tables, Part};
use crate::store::{self, Blame, Connection, Error};
use crate::wallet::{TenantId, WalletKey};

/// Wallets between two notes of how far it is.
const PAGE: i64 = 500;
/// The right to rebuild is asked for this long: Postgres takes a moment to notice that the session of a
/// rebuild has ended.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);
/// Wallets of one transaction, and about how many events: projectors wait for them.
const WALLETS_MAX: usize = 50;
const EVENTS_MAX: i64 = 5000;
/// Attempts at a transaction that ends in a conflict or a time-out, and the pause between them.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// Wallets that may fail for each one whose rows were written, and beside those: where more do, it is
/// not the wallets.
const FAILED_FOR_EACH: usize = 4;
const FAILED_MORE: usize = 10;

/// Why a projection was not rebuilt. Each wallet is as it was, or as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("another rebuild is running; `wallex projections status` shows how far it is")]
    Running,
    #[error(
        "this login may not replace rows of {table}: set DATABASE_MIGRATION_URL to the owner's"
    )]
    NotOwner { table: &'static str },
    #[error("stopped before the end; another rebuild within a day goes on from there")]
    Stopped,
    #[error("{0}")]
    Archived(String),
    #[error(transparent)]
    Store(#[from] Error),
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
    kind: &'static Projection,
    topic: String,
    /// Wallets of which rows were written.
    written: usize,
    /// Wallets that failed, alone, and were left as they were.
    failed: Vec<(WalletKey, Error)>,
}

impl Rebuild {
    /// Connects as the owner, and makes sure that no other rebuild runs.
    pub async fn open(
        database: &DatabaseSettings,
        topic: &str,
        kind: &'static Projection,
    ) -> Result<Self, RebuildError> {
        let mut connection = store::connect_owner(database).await?;
        let table = kind.table.name;
        if !tables::is_allowed(&mut connection, table).await? {
            return Err(RebuildError::NotOwner { table });
        }
        if let Some(what) = archives::missing_since(&mut connection, None).await? {
            return Err(RebuildError::Archived(what));
        }
        let begun = Instant::now();
        while !tables::claim(&mut connection).await? {
            if begun.elapsed() > CLAIM_TIMEOUT {
                return Err(RebuildError::Running);
            }
            tokio::time::sleep(CLAIM_TIMEOUT / 10).await;
        }
        let topic = topic.to_owned();
        Ok(Self { connection, kind, topic, written: 0, failed: Vec::new() })
    }

    /// Counts the events that there are to apply.
    pub async fn extent(&mut self) -> Result<i64, RebuildError> {
        Ok(tables::extent(&mut self.connection).await?)
    }

    /// Rebuilds. Returns the number of events applied, those before it was broken off among them.
    pub async fn run(
        mut self,
        stop: &CancellationToken,
        mut progress: impl FnMut(Filled) + Send,
    ) -> Result<Filled, RebuildError> {
        let (begun, projector) = (Instant::now(), self.kind.name());
        let default = TenantId::default_tenant();
        let parts = tables::begin(&mut self.connection, projector, &default).await?;
        let of = tables::extent(&mut self.connection).await?;
        let before = parts.iter().map(|part| part.events).sum();
        let mut filled = Filled { events: before, of, elapsed: Duration::ZERO };
        let job = self.job();
        for part in parts {
            let Part { tenant_id, mut after_wallet, events: noted } = part;
            let tenant = TenantId::stored(&tenant_id);
            let others = filled.events - noted;
            loop {
                let page =
                    tables::wallets_after(&mut self.connection, &tenant, &after_wallet, PAGE)
                        .await?;
                let Some((last, _)) = page.last().cloned() else { break };
                for wallets in batches(page) {
                    filled.events += self.replace(&job, &wallets).await?;
                    filled.elapsed = begun.elapsed();
                    progress(filled);
                    if stop.is_cancelled() {
                        return Err(RebuildError::Stopped);
                    }
                }
                filled.events += self.park_failed(&job).await?;
                // Wallets that were left are found again by the next one.
                if self.failed.is_empty() {
                    let (connection, events) = (&mut self.connection, filled.events - others);
                    tables::note(connection, &job.subscription, &last, events).await?;
                }
                last.1.as_str().clone_into(&mut after_wallet);
            }
            if let Some((_, error)) = self.failed.pop() {
                return Err(error.into());
            }
        }
        tables::remove_orphans(&mut self.connection, &self.kind.table, projector).await?;
        tables::finish(&mut self.connection, projector).await?;
        filled.elapsed = begun.elapsed();
        progress(filled);
        Ok(filled)
    }

    fn job(&self) -> Job {
        Job {
            kind: self.kind,
            subscription: Subscription { projector: self.kind.name(), topic: self.topic.clone() },
            partitions: 0,
            deployment: None,
            event_cache: EventCache::default(),
        }
    }

    /// Replaces some wallets together, or one by one where that fails. Returns the events applied.
    async fn replace(&mut self, job: &Job, wallets: &[WalletKey]) -> store::Result<i64> {
        let error = match self.patiently(job, wallets).await {
            Ok(applied) => return Ok(applied),
            Err(error) => error,
        };
        match (error.blame(), wallets) {
            (Blame::Lasting, [wallet]) => {
                self.failed.push((wallet.clone(), error));
                Ok(0)
            }
            (Blame::Lasting, _) => {
                let mut applied = 0;
                for wallet in wallets {
                    let one = std::slice::from_ref(wallet);
                    applied += Box::pin(self.replace(job, one)).await?;
                }
                Ok(applied)
            }
            _ => Err(error),
        }
    }

    /// Replaces some wallets in one transaction, again after a conflict or a time-out.
    async fn patiently(&mut self, job: &Job, wallets: &[WalletKey]) -> store::Result<i64> {
        let ids: Vec<&WalletKey> = wallets.iter().collect();
        let (of, table) = (&job.subscription, &self.kind.table);
        checkpoints::versions_open(&mut self.connection, of, table, &ids).await?;
        let mut tries = TRIES;
        loop {
            checkpoints::begin(&mut self.connection).await?;
            let ended = match self.pass(job, &ids).await {
                // What is checked at the end of a transaction fails there.
                Ok(done) => store::commit(&mut self.connection).await.map(|()| done),
                Err(error) => Err(error),
            };
            match ended {
                Ok((applied, written)) => {
                    self.written += written;
                    return Ok(applied);
                }
                Err(error) => {
                    super::narrow::give_up(&mut self.connection).await;
                    tries -= 1;
                    if error.blame() != Blame::Passing || tries == 0 {
                        return Err(error);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// One transaction's worth: events applied, and wallets of which rows were written.
    async fn pass(&mut self, job: &Job, wallets: &[&WalletKey]) -> store::Result<(i64, usize)> {
        let (connection, of, table) = (&mut self.connection, &job.subscription, &self.kind.table);
        checkpoints::versions_lock(connection, of, table, wallets).await?;
        let cleared = tables::clear(connection, of, table, wallets).await?;
        let targets: Targets = cleared.into_iter().collect();
        let (mut applied, mut written) = (0, 0);
        loop {
            let goal = Goal { job, targets: &targets, moves: &[], newer_waits: false };
            let projected = project(connection, goal, EVENTS_MAX).await?;
            applied += i64::try_from(projected.applied).unwrap_or(0);
            written += projected.written;
            if projected.complete {
                tables::remove_cleared(connection, table, wallets).await?;
                return Ok((applied, written));
            }
        }
    }

    /// Parks the wallets that failed, where others did not; what can be applied of them is. An error: it
    /// is not the wallets.
    async fn park_failed(&mut self, job: &Job) -> store::Result<i64> {
        if self.failed.len() > FAILED_FOR_EACH * self.written + FAILED_MORE
            && let Some((_, error)) = self.failed.pop()
        {
            return Err(error);
        }
        if self.written == 0 {
            return Ok(0);
        }
        let mut released = Released::default();
        for (wallet, error) in std::mem::take(&mut self.failed) {
            self.park(job, &wallet, &error.told()).await?;
            loop {
                released.more = false;
                release::one(&mut self.connection, job, &wallet, &mut released).await?;
                if !released.more {
                    break;
                }
            }
        }
        Ok(i64::try_from(released.applied).unwrap_or(0))
    }

    /// Takes a wallet's rows away and parks it, due at once.
    async fn park(&mut self, job: &Job, wallet: &WalletKey, cause: &str) -> store::Result<()> {
        let (connection, of, ids) = (&mut self.connection, &job.subscription, [wallet]);
        let table = &self.kind.table;
        store::begin(connection).await?;
        let parked = async {
            checkpoints::versions_lock(connection, of, table, &ids).await?;
            tables::clear(connection, of, table, &ids).await?;
            tables::remove_cleared(connection, table, &ids).await?;
            tables::park_due(connection, of, wallet, cause).await
        };
        if let Err(error) = parked.await {
            super::narrow::give_up(&mut self.connection).await;
            return Err(error);
        }
        store::commit(&mut self.connection).await
    }
}

/// Wallets that are replaced together.
fn batches(page: Vec<(WalletKey, i64)>) -> Vec<Vec<WalletKey>> {
    let (mut batches, mut events) = (vec![Vec::new()], 0);
    for (wallet, version) in page {
        let full = batches.last().is_some_and(|batch: &Vec<WalletKey>| {
            batch.len() == WALLETS_MAX || (!batch.is_empty() && events + version > EVENTS_MAX)
        });
        if full {
            batches.push(Vec::new());
            events = 0;
        }
        events += version;
        if let Some(batch) = batches.last_mut() {
            batch.push(wallet);
        }
    }
    batches
}
