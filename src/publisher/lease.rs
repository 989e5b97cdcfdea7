//! The publisher's leases: what a renewal means for each partition, and what is released so that every
//! instance has its share.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::partition::Event;
use super::{Publisher, RELEASE_TIMEOUT};
use crate::instance::{Instance, Term};
use crate::store;
use crate::store::leases::Standing;

/// When they are renewed, and whether that is under way.
#[derive(Debug)]
pub struct Leasing {
    instance: Arc<Instance>,
    pub term: Term,
    renewing: bool,
}

impl Leasing {
    pub fn new(instance: &Arc<Instance>) -> Self {
        Self { instance: Arc::clone(instance), term: instance.term(), renewing: false }
    }
}

impl Publisher {
    /// Renews when it is time to, or when something can be released.
    pub(super) fn start_leasing(&mut self, now: Instant) {
        if self.leasing.renewing {
            return;
        }
        let mut released = Vec::new();
        for (number, partition) in &mut self.partitions {
            if partition.release() {
                released.push(*number);
            }
        }
        if !released.is_empty() || self.leasing.term.is_due(now) {
            self.leasing.renewing = true;
            let member = self.leasing.instance.member();
            self.tasks.push(self.shared.lease(released, member));
        }
    }

    pub(super) fn leased(&mut self, begun: Instant, result: store::Result<Standing>) {
        self.leasing.renewing = false;
        let Some(standing) = self.stored(result, "leases not renewed") else { return };
        self.leasing.term.renewed(begun);
        self.leasing.instance.note(&standing);
        let before = self.owned();
        for (number, partition) in &mut self.partitions {
            let lease = standing.leases.iter().find(|lease| lease.partition == *number);
            partition.lease(lease.copied());
        }
        let surplus = standing.leases.len().saturating_sub(standing.share);
        for (index, lease) in standing.leases.iter().rev().enumerate() {
            if let Some(partition) = self.partitions.get_mut(&lease.partition) {
                partition.releasing = index < surplus;
            }
        }
        let owned = self.owned();
        if owned != before {
            let others = standing.others;
            tracing::info!(before, owned, others, "{}: leases moved", self.report.name());
        }
        self.report.partitions(owned);
    }

    /// Marks were refused: another instance has the partition, or had it.
    pub(super) fn lost(&mut self, number: i32) {
        self.report.fenced(number);
        self.leasing.term.hurry();
        if let Some(partition) = self.partitions.get_mut(&number) {
            partition.on(Event::Fenced);
        }
    }

    /// Tells the others that this instance stops.
    pub(super) async fn leave(&mut self) {
        let leaving = self.shared.leave(self.leasing.instance.owner());
        match timeout(RELEASE_TIMEOUT, leaving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "leases not given up: they run out"),
            Err(_) => tracing::warn!("leases not given up in time: they run out"),
        }
    }

    fn owned(&self) -> usize {
        self.partitions.values().filter(|partition| partition.is_owned()).count()
    }
}
