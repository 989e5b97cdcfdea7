//! What a projector does besides its feeds, once a second: parked wallets whose time has come, and
//! a checkpoint that an operator moved back.

use std::time::Duration;

use tokio::time::Instant;

use super::apply::Outcome;
use super::release::release;
use super::{Job, Projector};
use crate::store::{self, Connection};

const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

impl Projector {
    /// Returns what was applied.
    pub(super) async fn maintain(
        &mut self,
        connection: &mut Connection,
        job: &Job,
    ) -> store::Result<Outcome> {
        self.maintenance_due = Instant::now() + MAINTENANCE_INTERVAL;
        let released = release(connection, job).await?;
        if released.more {
            self.maintenance_due = Instant::now();
        }
        let places = self.kafka.as_ref().map(|kafka| kafka.places().clone()).unwrap_or_default();
        let places: Vec<(i32, i64)> =
            places.iter().map(|(partition, place)| (*partition, place.next_offset)).collect();
        let of = &job.subscription;
        if !places.is_empty() && store::checkpoints::is_moved_back(connection, of, &places).await? {
            tracing::warn!(
                projector = of.projector,
                "a checkpoint was moved back: reading from it"
            );
            self.forget();
        }
        // No record in hand named any of them.
        let (applied, healed) = (released.applied, released.applied);
        let outcome = Outcome { applied, healed, ..Outcome::default() };
        if applied > 0 {
            self.report_applied(&outcome);
        }
        Ok(outcome)
    }
}
