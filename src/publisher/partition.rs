//! What the publisher knows of one partition. Decides nothing about others, waits for nothing.

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
    pub pause: Pause,
}

impl Partition {
    /// Whether only its pause, or another job's end, keeps it from a job of its own.
    pub fn wants_work(&self) -> bool {
        match self.phase {
            Phase::Doubtful => true,
            Phase::Idle => self.dirty,
            Phase::Unowned | Phase::Busy => false,
        }
    }

    /// May have a job of its own, once nothing else holds it up.
    pub fn is_ready(&self, now: Instant) -> bool {
        self.wants_work() && !self.leaving && self.pause.is_over(now)
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
