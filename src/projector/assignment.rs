//! The partitions that this instance projects, so that several share the work.

use std::collections::BTreeSet;

use super::{Job, Projector};
use crate::seeded::{self, Bug};
use crate::store::{self, Connection};

impl Projector {
    /// The partitions to project. Nothing is in hand between two steps: what goes is complete.
    pub(super) fn assigned(&mut self, job: &Job) -> BTreeSet<i32> {
        let assigned = self.leases.assigned(&BTreeSet::new());
        let mut partitions: BTreeSet<i32> =
            assigned.iter().flat_map(|leases| leases.keys().copied()).collect();
        // Leases come before the compare-and-set: to see what it is worth they have to be away.
        if seeded::on(Bug::NoCompareAndSet) {
            partitions = (0..job.partitions).collect();
        }
        match &self.assigned {
            None => self.report_assigned(partitions.len()),
            Some(before) if *before != partitions => self.report_rebalance(partitions.len()),
            Some(_) => {}
        }
        self.assigned = Some(partitions.clone());
        partitions
    }

    /// Has the feeds read these partitions and no others, each new one from its checkpoint.
    pub(super) async fn follow(
        &mut self,
        connection: &mut Connection,
        job: &Job,
        assigned: BTreeSet<i32>,
    ) -> store::Result<()> {
        if let Some(kafka) = &mut self.kafka {
            let places = store::checkpoints::load(connection, &job.subscription, job.partitions);
            let is_new = |n: &i32| assigned.contains(n) && !self.feeding.contains(n);
            kafka.keep(&assigned);
            kafka.begin(places.await?.iter().filter(|place| is_new(&place.partition)));
        }
        self.postgres.keep(&assigned);
        self.feeding = assigned;
        Ok(())
    }
}
