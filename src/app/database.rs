//! The database before anything else: a way to it that loses what sessions are told is refused, and
//! what an operator should know of it is said, at the start and whenever it changes.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::services::Services;
use crate::execute::CONTENDED_SESSIONS;
use crate::status::Status;
use crate::store::facts::{self, Facts};
use crate::store::schema::{self, Misfit};
use crate::store::{self, Pool, Pools, Way};

/// Its name among the tasks that must not end.
pub(super) const TASK: &str = "database";

/// The start waits this long for a verdict; without a database it goes on.
const AT_START: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(10);

/// Fails where the way to the database is none to use. Where that is found later, because the database
/// was away, the service stops.
pub(super) async fn check(way: &Way) -> anyhow::Result<()> {
    match tokio::time::timeout(AT_START, way.check()).await {
        Ok(Err(error)) if error.is_refusal() => Err(error).context("DATABASE_URL"),
        _ => Ok(()),
    }
}

/// Fails where the schema is of a later release that this build cannot work on. One of an earlier release is
/// waited for: commands are answered 503 until it is migrated.
pub(super) async fn fits(pool: &Pool) -> anyhow::Result<()> {
    match tokio::time::timeout(AT_START, schema::misfit_of(pool)).await {
        Ok(Ok(Some(misfit @ Misfit::Later { .. }))) => anyhow::bail!(misfit.text()),
        Ok(Ok(Some(misfit))) => tracing::warn!("commands are not taken yet: {}", misfit.text()),
        _ => {}
    }
    Ok(())
}

/// Looks at it for as long as the service runs.
pub(super) fn watch(s: &Services) -> impl Future<Output = ()> + Send + 'static {
    let lanes = s.settings.commands.lanes + CONTENDED_SESSIONS;
    let watch = Watch {
        way: s.way.clone(),
        pool: s.pools.health.clone(),
        // The listener's, too.
        sessions: Pools::sessions(&s.settings.database)
            .saturating_add(u32::try_from(lanes + 1).unwrap_or(u32::MAX)),
        status: s.status.clone(),
        shutdown: s.shutdown.clone(),
    };
    watch.run(s.stop.clone())
}

struct Watch {
    way: Way,
    pool: Pool,
    /// That this instance may have open.
    sessions: u32,
    status: Status,
    shutdown: CancellationToken,
}

impl Watch {
    async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.watch()).await;
    }

    async fn watch(&self) {
        while let Err(error) = self.way.check().await {
            if error.is_refusal() {
                tracing::error!(%error, "the service stops");
                self.status.update(|pipeline| pipeline.dead_tasks.push(TASK));
                self.shutdown.cancel();
                return std::future::pending().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let mut known = None;
        loop {
            match store::bounded(store::SILENT, facts::look(&self.pool)).await {
                Ok(found) => {
                    measure(&found);
                    if known.as_ref() != Some(&found) {
                        self.tell(&found);
                        known = Some(found);
                    }
                }
                Err(error) => tracing::debug!(%error, "the database is not looked at"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn tell(&self, found: &Facts) {
        let Facts { version, login, role, .. } = found;
        tracing::info!(version, login, role, sessions = self.sessions, "PostgreSQL");
        for warning in found.warnings() {
            tracing::warn!("PostgreSQL: {warning}");
        }
        if u32::try_from(found.sessions).is_ok_and(|most| most < self.sessions) {
            tracing::warn!(
                most = found.sessions,
                "this instance may open more sessions than the server has: raise its max_connections \
                 or lower DATABASE_MAX_CONNECTIONS"
            );
        }
    }
}

fn measure(found: &Facts) {
    let is = |yes: bool| if yes { 1.0 } else { 0.0 };
    metrics::gauge!("database_writable").set(is(found.unwritable().is_none()));
    metrics::gauge!("database_durable").set(is(found.is_durable()));
    metrics::gauge!("database_books_protected").set(is(found.protected == Some(true)));
}
