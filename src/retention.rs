//! Retention: what has done its service is purged, in small steps beside the commands.
//!
//! | table | what goes | when |
//! |---|---|---|
//! | `outbox_batches` | processed batches | `OUTBOX_RETENTION_HOURS` after they were processed |
//! | `idempotency_keys` | the text of a refusal or of a whole request | `IDEMPOTENCY_RETENTION_HOURS` |
//! | `idempotency_keys` | the key itself | `IDEMPOTENCY_KEY_RETENTION_DAYS` |
//! | `dead_letters` | what is settled, or was replayed and has not failed since | `DEAD_LETTER_RETENTION_DAYS` |
//! | `command_batches` | ids of batches | an hour |
//!
//! `events` and `postings` are kept for ever. Each table has a task of its own, at a pace of its own ([`pace`]):
//! one that is slow, or that fails, holds up no other for longer than a step. Only one instance purges a
//! table at a time. What is old is told by a time that does not leap with the database's clock ([`clock`]).

mod clock;
mod pace;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::background::task::Task;
use crate::config::RetentionSettings;
use crate::store::retention::{self as rows, BatchKey, Old};
use crate::store::{self, Connection, Pool};
use clock::Clock;
use pace::Pace;

/// While another instance is at it.
const PAUSE: Duration = Duration::from_secs(5);

/// Purges the tables of all tenants.
#[derive(Debug)]
pub struct Retention(Vec<Purge>);

/// The purge of one table.
#[derive(Debug)]
pub struct Purge {
    pool: Pool,
    settings: RetentionSettings,
    walk: Walk,
    pace: Pace,
    /// When the next walk begins.
    due: Instant,
    /// One step of all purges runs at a time: together they take one connection.
    clock: Arc<Mutex<Clock>>,
}

/// A table, and how far the walk over it has come.
#[derive(Debug)]
enum Walk {
    Outbox(Option<BatchKey>),
    Batches,
    Keys(Option<(String, Vec<u8>)>),
    Letters(Option<i64>),
}

/// Rows purged by one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    pub outbox: i64,
    pub batches: i64,
    pub answers: i64,
    pub keys: i64,
    pub letters: i64,
}

/// What a step found, beside what it purged.
#[derive(Debug, Clone, Copy)]
struct Seen {
    rows: i64,
    /// The walk is at its end.
    young: bool,
    late: Duration,
}

impl Retention {
    pub fn new(pool: Pool, settings: RetentionSettings) -> Self {
        let walks = [Walk::Outbox(None), Walk::Batches, Walk::Keys(None), Walk::Letters(None)];
        let clock = Arc::new(Mutex::new(Clock::default()));
        let purge = |walk| Purge {
            pool: pool.clone(),
            settings: settings.clone(),
            walk,
            pace: Pace::default(),
            due: Instant::now(),
            clock: Arc::clone(&clock),
        };
        Self(walks.into_iter().map(purge).collect())
    }

    /// The tasks: one for each table.
    pub fn purges(self) -> Vec<Purge> {
        self.0
    }

    /// A step over each table whose walk is due. None while another instance is at one of them.
    pub async fn step(&mut self) -> store::Result<Option<Purged>> {
        let mut all = Purged::default();
        for purge in self.0.iter_mut().filter(|purge| purge.due <= Instant::now()) {
            let clock = Arc::clone(&purge.clock);
            let Some((purged, _)) = purge.step(&mut *clock.lock().await).await? else {
                return Ok(None);
            };
            all.outbox += purged.outbox;
            all.batches += purged.batches;
            all.answers += purged.answers;
            all.keys += purged.keys;
            all.letters += purged.letters;
        }
        Ok(Some(all))
    }
}

