//! The schema, brought up to date by its owner while instances work on it.
//!
//! A statement that changes a table waits for every transaction that has the table, and all later ones
//! wait behind it: a migration waits no longer than commands may, lets them go on, and tries again. A schema
//! of a later release is left as it is, and nothing fails for it.

use std::str::FromStr as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;

use super::session::Session;
use super::{Way, open, roles};
use crate::backoff::Backoff;
use crate::config::DatabaseSettings;
use crate::store::{Error, Result};

/// For so long commands may wait behind a migration that waits for its lock.
const LOCK_TIMEOUT: &str = "2s";
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The lock is tried for so long: a dump of a large database keeps it for minutes.
const PATIENCE: Duration = Duration::from_mins(10);
/// A lock that was waited for too long, or in a circle: an instance of an earlier release may take the
/// tables in another order than a migration.
const IN_THE_WAY: [&str; 2] = ["55P03", "40P01"];

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("./migrations");
    migrations.set_ignore_missing(true);
    migrations
});

/// Brings the schema up to date as the owner, and lets the service's login work as the
/// application's role where the owner may. Returns what an administrator has to do for that. `tell` is called
/// with a line for the operator each time that another session is in the way.
pub async fn migrate(settings: &DatabaseSettings, tell: impl Fn(&str)) -> Result<Option<String>> {
    let begun = Instant::now();
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    loop {
        match attempt(settings).await {
            Err(error) if error.sqlstate().is_some_and(|code| IN_THE_WAY.contains(&&*code)) => {
                if begun.elapsed() > PATIENCE {
                    return Err(Error::refused(
                        "other sessions keep what the migration has to lock: end them (pg_stat_activity \
                         lists them by xact_start), and migrate again",
                    ));
                }
                tell("a migration waits for a lock of another session; trying on");
                tokio::time::sleep(backoff.fail()).await;
            }
            ended => return ended,
        }
    }
}

async fn attempt(settings: &DatabaseSettings) -> Result<Option<String>> {
    let session = Session::new("wallex-migrate")
        .with("statement_timeout", "0")
        .with("lock_timeout", LOCK_TIMEOUT);
    let mut connection = open(&Way::new(&settings.migration_url), &session).await?;
    MIGRATIONS.run(&mut connection).await.map_err(cause)?;
    let service = PgConnectOptions::from_str(settings.url.expose())?;
    roles::prepare(&mut connection, service.get_username(), &MIGRATIONS).await
}

/// A lock in the way as the error that it is; others name their migration.
fn cause(error: MigrateError) -> sqlx::Error {
    let is_lock = |error: &sqlx::Error| {
        let code = error.as_database_error().and_then(|error| error.code());
        code.is_some_and(|code| IN_THE_WAY.contains(&&*code))
    };
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)
            if is_lock(&error) =>
        {
            error
        }
        error => error.into(),
    }
}

/// The newest migration that this build knows.
pub(in crate::store) fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// How many of the migrations in `applied` are missing.
pub(in crate::store) fn missing(applied: &[i64]) -> usize {
    MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version)).count()
}
