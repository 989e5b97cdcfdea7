//! Looks every few seconds which session holds the oldest snapshot or transaction, and reports one that is
//! old: nothing else shows it before the tables have grown.

use std::time::Duration;

use tokio::time::Instant;

use crate::background::task::Task;
use crate::store::{self, Pool, snapshots};

const EVERY: Duration = Duration::from_secs(10);
/// Said once a minute from this age on, in seconds.
const OLD: i64 = 60;
const QUIET: Duration = Duration::from_secs(60);

pub(super) struct Snapshots {
    pool: Pool,
    told_at: Option<Instant>,
}

impl Snapshots {
    pub fn new(pool: Pool) -> Self {
        Self { pool, told_at: None }
    }
}

impl Task for Snapshots {
    const NAME: &'static str = "snapshots";
    const MAY_BE_CUT: bool = true;
    type Error = store::Error;

    async fn round(&mut self) -> store::Result<Duration> {
        let found = store::bounded(EVERY, snapshots::oldest(&self.pool, 1)).await?;
        let held = found.into_iter().next();
        let seconds = held.as_ref().and_then(|held| held.seconds).unwrap_or(0);
        metrics::gauge!("oldest_snapshot_seconds")
            .set(f64::from(u32::try_from(seconds).unwrap_or(0)));
        let is_quiet = self.told_at.is_some_and(|at| at.elapsed() < QUIET);
        if let Some(held) = held.filter(|_| seconds >= OLD && !is_quiet) {
            self.told_at = Some(Instant::now());
            tracing::warn!(
                holder = held.text(),
                "an old snapshot keeps Postgres from cleaning up: end it, or let it be short"
            );
        }
        Ok(EVERY)
    }
}
