//! The time that retention goes by, looked at seldom; a clock that is far ahead of it is said aloud.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::store::retention::{self as rows, Horizon};
use crate::store::{self, Connection};

/// Between two looks at the database's clock.
const EVERY: Duration = Duration::from_secs(10);
/// A clock that is further ahead than that is said aloud, once an hour.
const STRANGE: Duration = Duration::from_hours(24);
const QUIET: Duration = Duration::from_hours(1);

#[derive(Debug, Default)]
pub(super) struct Clock {
    clock: rows::Clock,
    /// The last look, and what was believed then.
    seen: Option<(Instant, DateTime<Utc>)>,
    told_at: Option<Instant>,
}

impl Clock {
    pub async fn now(&mut self, connection: &mut Connection) -> store::Result<DateTime<Utc>> {
        if let Some((at, believed)) = self.seen.filter(|(at, _)| at.elapsed() < EVERY) {
            return Ok(believed + at.elapsed());
        }
        let Horizon { believed, ahead } = self.clock.look(connection).await?;
        self.seen = Some((Instant::now(), believed));
        metrics::gauge!("retention_clock_ahead_seconds").set(ahead);
        let is_quiet = self.told_at.is_some_and(|at| at.elapsed() < QUIET);
        if ahead > STRANGE && !is_quiet {
            self.told_at = Some(Instant::now());
            tracing::warn!(
                days = ahead.as_secs() / 86_400,
                "the database's clock is ahead of the time that retention believes: if it is wrong, set it \
                 right; if it is right, retention follows it by a day an hour"
            );
        }
        Ok(believed)
    }
}
