//! By which time things are old. A clock that leaps ahead (a wrong reading at a boot, a machine restored from
//! a snapshot) makes everything old at once: so ages are judged by a time that follows the database's clock, and
//! that moves no faster than its callers say that time has passed.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::super::time::millis;
use super::super::{Connection, PIPELINE, Result};

/// How much faster than time it runs while it is behind: a day that the service was stopped is made up for in
/// an hour, a leap of a year in two weeks.
const FASTER: u32 = 24;
/// So much is believed at the start of a process, which does not know for how long none ran.
const AT_START: Duration = Duration::from_mins(10);

/// Of the database's clock, what is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    pub believed: DateTime<Utc>,
    /// How far the clock is ahead of that.
    pub ahead: Duration,
}

/// The time that ages are judged by, as it was noted last. All that purges or drops by age goes by it.
pub async fn horizon(connection: &mut Connection) -> Result<DateTime<Utc>> {
    advance(connection, Duration::ZERO).await.map(|horizon| horizon.believed)
}

/// Lets that time follow the clock, by at most `passed`. A clock that was set back takes it along.
pub async fn advance(connection: &mut Connection, passed: Duration) -> Result<Horizon> {
    let (believed, ahead): (DateTime<Utc>, i64) = sqlx::query_as(
        "insert into retention_clock as known (tenant_id, believed_at) \
         values ($1, clock_timestamp()) \
         on conflict on constraint retention_clock_pkey do update set believed_at = \
             least(clock_timestamp(), known.believed_at + $2 * interval '1 ms') \
         returning believed_at, \
             (extract(epoch from clock_timestamp() - believed_at) * 1000)::bigint",
    )
    .bind(PIPELINE)
    .bind(millis(passed))
    .fetch_one(connection)
    .await?;
    let ahead = Duration::from_millis(u64::try_from(ahead).unwrap_or(0));
    Ok(Horizon { believed, ahead })
}

/// Follows the database's clock for one task of this process, whose own clock nothing sets.
#[derive(Debug, Default)]
pub struct Clock(Option<Instant>);

impl Clock {
    /// Looks at it, and believes what passed since the last look.
    pub async fn look(&mut self, connection: &mut Connection) -> Result<Horizon> {
        let passed = self.0.map_or(AT_START, |at| at.elapsed() * FASTER);
        let horizon = advance(connection, passed).await?;
        self.0 = Some(Instant::now());
        Ok(horizon)
    }
}
