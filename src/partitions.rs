//! Partitions of the tables that grow for years: made ahead of time, and dropped whole where retention allows.
//!
//! | table | partition | dropped |
//! |---|---|---|
//! | `events`, `postings` | a month, by the event's time | never: `wallex archive` takes one away |
//! | `idempotency_keys` | the month that a version 7 UUID names; all other keys in one | `IDEMPOTENCY_KEY_RETENTION_DAYS` after its end, if no key was first used since |
//! | `outbox_batches` | a day, by id: it begins when this task says so | `OUTBOX_RETENTION_HOURS` after its end, if all its batches were processed as long ago |
//!
//! No write needs this task: a day of the outbox goes on until the next one begins, and what has no month lies in a
//! default partition, from which it is moved when its month is made. Locks are asked for with little patience,
//! and asked for again: commands wait no longer than that behind them.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::background::task::Task;
use crate::config::RetentionSettings;
use crate::store::partitions::{self, NamedKey};
use crate::store::retention::Clock;
use crate::store::{self, Connection, Pool};

/// Months and days that are there before they begin.
const AHEAD: i32 = 2;
/// A command waits no longer than this behind a lock that is asked for here.
const PATIENCE: Duration = Duration::from_millis(200);
/// Months that are made in one round for events of a clock that was wrong: more of them wait.
const STRAY_MONTHS: i64 = 3;
/// A lock that was waited for too long, or in a circle; a statement that took too long.
const IN_THE_WAY: [&str; 3] = ["55P03", "40P01", "57014"];
/// Between two rounds, and after one that did not get its locks.
const EVERY: Duration = Duration::from_mins(5);
const AGAIN: Duration = Duration::from_secs(7);
/// A partition must be there for so long before ids are given out for it.
const KNOWN: Duration = Duration::from_hours(1);
/// Reading a day or a month to its end may take so long; the server itself ends it before.
const SILENT: Duration = Duration::from_mins(11);
/// Rows that are looked at in one transaction, and how many of these follow each other in a round.
const ROWS: i64 = 1000;
const STEPS: u32 = 100;
/// A statement takes a lock on every partition of its tables: more than these cost each of them.
const MANY: i64 = 40;

/// Makes and drops partitions.
#[derive(Debug)]
pub struct Partitions {
    pool: Pool,
    settings: RetentionSettings,
    believed: Clock,
    known: Duration,
    /// How far the walk over texts of answers has come; none: at its beginning.
    texts: Option<NamedKey>,
    /// Default partitions whose rows were reported, and tables that were said to have many partitions.
    told: HashMap<String, (i64, bool)>,
}

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    pub made: u32,
    pub begun: bool,
    pub dropped: u32,
    /// Texts of answers.
    pub texts: i64,
    /// A lock was not given in time, or another instance is at it.
    pub is_late: bool,
}

/// What one transaction does: whether a partition was made or dropped, or a day begun.
type Work<'a> = std::pin::Pin<Box<dyn Future<Output = store::Result<bool>> + Send + 'a>>;

impl Partitions {
    pub fn new(pool: Pool, settings: RetentionSettings) -> Self {
        let (believed, told) = (Clock::default(), HashMap::new());
        Self { pool, settings, believed, known: KNOWN, texts: None, told }
    }

    /// With days that begin as soon as they are there.
    pub fn hasty(pool: Pool, settings: RetentionSettings) -> Self {
        Self { known: Duration::ZERO, ..Self::new(pool, settings) }
    }

    /// Makes what is missing, begins a day, drops what is old: each in a transaction of its own, so that a lock
    /// that is not given holds up nothing else.
    pub async fn step(&mut self) -> store::Result<Done> {
        let mut done = Done::default();
        let mut connection = store::acquire(&self.pool).await?;
        let clock = partitions::clock(&mut connection).await?;
        // What is old is judged by a time that does not leap with it.
        let now = self.believed.look(&mut connection).await?.believed;
        for parent in partitions::BY_MONTH {
            for months in 0..=AHEAD {
                let made = transaction(&mut connection, &mut done, |connection| {
                    Box::pin(add_month(connection, parent, clock, months))
                });
                done.made += u32::from(made.await?);
            }
        }
        for month in partitions::stray_months(&mut connection, STRAY_MONTHS).await? {
            for parent in ["events", "postings"] {
                let made = transaction(&mut connection, &mut done, |connection| {
                    Box::pin(add_month(connection, parent, month, 0))
                });
                done.made += u32::from(made.await?);
            }
        }
        for _ in 0..AHEAD {
            let made = transaction(&mut connection, &mut done, |c| Box::pin(add_day(c)));
            done.made += u32::from(made.await?);
        }
        let known = self.known;
        done.begun = transaction(&mut connection, &mut done, |connection| {
            Box::pin(async move {
                Ok(partitions::begin_outbox_day(connection, clock, known).await?.is_some())
            })
        })
        .await?;
        self.drop_old(&mut connection, now, &mut done).await?;
        self.drop_texts(&mut connection, now, &mut done).await?;
        Ok(done)
    }

