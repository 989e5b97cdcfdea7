//! The publisher's leases: what they mean for each partition.

use std::collections::BTreeSet;

use super::Publisher;

impl Publisher {
    /// Takes over what is assigned to this instance. What is not any more goes to another one once no task
    /// has it.
    pub(super) fn take_leases(&mut self) {
        let busy = self.partitions.iter().filter(|(_, partition)| partition.is_busy());
        let busy: BTreeSet<i32> = busy.map(|(number, _)| *number).collect();
        let Some(assigned) = self.leases.assigned(&busy) else { return };
        let before = self.owned();
        for (number, partition) in &mut self.partitions {
            partition.lease(assigned.get(number).copied());
        }
        let owned = self.owned();
        if owned != before {
            tracing::info!(before, owned, "{}: leases moved", self.report.name());
            self.report.partitions(owned);
        }
    }

    /// Marks under this epoch were refused: another instance has the partition, or had it.
    pub(super) fn lost(&mut self, number: i32, epoch: i64) {
        self.report.fenced(number);
        self.leases.renew_now();
        if let Some(partition) = self.partitions.get_mut(&number) {
            partition.fence(epoch);
        }
    }

    fn owned(&self) -> usize {
        self.partitions.values().filter(|partition| partition.is_owned()).count()
    }
}
