//! Known bugs that can be switched on, so that the chaos checks can be seen to fail.
//!
//! Only the cargo feature `seeded-bugs` builds them in, and only debug builds may have it. In every
//! other build all of this is a constant `false` or does nothing, and compiles away.

#[cfg(all(feature = "seeded-bugs", not(debug_assertions)))]
compile_error!("seeded-bugs is for tests: a release build must not contain it");

/// What `--version` says.
pub const VERSION: &str = if cfg!(feature = "seeded-bugs") {
    concat!(env!("CARGO_PKG_VERSION"), " with seeded bugs, NOT FOR USE")
} else {
    env!("CARGO_PKG_VERSION")
};

/// A bug, as `WALLEX_SEEDED_BUG` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// `no-row-lock`: wallets are read and not locked.
    NoRowLock,
    /// `unsorted-locks`: wallets are locked in any order, waiting for each.
    UnsortedLocks,
    /// `key-after-commit`: keys are stored in a transaction of their own, later.
    KeyAfterCommit,
    /// `id-above-last`: the publisher reads `id > last` instead of what is unprocessed.
    IdAboveLast,
    /// `rows-skip-locked`: publishers share rows, not partitions.
    RowsSkipLocked,
    /// `mark-before-produce`: rows are marked as published and then produced.
    MarkBeforeProduce,
    /// `checkpoint-first`: a checkpoint moves before its projection is written.
    CheckpointFirst,
    /// `no-version-check`: a projector applies versions that it has applied.
    NoVersionCheck,
    /// `no-compare-and-set`: a checkpoint moves from wherever it stands.
    NoCompareAndSet,
    /// `answer-before-commit`: callers are answered before COMMIT.
    AnswerBeforeCommit,
    /// `float-amounts`: amounts are read as floating-point numbers.
    FloatAmounts,
    /// `no-fencing`: marks are written whatever the lease's epoch.
    NoFencing,
}

#[cfg(not(feature = "seeded-bugs"))]
mod absent {
    use super::Bug;

    pub const fn on(_: Bug) -> bool {
        false
    }

    pub const fn statement(sql: &'static str) -> &'static str {
        sql
    }
}
#[cfg(not(feature = "seeded-bugs"))]
pub use absent::{on, statement};

#[cfg(feature = "seeded-bugs")]
mod present;
#[cfg(feature = "seeded-bugs")]
pub use present::{
    checkpoint_first, float, forget_versions, keys_later, mark_first, on, some_rows, statement,
};
