//! The service as a process of its own, with its default settings unless the run changes them.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection};
use wallex::cli::dev::child::free_port;

use crate::wire::Wire;
use crate::world::{Database, World};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Service {
    pub port: u16,
    child: Child,
    url: String,
}

/// How far the pipeline has come: totals over all wallets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Position {
    pub written: i64,
    pub ledger: i64,
    pub read_model: i64,
}

impl Service {
    /// Starts the service over a database and waits until it serves. `more` are further settings.
    pub async fn start(
        world: &World,
        database: &Database,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let log = world.folder.path().join(format!("{}.log", database.name));
        let mut command = Command::new(&world.program);
        command.env_clear().envs([
            ("HOST", "127.0.0.1"),
            ("PORT", &port.to_string()),
            ("DATABASE_URL", &database.url),
            ("KAFKA_BROKERS", &world.kafka.bootstrap),
            ("KAFKA_EVENTS_TOPIC", database.topic),
            ("KAFKA_DLQ_TOPIC", "bench-dlq"),
        ]);
        command.envs(more.iter().copied()).envs(world.changed.iter().cloned());
        command.current_dir(world.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.arg("serve").stderr(File::create(&log)?).spawn()?;
        let mut service = Self { port, child, url: database.url.clone() };
        service.wait_ready().await.with_context(|| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            format!("the service did not start:\n{text}")
        })?;
        Ok(service)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(mut wire) = Wire::open(self.port).await {
                let ready = b"GET /readyz HTTP/1.1\r\nhost: bench\r\n\r\n";
                if wire.call(ready).await.is_ok_and(|status| status == 200) {
                    return Ok(());
                }
            }
            ensure!(self.child.try_wait()?.is_none(), "it ended");
            ensure!(Instant::now() < deadline, "not ready after {} s", PATIENCE.as_secs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }

    /// Waits until nothing is left in the outbox and both projections are in step; how long it
    /// took, and how many events the projection furthest behind had to apply.
    pub async fn drain(&self, patience: Duration) -> anyhow::Result<(Duration, i64)> {
        let mut connection = self.connect().await?;
        let begin = Instant::now();
        let behind = position(&mut connection).await?.behind();
        loop {
            let waiting = waiting(&mut connection).await?;
            let left = position(&mut connection).await?.behind();
            if !waiting && left == 0 {
                connection.close().await?;
                return Ok((begin.elapsed(), behind));
            }
            if begin.elapsed() > patience {
                let waiting = if waiting { "rows wait" } else { "no row waits" };
                bail!("after {patience:?} {waiting} in the outbox, {left} events are unapplied");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks it to stop, and waits; a service that will not is ended.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the service did not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether something has yet to be published. Not how much: counting is not free. Nor is passing by all
/// that is published: the index of what waits is asked, whatever the planner believes of it.
pub async fn waiting(connection: &mut PgConnection) -> anyhow::Result<bool> {
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql("set local enable_seqscan = off").execute(&mut *transaction).await?;
    let waits = sqlx::query_scalar(
        "select /* bench */ exists (select from outbox where processed_at is null)",
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(waits)
}

/// A wallet's version counts its events, so that sums of versions tell how much is applied.
pub async fn position(connection: &mut PgConnection) -> anyhow::Result<Position> {
    Ok(sqlx::query_as(
        "select /* bench */ (select coalesce(sum(version), 0)::bigint from wallets) as written, \
            coalesce(sum(version) filter (where projector = 'ledger-projector'), 0)::bigint \
                as ledger, \
            coalesce(sum(version) filter (where projector = 'read-model-projector'), 0)::bigint \
                as read_model \
         from projected_versions",
    )
    .fetch_one(connection)
    .await?)
}

impl Position {
    /// Events that the slower projection has yet to apply.
    pub fn behind(&self) -> i64 {
        self.written - self.ledger.min(self.read_model)
    }
}
