//! What the publisher knows of one partition, pure.

use super::pause::Pause;

/// Where a partition stands between two jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Without a lease, or with one that was lost.
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
            Phase::Unowned | Phase::Doubtful => true,
            Phase::Idle => self.dirty,
            Phase::Busy => false,
        }
    }
}
