//! What a projector does besides its feeds, once a second: parked wallets whose time has come, and
//! a checkpoint that an operator moved back.

use std::time::Duration;

use tokio::time::Instant;

use super::Projector;
use super::apply::Outcome;
use super::member::Member;
use super::release::{Released, release};
use crate::store::{self, Connection};

const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

impl Projector {
    /// Returns what was applied.
    pub(super) async fn maintain(&mut self, connection: &mut Connection) -> store::Result<Outcome> {
        self.maintenance_due = Instant::now() + MAINTENANCE_INTERVAL;
        let is_joint = self.is_joint();
        let mut outcome = Outcome::default();
        let mut moved_back = false;
        let rebuilding = store::rebuild::is_running(connection).await?;
        for member in &mut self.members {
            let mut released = Released::default();
            if is_joint {
                // A release may wait for locks, and the other projections would wait with it.
                member.is_apart |= rebuilding || member.has_due(connection).await?;
            } else {
                released = member.release(connection).await?;
                member.is_apart = rebuilding || released.more;
            }
            if released.more {
                self.maintenance_due = Instant::now();
            }
            if member.is_moved_back(connection).await? {
                let projector = member.kind.name();
                tracing::warn!(projector, "a checkpoint was moved back: reading from it");
                (moved_back, member.is_apart) = (true, true);
            }
            // No record in hand named any of them.
            let (applied, healed) = (released.applied, released.applied);
            let done = Outcome { applied, healed, ..Outcome::default() };
            if applied > 0 {
                member.report_applied(&done);
            }
            outcome.add(&done);
        }
        if moved_back {
            self.forget();
        }
        Ok(outcome)
    }
}

impl Member {
    async fn release(&self, connection: &mut Connection) -> store::Result<Released> {
        match &self.job {
            Some(job) => release(connection, job).await,
            None => Ok(Released::default()),
        }
    }

    /// Whether some parked wallet's time has come.
    async fn has_due(&self, connection: &mut Connection) -> store::Result<bool> {
        let Some(job) = &self.job else { return Ok(false) };
        let due = store::parked::due(connection, &job.subscription, 1).await?;
        Ok(!due.is_empty())
    }

    async fn is_moved_back(&self, connection: &mut Connection) -> store::Result<bool> {
        let noted = self.places.noted().filter_map(|(partition, place)| {
            Some((partition, place.next_offset?, place.feed_xid?))
        });
        let noted: Vec<(i32, i64, i64)> = noted.collect();
        match &self.job {
            Some(job) if !noted.is_empty() => {
                store::checkpoints::is_moved_back(connection, &job.subscription, &noted).await
            }
            _ => Ok(false),
        }
    }
}
