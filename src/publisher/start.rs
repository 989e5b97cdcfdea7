//! What may start now: the one place that looks at phases, pauses and flags together. Starts jobs,
//! never waits.

use tokio::time::Instant;

use super::partition::{Partition, Phase};
use super::{Publisher, Topics};

impl Publisher {
    /// Starts whatever may start now. At shutdown: marks only.
    pub(super) fn start_jobs(&mut self) {
        let now = Instant::now();
        let store_ready = self.store_pause.is_over(now);
        if store_ready && !self.settling && !self.settlement.is_empty() {
            self.settling = true;
            self.jobs.push(self.shared.settle(std::mem::take(&mut self.settlement)));
        }
        if self.stopping {
            return;
        }
        if store_ready && self.measure_due && !self.measuring {
            self.measure_due = false;
            self.measuring = true;
            self.jobs.push(self.shared.measure());
        }
        if store_ready {
            self.start_leasing(now);
        }
        // On a lease that may have run out nothing is begun; and nothing that must fail.
        if self.breaker.allows().is_err() {
            return;
        }
        if self.topics == Topics::Due && self.kafka_pause.is_over(now) {
            self.topics = Topics::Preparing;
            self.jobs.push(self.shared.prepare());
        }
        if self.topics == Topics::Ready && self.term.stands(now) {
            self.start_reading_and_claiming(now, store_ready);
        }
    }

    fn start_reading_and_claiming(&mut self, now: Instant, store_ready: bool) {
        for number in self.ready(now, Phase::Doubtful) {
            if let Some(partition) = self.partitions.get_mut(&number) {
                partition.phase = Phase::Busy;
                let job = self.shared.read_back(number, partition.epoch, partition.last_offset);
                self.jobs.push(job);
            }
        }
        if now >= self.rest_until {
            self.rest_now(now, self.rest);
        }
        if self.claiming || !store_ready || now < self.rest_until {
            return;
        }
        let idle = self.ready(now, Phase::Idle);
        if !idle.is_empty() {
            for number in &idle {
                if let Some(partition) = self.partitions.get_mut(number) {
                    partition.phase = Phase::Busy;
                    partition.dirty = false;
                }
            }
            self.claiming = true;
            self.round_begun = now;
            self.jobs.push(self.shared.claim(idle, self.limit));
        }
    }

    /// The partitions in this phase that have something to do and may.
    fn ready(&self, now: Instant, phase: Phase) -> Vec<i32> {
        let ready = |partition: &Partition| partition.phase == phase && partition.is_ready(now);
        let found = self.partitions.iter().filter(|(_, partition)| ready(partition));
        found.map(|(number, _)| *number).collect()
    }

    /// When the first pause ends that holds anything up.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let now = Instant::now();
        let topics = (self.topics == Topics::Due).then(|| self.kafka_pause.until()).flatten();
        let waiting = self.partitions.values().filter(|partition| partition.wants_work());
        waiting
            .flat_map(|partition| [partition.pause.until(), partition.lingers])
            .flatten()
            .chain(topics)
            .chain(self.store_pause.until())
            .chain([self.rest_until, self.term.due()])
            .filter(|until| *until > now)
            .min()
    }
}
