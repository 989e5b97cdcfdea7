//! What may start now: the one place that looks at states, pauses and the breaker together. Starts tasks,
//! never waits.

use tokio::time::Instant;

use super::partition::{Event, Partition, State};
use super::{Publisher, TopicState, Turn};

impl Publisher {
    /// Starts whatever may start now. At shutdown: marks only.
    pub(super) fn start_tasks(&mut self) {
        let now = Instant::now();
        let store_ready = self.store_pause.is_over(now);
        if store_ready && !self.marking && !self.marks.is_empty() {
            self.marking = true;
            self.tasks.push(self.shared.mark(std::mem::take(&mut self.marks)));
        }
        if self.stopping {
            return;
        }
        if store_ready && self.measuring == Turn::Due {
            self.measuring = Turn::Running;
            self.tasks.push(self.shared.measure());
        }
        self.take_leases();
        // On a lease that may have run out nothing is begun; and nothing that must fail.
        if self.breaker.allows().is_err() {
            return;
        }
        if self.topic == TopicState::Due && self.kafka_pause.is_over(now) {
            self.topic = TopicState::Preparing;
            self.tasks.push(self.shared.prepare());
        }
        if self.topic == TopicState::Ready && self.leases.stands(now) {
            self.start_reading(now);
            if store_ready {
                self.start_claiming(now);
            }
        }
    }

    fn start_reading(&mut self, now: Instant) {
        let ready = |partition: &Partition| partition.is_ready(now);
        for (number, partition) in &mut self.partitions {
            if partition.state() == State::InDoubt && ready(partition) {
                partition.on(Event::ReadBegun);
                let (epoch, last_offset) = (partition.epoch, partition.last_offset);
                self.tasks.push(self.shared.read_back(*number, epoch, last_offset));
            }
        }
    }

    fn start_claiming(&mut self, now: Instant) {
        if !self.claims.may_begin(now) {
            return;
        }
        let mut asked = Vec::new();
        for (number, partition) in &mut self.partitions {
            if partition.state() == State::Idle && partition.is_ready(now) {
                partition.on(Event::ClaimBegun);
                partition.dirty = false;
                asked.push(*number);
            }
        }
        if asked.is_empty() {
            return;
        }
        let owned = self.partitions.iter().filter(|(_, partition)| partition.is_owned());
        let owned = owned.map(|(number, _)| *number).collect();
        let limit = self.claims.begin(now);
        self.tasks.push(self.shared.claim(owned, asked, limit));
    }

    /// When the first pause ends that keeps something from its task.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let now = Instant::now();
        let topic = (self.topic == TopicState::Due).then(|| self.kafka_pause.until()).flatten();
        let waiting = self.partitions.values().filter(|partition| partition.wants_work());
        waiting
            .flat_map(|partition| [partition.pause.until(), partition.linger_until])
            .flatten()
            .chain(topic)
            .chain(self.store_pause.until())
            .chain([self.claims.rest_until()])
            .filter(|until| *until > now)
            .min()
    }
}
