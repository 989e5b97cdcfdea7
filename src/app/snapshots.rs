//! Looks every few seconds who holds the oldest snapshot or transaction, and says so where it is old: nobody
//! else notices before the tables have grown.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::{self, Pool, snapshots};

const EVERY: Duration = Duration::from_secs(10);
/// Said once a minute from this age on, in seconds.
const OLD: i64 = 60;

/// Runs until told to stop.
pub(super) async fn watch(pool: Pool, stop: CancellationToken) {
    let mut tick = tokio::time::interval(EVERY);
    let mut quiet_until = tokio::time::Instant::now();
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let asked = store::bounded(EVERY, snapshots::oldest(&pool, 1));
        let held = match stop.run_until_cancelled(asked).await {
            None => return,
            Some(Ok(held)) => held.into_iter().next(),
            Some(Err(error)) => {
                tracing::debug!(%error, "the oldest snapshot is not known");
                continue;
            }
        };
        let seconds = held.as_ref().and_then(|held| held.seconds).unwrap_or(0);
        metrics::gauge!("oldest_snapshot_seconds")
            .set(f64::from(u32::try_from(seconds).unwrap_or(0)));
        let Some(held) = held.filter(|_| seconds >= OLD) else { continue };
        let now = tokio::time::Instant::now();
        if now >= quiet_until {
            quiet_until = now + Duration::from_secs(60);
            tracing::warn!(
                holder = held.text(),
                "an old snapshot keeps Postgres from cleaning up: end it, or let it be short"
            );
        }
    }
}