    async fn drop_old(
        &self,
        connection: &mut Connection,
        now: DateTime<Utc>,
        done: &mut Done,
    ) -> store::Result<()> {
        let (outbox, keys) = (self.settings.outbox, self.settings.keys);
        for day in partitions::old_outbox_days(connection, now, outbox).await? {
            let dropped = transaction(connection, done, |connection| {
                Box::pin(async move {
                    let events = partitions::drop_outbox_day(connection, day, now, outbox).await?;
                    let events = events.and_then(|events| u64::try_from(events).ok());
                    metrics::counter!("retention_purged_total", "table" => "outbox")
                        .increment(events.unwrap_or(0));
                    Ok(events.is_some()
                        && dropped("outbox_batches", &format!("day {}", day.number)))
                })
            });
            done.dropped += u32::from(dropped.await?);
        }
        for month in partitions::old_key_months(connection, now, keys).await? {
            let dropped = transaction(connection, done, |connection| {
                Box::pin(async move {
                    let gone = partitions::drop_key_month(connection, &month, now, keys).await?;
                    Ok(gone && dropped("idempotency_keys", &month.name))
                })
            });
            done.dropped += u32::from(dropped.await?);
        }
        Ok(())
    }

    /// Drops texts of answers under keys that name their time, and keys that lie in no month.
    async fn drop_texts(
        &mut self,
        connection: &mut Connection,
        now: DateTime<Utc>,
        done: &mut Done,
    ) -> store::Result<()> {
        for _ in 0..STEPS {
            let (answers, at) = (self.settings.answers, self.texts.take());
            let texts =
                partitions::texts_of_named_keys(connection, now, at.as_ref(), answers, ROWS);
            let texts = texts.await?;
            done.texts += texts.dropped;
            metrics::counter!("retention_purged_total", "table" => "idempotency_answers")
                .increment(u64::try_from(texts.dropped).unwrap_or(0));
            self.texts = texts.last;
            if self.texts.is_none() {
                break;
            }
        }
        let strays = partitions::stray_keys(connection, now, self.settings.keys, ROWS).await?;
        metrics::counter!("retention_purged_total", "table" => "idempotency_keys")
            .increment(u64::try_from(strays).unwrap_or(0));
        Ok(())
    }

    /// Shows how many partitions there are and what lies in default partitions, and says it where it is new.
    async fn report(&mut self) -> store::Result<()> {
        for extent in partitions::extents(&self.pool).await? {
            let table = extent.parent.clone();
            gauge("table_partitions", &table, extent.partitions);
            gauge("table_default_rows", &table, extent.strays);
            let told = self.told.entry(table.clone()).or_default();
            if extent.strays > told.0 {
                tracing::warn!(
                    table,
                    rows = extent.strays,
                    "rows lie in the default partition: their times are far from now; they are moved when their \
                     month is made, and cost until then: look for a clock that is wrong"
                );
            }
            let is_many = extent.partitions > MANY;
            if is_many && !told.1 {
                tracing::warn!(
                    table,
                    partitions = extent.partitions,
                    "every statement pays for each partition: take the oldest away with `wallex archive`"
                );
            }
            *told = (extent.strays, is_many);
        }
        Ok(())
    }
}

impl Task for Partitions {
    const NAME: &'static str = "partitions";
    type Error = store::Error;

    async fn round(&mut self) -> store::Result<Duration> {
        let done = store::bounded(SILENT, self.step()).await?;
        store::bounded(store::SILENT, self.report()).await?;
        Ok(if done.is_late { AGAIN } else { EVERY })
    }
}

/// Does something under the lock of all who do this, in a transaction. A lock that is not given in time is no
/// failure: it is asked for again in the next round.
async fn transaction<'c, F>(
    connection: &'c mut Connection,
    done: &mut Done,
    work: F,
) -> store::Result<bool>
where
    F: for<'w> FnOnce(&'w mut Connection) -> Work<'w>,
{
    store::begin(connection).await?;
    let result = match partitions::try_lock(connection, PATIENCE).await {
        Ok(true) => work(connection).await,
        Ok(false) => {
            done.is_late = true;
            Ok(false)
        }
        Err(error) => Err(error),
    };
    match store::answered(connection, result).await {
        Err(error) if error.sqlstate().is_some_and(|code| IN_THE_WAY.contains(&&*code)) => {
            done.is_late = true;
            Ok(false)
        }
        answer => answer,
    }
}

async fn add_month(
    connection: &mut Connection,
    parent: &str,
    now: DateTime<Utc>,
    months: i32,
) -> store::Result<bool> {
    let made = partitions::add_month(connection, parent, now, months).await?;
    if let Some(moved) = made {
        tracing::info!(table = parent, months_ahead = months, moved, "a month has its partition");
    }
    Ok(made.is_some())
}

async fn add_day(connection: &mut Connection) -> store::Result<bool> {
    if partitions::days_ahead(connection).await? >= i64::from(AHEAD) {
        return Ok(false);
    }
    let day = partitions::add_outbox_day(connection).await?;
    tracing::debug!(day, "a day of the outbox has its partition");
    Ok(true)
}

fn dropped(table: &'static str, partition: &str) -> bool {
    tracing::info!(table, partition, "an old partition was dropped");
    metrics::counter!("partitions_dropped_total", "table" => table).increment(1);
    true
}

fn gauge(name: &'static str, table: &str, value: i64) {
    let value = u32::try_from(value).unwrap_or(u32::MAX);
    metrics::gauge!(name, "table" => table.to_owned()).set(f64::from(value));
}
