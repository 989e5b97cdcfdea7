//! What the publisher knows of one partition. Decides nothing about others, waits for nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::pause::Pause;
use crate::store::leases::Lease;

/// Where a partition stands between two jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Without a lease.
    #[default]
    Unowned,
    /// The topic may hold more than Postgres knows: to be read back before anything is sent.
    Doubtful,
    Idle,
    /// A job has it: a claim, a send, a read-back or the marks after them.
    Busy,
}

/// How long rows wait for more, and how many bytes of them are enough.
#[derive(Debug, Clone, Copy)]
pub struct Linger {
    pub time: Duration,
    pub bytes: usize,
}

#[derive(Debug, Default)]
pub struct Partition {
    pub phase: Phase,
    pub epoch: i64,
    /// Above this instance's share: no new work, and given up once it is quiet.
    pub leaving: bool,
    /// The lease was lost, or is a new one, while a job had it: where it stands after the job.
    pub after_job: Option<Phase>,
    /// Of the last record known to be ours; none: this topic was never published to.
    pub last_offset: Option<i64>,
    /// There may be rows that no claim has seen.
    pub dirty: bool,
    /// Rows were seen, and wait so long for more.
    pub lingers: Option<Instant>,
    pub pause: Pause,
}

impl Partition {
    /// Whether only its pause, or another job's end, keeps it from a job of its own.
    pub fn wants_work(&self) -> bool {
        match self.phase {
            Phase::Doubtful => true,
            Phase::Idle => self.dirty || self.lingers.is_some(),
            Phase::Unowned | Phase::Busy => false,
        }
    }

    /// May have a job of its own, once nothing else holds it up.
    pub fn is_ready(&self, now: Instant) -> bool {
        let waits = !self.dirty && self.phase == Phase::Idle;
        let lingers = waits && self.lingers.is_some_and(|until| now < until);
        self.wants_work() && !lingers && !self.leaving && self.pause.is_over(now)
    }

    /// Whether rows of `bytes` are to wait for more; begins the wait with the first of them.
    pub fn waits(&mut self, linger: &Linger, bytes: usize, now: Instant) -> bool {
        let until = *self.lingers.get_or_insert(now + linger.time);
        let waits = bytes < linger.bytes && now < until;
        if !waits {
            self.lingers = None;
        }
        waits
    }

    /// Its job is over.
    pub fn rest(&mut self, phase: Phase) {
        self.phase = self.after_job.take().unwrap_or(phase);
    }

    /// What the last renewal says of it; none: it is not, or no longer, ours.
    pub fn lease(&mut self, lease: Option<Lease>) {
        let phase = match lease {
            Some(lease) if lease.epoch == self.epoch && self.phase != Phase::Unowned => return,
            Some(lease) => {
                self.epoch = lease.epoch;
                self.last_offset = lease.last_offset;
                self.pause.reset();
                Phase::Doubtful
            }
            None => Phase::Unowned,
        };
        self.leaving = false;
        match self.phase {
            Phase::Busy => self.after_job = Some(phase),
            _ => self.phase = phase,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(epoch: i64) -> Option<Lease> {
        Some(Lease { partition: 3, epoch, last_offset: Some(7) })
    }

    #[test]
    fn a_partition_new_here_is_read_back_first_and_a_renewed_one_goes_on() {
        let mut partition = Partition::default();
        partition.lease(None);
        assert_eq!(partition.phase, Phase::Unowned);
        partition.lease(lease(4));
        assert_eq!((partition.phase, partition.last_offset), (Phase::Doubtful, Some(7)));
        partition.phase = Phase::Idle;
        partition.lease(lease(4));
        assert_eq!(partition.phase, Phase::Idle, "the same lease, renewed");
        partition.lease(lease(6));
        assert_eq!((partition.phase, partition.epoch), (Phase::Doubtful, 6), "another's meanwhile");
    }

    #[test]
    fn rows_wait_for_more_until_there_are_enough_or_the_time_is_over() {
        let linger = Linger { time: Duration::from_millis(5), bytes: 1000 };
        let begun = Instant::now();
        let mut partition = Partition { phase: Phase::Idle, ..Partition::default() };
        assert!(partition.waits(&linger, 400, begun));
        assert!(partition.wants_work() && !partition.is_ready(begun));
        assert!(partition.is_ready(begun + linger.time));
        partition.dirty = true;
        assert!(partition.is_ready(begun), "there may be more");
        let later = begun + Duration::from_millis(4);
        assert!(partition.waits(&linger, 999, later), "counted from the first");
        assert!(!partition.waits(&linger, 1000, later), "enough");
        assert!(partition.waits(&linger, 400, later), "a new wait");
        assert!(!partition.waits(&linger, 400, later + linger.time), "its time is over");
        let none = Linger { time: Duration::ZERO, bytes: 1000 };
        assert!(!partition.waits(&none, 1, begun));
    }

    #[test]
    fn a_lease_lost_while_a_job_runs_takes_effect_when_the_job_is_over() {
        let mut partition = Partition { phase: Phase::Busy, epoch: 4, ..Partition::default() };
        partition.lease(None);
        assert_eq!(partition.phase, Phase::Busy);
        partition.rest(Phase::Idle);
        assert_eq!(partition.phase, Phase::Unowned);
        partition.rest(Phase::Idle);
        assert_eq!(partition.phase, Phase::Idle, "said once");
    }
}