impl Purge {
    /// One transaction: the next rows, and how long to rest after them. None while another instance is at it.
    async fn step(&mut self, clock: &mut Clock) -> store::Result<Option<(Purged, Duration)>> {
        let begun = Instant::now();
        let mut connection = store::acquire(&self.pool).await?;
        store::begin(&mut connection).await?;
        let taken = match rows::lock(&mut connection, self.walk.number()).await {
            Ok(true) => self.take(&mut connection, clock).await.map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        let Some((purged, seen)) = store::answered(&mut connection, taken).await? else {
            return Ok(None);
        };
        let (took, between) = (begun.elapsed(), self.between());
        self.pace.seen(seen.rows, took, seen.late);
        metrics::gauge!("retention_late_seconds", "table" => self.walk.table()).set(seen.late);
        let rest = if seen.young { between } else { self.pace.rest(took, between) };
        self.due = Instant::now() + rest;
        Ok(Some((purged, rest)))
    }

    async fn take(
        &mut self,
        connection: &mut Connection,
        clock: &mut Clock,
    ) -> store::Result<(Purged, Seen)> {
        let at = clock.now(connection).await?;
        let (ages, limit) = (&self.settings, self.pace.rows());
        let mut purged = Purged::default();
        let seen = match &mut self.walk {
            Walk::Outbox(place) => {
                let old = Old { at, than: ages.outbox };
                let step = rows::outbox(connection, place.as_ref(), old, limit).await?;
                purged.outbox = step.purged;
                seen(step, place)
            }
            Walk::Batches => {
                let old = Old { at, than: ages.batches };
                let step = rows::batches(connection, old, limit).await?;
                purged.batches = step.purged;
                seen(step, &mut None)
            }
            Walk::Keys(place) => {
                let ages = (ages.answers, ages.keys);
                let step = rows::keys(connection, place.as_ref(), at, ages, limit).await?;
                purged.answers = step.answers;
                count("idempotency_answers", step.answers);
                purged.keys = step.walk.purged;
                seen(step.walk, place)
            }
            Walk::Letters(place) => {
                let old = Old { at, than: ages.letters };
                let step = rows::letters(connection, *place, old, limit).await?;
                purged.letters = step.purged;
                seen(step, place)
            }
        };
        let rows = purged.outbox + purged.batches + purged.keys + purged.letters;
        count(self.walk.table(), rows);
        Ok((purged, seen))
    }

    /// The rest between two walks.
    fn between(&self) -> Duration {
        match self.walk {
            Walk::Outbox(_) | Walk::Batches => self.settings.rest,
            Walk::Keys(_) | Walk::Letters(_) => self.settings.rest_of_keys,
        }
    }
}

impl Task for Purge {
    const NAME: &'static str = "retention";
    type Error = store::Error;

    async fn round(&mut self) -> store::Result<Duration> {
        let clock = Arc::clone(&self.clock);
        let mut clock = clock.lock().await;
        let stepped = store::bounded(store::SILENT, self.step(&mut clock)).await?;
        Ok(stepped.map_or(PAUSE, |(_, rest)| rest))
    }
}

impl Walk {
    /// In metrics.
    fn table(&self) -> &'static str {
        match self {
            Self::Outbox(_) => "outbox",
            Self::Batches => "command_batches",
            Self::Keys(_) => "idempotency_keys",
            Self::Letters(_) => "dead_letters",
        }
    }

    /// Among the locks.
    fn number(&self) -> i64 {
        match self {
            Self::Outbox(_) => 0,
            Self::Batches => 1,
            Self::Keys(_) => 2,
            Self::Letters(_) => 3,
        }
    }
}

/// Moves the place behind what was looked at, or back to the beginning.
fn seen<K>(step: rows::Step<K>, place: &mut Option<K>) -> Seen {
    *place = step.last.filter(|_| !step.young);
    Seen { rows: step.seen, young: step.young, late: step.late }
}

fn count(table: &'static str, rows: i64) {
    metrics::counter!("retention_purged_total", "table" => table)
        .increment(u64::try_from(rows).unwrap_or(0));
}
