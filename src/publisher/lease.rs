//! The publisher's leases: what a renewal means for each partition, and what is given up so that
//! every instance has its share.

use tokio::time::{Instant, timeout};

use super::partition::Phase;
use super::{LEAVE, Publisher};
use crate::store;
use crate::store::leases::Standing;

impl Publisher {
    /// Renews when it is time to, or when something can be given up.
    pub(super) fn start_leasing(&mut self, now: Instant) {
        if self.leasing {
            return;
        }
        let quiet = |phase: Phase| matches!(phase, Phase::Idle | Phase::Doubtful);
        let mut given = Vec::new();
        for (number, partition) in &mut self.partitions {
            if partition.leaving && quiet(partition.phase) {
                partition.leaving = false;
                partition.phase = Phase::Unowned;
                given.push(*number);
            }
        }
        if !given.is_empty() || self.term.is_due(now) {
            self.leasing = true;
            self.jobs.push(self.shared.lease(given, self.instance.member()));
        }
    }

    pub(super) fn leased(&mut self, begun: Instant, result: store::Result<Standing>) {
        self.leasing = false;
        let Some(standing) = self.stored(result, "leases not renewed") else { return };
        self.term.renewed(begun);
        self.instance.note(&standing);
        let before = self.owned();
        for (number, partition) in &mut self.partitions {
            let lease = standing.leases.iter().find(|lease| lease.partition == *number);
            partition.lease(lease.copied());
        }
        let surplus = standing.leases.len().saturating_sub(standing.share);
        for (place, lease) in standing.leases.iter().rev().enumerate() {
            if let Some(partition) = self.partitions.get_mut(&lease.partition) {
                partition.leaving = place < surplus;
            }
        }
        let owned = self.owned();
        if owned != before {
            let others = standing.others;
            tracing::info!(before, owned, others, "publisher: leases moved");
            self.status.update(|pipeline| pipeline.publisher.partitions = owned);
        }
    }

    /// Marks were refused: somebody else has the partition, or had it.
    pub(super) fn lost(&mut self, number: i32) {
        tracing::warn!(
            partition = number,
            "lease lost to another instance; its marks were refused"
        );
        metrics::counter!("kafka_outbox_fenced_total").increment(1);
        self.term.hurry();
        if let Some(partition) = self.partitions.get_mut(&number) {
            partition.after_job = None;
            partition.phase = Phase::Unowned;
        }
    }

    /// Tells the others that this instance stops.
    pub(super) async fn leave(&mut self) {
        match timeout(LEAVE, self.shared.leave(self.instance.owner())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "leases not given up: they run out"),
            Err(_) => tracing::warn!("leases not given up in time: they run out"),
        }
    }

    fn owned(&self) -> usize {
        let owned = |phase: Phase, after: Option<Phase>| after.unwrap_or(phase) != Phase::Unowned;
        self.partitions.values().filter(|p| owned(p.phase, p.after_job)).count()
    }
}
