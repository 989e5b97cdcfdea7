//! The projector's leases: which partitions this instance projects, so that several share the work.
//! One statement every few seconds; what is above the share is given up between two steps.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Job, Projector};
use crate::seeded::{self, Bug};
use crate::store::leases::{self, Leased};
use crate::store::{self, Connection};

/// At the end the partitions are given up; where Postgres is slow to take that, they run out.
const LEAVE: Duration = Duration::from_secs(2);

impl Projector {
    /// Renews the leases when they are due, and has the feeds follow.
    pub(super) async fn lease(
        &mut self,
        connection: &mut Connection,
        job: &Job,
    ) -> store::Result<()> {
        let begun = Instant::now();
        if !self.term.is_due(begun) {
            return Ok(());
        }
        let leased = leased(job);
        if self.assigned.is_none() {
            leases::open(connection, &leased).await?;
        }
        let instance = &self.wiring.instance;
        let standing = leases::renew(connection, &leased, &instance.member()).await?;
        instance.note(&standing);
        let mut held: Vec<i32> = standing.leases.iter().map(|lease| lease.partition).collect();
        // Leases come before the compare-and-set: to see what it is worth they have to be away.
        if seeded::on(Bug::NoCompareAndSet) {
            held = (0..job.partitions).collect();
        } else if held.len() > standing.share {
            // Nothing is in hand between two steps: what is given up is complete.
            let surplus = held.split_off(standing.share);
            leases::release(connection, &leased, instance.owner(), &surplus).await?;
        }
        self.term.renewed(begun);
        self.hold(connection, job, held.into_iter().collect()).await
    }

    async fn hold(
        &mut self,
        connection: &mut Connection,
        job: &Job,
        held: BTreeSet<i32>,
    ) -> store::Result<()> {
        match &self.assigned {
            None => self.report_assigned(held.len()),
            Some(before) if *before != held => self.report_rebalance(held.len()),
            Some(_) => {}
        }
        self.assigned = Some(held.clone());
        if held == self.held {
            return Ok(());
        }
        let new: Vec<i32> = held.difference(&self.held).copied().collect();
        if let Some(kafka) = &mut self.kafka {
            let places = store::checkpoints::load(connection, &job.subscription, job.partitions);
            kafka.keep(&held);
            kafka.begin(places.await?.iter().filter(|place| new.contains(&place.partition)));
        }
        self.postgres.keep(&held);
        self.held = held;
        Ok(())
    }

    /// Tells the others that this instance stops.
    pub(super) async fn leave(&mut self) {
        let Some(job) = &self.job else { return };
        let leaving = async {
            let mut connection = store::acquire(&self.wiring.pool).await?;
            leases::leave(&mut connection, &leased(job), self.wiring.instance.owner()).await
        };
        if !matches!(timeout(LEAVE, leaving).await, Ok(Ok(()))) {
            tracing::warn!(projector = job.kind.name(), "leases not given up: they run out");
        }
    }
}

fn leased(job: &Job) -> Leased {
    let of = &job.subscription;
    Leased {
        tenant: of.tenant.as_str().to_owned(),
        role: of.projector,
        topic: of.topic.clone(),
        partitions: job.partitions,
    }
}
