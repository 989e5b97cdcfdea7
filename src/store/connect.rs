//! Connections: pools, their session settings, and the schema's version.

use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{Connection, Result};
use crate::config::{DatabaseSettings, Secret};

/// Connections that tasks and requests share.
pub type Pool = sqlx::PgPool;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Waiting for a connection longer than this is overload.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// Every statement of the service looks rows up by an index, a few or some thousands of them. A plan
/// made while tables are small would scan or hash them, and be kept when they have grown: until the
/// next ANALYZE the same round cost five times as much.
const BY_INDEX: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];
/// What [`BY_INDEX`] forbids, for statements that read whole tables.
pub(super) const OVER_ALL: &str = "set local plan_cache_mode = auto; set local enable_seqscan = on; \
     set local enable_hashjoin = on; set local enable_mergejoin = on";

/// The pool of the service: its connections work as the application's role, with plans that suit
/// its statements. Connects when first used: the service starts before its database.
pub fn connect_service(settings: &DatabaseSettings) -> Result<Pool> {
    pool(settings, session(&settings.url, "wallex")?.options(BY_INDEX))
}

/// A pool for a command's own work, as the application's role.
pub fn connect_pool(settings: &DatabaseSettings) -> Result<Pool> {
    pool(settings, session(&settings.url, "wallex")?)
}

fn pool(settings: &DatabaseSettings, options: PgConnectOptions) -> Result<Pool> {
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| Box::pin(async move { take_role(connection).await }))
        .after_release(|connection, _| Box::pin(async move { is_idle(connection).await }))
        .connect_lazy_with(options))
}

/// One connection of a lane: as the application's role, with plans that suit batches.
pub async fn connect_lane(url: &Secret, lock_timeout: Duration) -> Result<Connection> {
    let options = session(url, "wallex-lane")?
        .options(BY_INDEX)
        .options([("lock_timeout", &lock_timeout.as_millis().to_string())]);
    let mut connection = Connection::connect_with(&options).await?;
    take_role(&mut connection).await?;
    Ok(connection)
}

/// Whether the driver takes both addresses; the error names the setting and shows neither.
pub fn check_settings(settings: &DatabaseSettings) -> std::result::Result<(), String> {
    let urls =
        [("DATABASE_URL", &settings.url), ("DATABASE_MIGRATION_URL", &settings.migration_url)];
    for (name, url) in urls {
        session(url, "wallex").map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// Brings the schema up to date as the owner.
pub async fn migrate(settings: &DatabaseSettings) -> Result<()> {
    let options = session(&settings.migration_url, "wallex-migrate")?
        .options([("statement_timeout", "0"), ("lock_timeout", "0")]);
    let mut connection = Connection::connect_with(&options).await?;
    MIGRATIONS.run(&mut connection).await.map_err(sqlx::Error::from)?;
    Ok(())
}

/// A session of the owner, for work that takes long.
pub async fn connect_owner(settings: &DatabaseSettings) -> Result<Connection> {
    let options = session(&settings.migration_url, "wallex-owner")?
        .options(BY_INDEX)
        .options([("statement_timeout", "0"), ("lock_timeout", "5000")]);
    Ok(Connection::connect_with(&options).await?)
}

/// How many migrations the database lacks.
pub async fn pending_migrations(pool: &Pool) -> Result<usize> {
    let exists: Option<String> =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations')::text").fetch_one(pool).await?;
    let applied: Vec<i64> = match exists {
        None => Vec::new(),
        Some(_) => {
            sqlx::query_scalar("select version from _sqlx_migrations where success")
                .fetch_all(pool)
                .await?
        }
    };
    Ok(MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version)).count())
}

/// Session settings that every connection has: no statement, lock or silence lasts for ever.
pub(super) fn session(url: &Secret, application: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url.expose())?;
    Ok(options.application_name(application).options([
        ("statement_timeout", "30000"),
        ("lock_timeout", "5000"),
        ("idle_in_transaction_session_timeout", "10000"),
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "3"),
        ("jit", "off"),
        ("timezone", "UTC"),
    ]))
}

/// A cancelled BEGIN may have left the session inside a transaction: such a one is not used again.
/// As a simple query: there a statement's time and its transaction's are the same, unless the
/// transaction is older. (A ROLLBACK would do too, and have the server log a warning each time.)
async fn is_idle(connection: &mut Connection) -> std::result::Result<bool, sqlx::Error> {
    use sqlx::Row as _;
    let question = sqlx::raw_sql("select now() = statement_timestamp() as idle");
    // A silent server must not keep the place in the pool: the error ends the connection.
    let asked = sqlx::Executor::fetch_one(connection, question);
    let silent = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(ACQUIRE_TIMEOUT, asked).await.map_err(silent)??.try_get("idle")
}

/// Works as `wallex_app` where the login may: that role can add to the books, never change them.
async fn take_role(connection: &mut Connection) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(
        "select set_config('role', rolname, false) from pg_roles \
         where rolname = 'wallex_app' and pg_has_role(current_user, oid, 'member')",
    )
    .execute(connection)
    .await
    .map(drop)
}
