//! Connections: the pools and what each is for, the lanes' own sessions, and the schema's version.

mod migrations;
mod reads;
mod roles;
mod session;
pub(super) mod stale;
mod way;

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::PgPoolOptions;

pub use migrations::migrate;
pub(super) use migrations::{missing, newest};
pub use reads::Reads;
pub(super) use session::{OVER_ALL, Session};
pub use way::{SHARED, Way};

use super::{Connection, Error, Result, schema};
use crate::config::DatabaseSettings;
use schema::Misfit;

/// Connections that tasks and requests share.
pub type Pool = sqlx::PgPool;

/// Waiting for a connection longer than this is overload.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// The projectors keep one each; publisher and leases must get on beside them.
const PIPELINE_LEAST: u32 = 4;
const UPKEEP: u32 = 2;
const HEALTH: u32 = 2;

/// The service's connections, apart by what they are for: a use that exhausts one of these holds up
/// no other. They work as the application's role, and connect when first used: the service
/// starts before its database.
#[derive(Debug, Clone)]
pub struct Pools {
    /// Publisher, projectors, leases, inbound commands: short statements that must not wait.
    pub pipeline: Pool,
    /// What HTTP reads: half of `DATABASE_MAX_CONNECTIONS`, and no statement of more than 5 s.
    pub reads: Reads,
    /// What may take its time: retention, republications, the admin routes.
    pub upkeep: Pool,
    /// The health pages.
    pub health: Pool,
    /// Readiness alone: one question at a time, that nothing can stand before.
    pub probe: Pool,
}

impl Pools {
    pub fn new(way: &Way, settings: &DatabaseSettings) -> Result<Self> {
        let most = settings.max_connections;
        let reads = (most / 2).max(1);
        let brief = |name, timeout| Session::service(name).with("statement_timeout", timeout);
        Ok(Self {
            pipeline: pool(way, Session::service("wallex"), (most - reads).max(PIPELINE_LEAST))?,
            reads: Reads::new(way, brief("wallex-reads", "5000"), reads)?,
            upkeep: pool(way, Session::service("wallex-upkeep"), UPKEEP)?,
            health: pool(way, brief("wallex-health", "2000"), HEALTH)?,
            probe: pool(way, brief("wallex-probe", "2000"), 1)?,
        })
    }

    /// Sessions that all of them may have open.
    pub fn sessions(settings: &DatabaseSettings) -> u32 {
        let reads = (settings.max_connections / 2).max(1);
        reads + (settings.max_connections - reads).max(PIPELINE_LEAST) + UPKEEP + HEALTH + 1
    }

    /// Says goodbye to Postgres.
    pub async fn close(&self) {
        let Self { pipeline, reads, upkeep, health, probe } = self;
        futures_util::future::join_all(
            [pipeline, reads.pool(), upkeep, health, probe].map(sqlx::Pool::close),
        )
        .await;
    }
}

/// A pool for a command's own work, as the application's role. Fails where the way to the database
/// is none to use; one that is away is noticed at the first question.
pub async fn connect_pool(settings: &DatabaseSettings) -> Result<Pool> {
    let way = Way::new(&settings.url);
    if let Err(error) = way.check().await
        && error.is_refusal()
    {
        return Err(error);
    }
    let session = Session::new("wallex").with_role();
    pool(&way, session, settings.max_connections)
}

fn pool(way: &Way, session: Session, most: u32) -> Result<Pool> {
    pool_with(PgPoolOptions::new().max_connections(most), way, session)
}

fn pool_with(options: PgPoolOptions, way: &Way, session: Session) -> Result<Pool> {
    let connect = session.options(way.url())?;
    let way = way.clone();
    Ok(options
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            let (way, session) = (way.clone(), session.clone());
            Box::pin(async move {
                way.check().await?;
                session.configure(connection).await
            })
        })
        .after_release(move |connection, of| {
            let suspect = stale::is_suspect(of.age);
            Box::pin(async move { Ok(!suspect && is_usable(connection).await?) })
        })
        .connect_lazy_with(connect))
}

/// One connection of a lane: as the application's role, with plans that suit batches. An error of
/// [`Error::is_misfit`] where the schema does not fit this build.
pub async fn connect_lane(way: &Way, lock_timeout: Duration) -> Result<Connection> {
    let session = Session::service("wallex-lane")
        .with("lock_timeout", lock_timeout.as_millis().to_string())
        .durable();
    let mut connection = open(way, &session).await?;
    if !way.is_fit() {
        match schema::misfit(&mut connection).await? {
            Some(misfit @ (Misfit::Missing(_) | Misfit::Later { .. })) => {
                return Err(Error::misfit(misfit.text()));
            }
            _ => way.note_fit(true),
        }
    }
    Ok(connection)
}

async fn open(way: &Way, session: &Session) -> Result<Connection> {
    let mut connection = Connection::connect_with(&session.options(way.url())?).await?;
    way.check().await?;
    session.configure(&mut connection).await?;
    Ok(connection)
}

/// Whether the driver takes both addresses; the error names the setting and shows neither.
pub fn check_settings(settings: &DatabaseSettings) -> std::result::Result<(), String> {
    let urls =
        [("DATABASE_URL", &settings.url), ("DATABASE_MIGRATION_URL", &settings.migration_url)];
    for (name, url) in urls {
        Session::new("wallex").options(url).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// A session of the owner, for work that takes long.
pub async fn connect_owner(settings: &DatabaseSettings) -> Result<Connection> {
    let session = Session::new("wallex-owner").by_index().with("statement_timeout", "0");
    open(&Way::new(&settings.migration_url), &session).await
}

/// A cancelled BEGIN may have left the session inside a transaction: such a one is not used again,
/// nor one that is not the session that was configured. Nor one that cannot write: opened while the
/// database was read-only by default it would stay so for ever, and one of a standby reads the past.
/// As a simple query: there a statement's time and its transaction's are the same, unless the
/// transaction is older. (A ROLLBACK would do too, and have the server log a warning each time.)
async fn is_usable(connection: &mut Connection) -> std::result::Result<bool, sqlx::Error> {
    use sqlx::Row as _;
    let question = sqlx::raw_sql(
        "select now() = statement_timestamp() \
            and current_setting('transaction_read_only') = 'off' \
            and current_setting('wallex.settled', true) is not distinct from 'yes' as usable",
    );
    // A silent server must not keep the place in the pool: the error ends the connection.
    let asked = sqlx::Executor::fetch_one(connection, question);
    let silent = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(ACQUIRE_TIMEOUT, asked).await.map_err(silent)??.try_get("usable")
}
