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
//! `events` and `postings` are kept for ever. Only one instance purges at a time. After each
//! step comes a pause that is longer than the step: the slower Postgres is, the less is purged.

use std::time::{Duration, Instant};

use crate::background::task::Task;
use crate::config::RetentionSettings;
use crate::store::retention::{self as rows, BatchKey, Step};
use crate::store::{self, Pool};

/// Rows looked at in one transaction.
const ROWS: i64 = 1000;
/// The pause after a step, in steps.
const YIELD: u32 = 3;
const YIELD_MIN: Duration = Duration::from_millis(5);
/// While another instance is at it.
const PAUSE: Duration = Duration::from_secs(5);

/// Purges the tables of all tenants.
#[derive(Debug)]
pub struct Retention {
    pool: Pool,
    settings: RetentionSettings,
    outbox: Pass<BatchKey>,
    batches: Pass<()>,
    keys: Pass<(String, Vec<u8>)>,
    letters: Pass<i64>,
}

/// A walk over one table, and when the next one begins.
#[derive(Debug)]
struct Pass<K> {
    table: &'static str,
    at: Option<K>,
    due: Instant,
}

/// Rows purged by one [`Retention::step`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    pub outbox: i64,
    pub batches: i64,
    pub answers: i64,
    pub keys: i64,
    pub letters: i64,
}

impl Retention {
    pub fn new(pool: Pool, settings: RetentionSettings) -> Self {
        Self {
            pool,
            settings,
            outbox: Pass::new("outbox"),
            batches: Pass::new("command_batches"),
            keys: Pass::new("idempotency_keys"),
            letters: Pass::new("dead_letters"),
        }
    }

    /// One transaction: the next rows of each table whose walk is due. None while another instance
    /// is at it.
    pub async fn step(&mut self) -> store::Result<Option<Purged>> {
        let mut connection = store::acquire(&self.pool).await?;
        store::begin(&mut connection).await?;
        let result = match rows::lock(&mut connection).await {
            Ok(true) => self.purge(&mut connection).await.map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        store::answered(&mut connection, result).await
    }

    async fn purge(&mut self, connection: &mut store::Connection) -> store::Result<Purged> {
        let ages = &self.settings;
        let now = Instant::now();
        let mut purged = Purged::default();
        if self.outbox.due <= now {
            let step = rows::outbox(connection, self.outbox.at.as_ref(), ages.outbox, ROWS).await?;
            purged.outbox = self.outbox.after(step, ages.rest);
        }
        if self.batches.due <= now {
            let step = rows::batches(connection, ages.batches, ROWS).await?;
            purged.batches = self.batches.after(step, ages.rest);
        }
        if self.keys.due <= now {
            let at = self.keys.at.as_ref();
            let step = rows::keys(connection, at, (ages.answers, ages.keys), ROWS).await?;
            purged.answers = step.answers;
            count("idempotency_answers", step.answers);
            purged.keys = self.keys.after(step.walk, ages.rest_of_keys);
        }
        if self.letters.due <= now {
            let at = self.letters.at;
            let step = rows::letters(connection, at, ages.letters, ROWS).await?;
            purged.letters = self.letters.after(step, ages.rest_of_keys);
        }
        Ok(purged)
    }

    fn next_due(&self) -> Instant {
        let answers = self.keys.due.min(self.letters.due);
        self.outbox.due.min(self.batches.due).min(answers)
    }
}

impl Task for Retention {
    const NAME: &'static str = "retention";
    type Error = store::Error;

    async fn round(&mut self) -> store::Result<Duration> {
        let begun = Instant::now();
        let pause = match store::bounded(store::SILENT, self.step()).await? {
            Some(_) => (begun.elapsed() * YIELD).max(YIELD_MIN),
            None => PAUSE,
        };
        Ok(pause.max(self.next_due().saturating_duration_since(Instant::now())))
    }
}

impl<K> Pass<K> {
    fn new(table: &'static str) -> Self {
        Self { table, at: None, due: Instant::now() }
    }

    /// Goes on behind what was looked at, or after a rest from the beginning. Returns the rows
    /// that were purged.
    fn after(&mut self, step: Step<K>, rest: Duration) -> i64 {
        count(self.table, step.purged);
        self.at = step.last.filter(|_| !step.young);
        if step.young {
            self.due = Instant::now() + rest;
        }
        step.purged
    }
}

fn count(table: &'static str, rows: i64) {
    metrics::counter!("retention_purged_total", "table" => table)
        .increment(u64::try_from(rows).unwrap_or(0));
}
