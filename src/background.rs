//! The kit for background work: what all tasks beside the commands share, so that each of them only
//! says what it does.
//!
//! | part | question |
//! |---|---|
//! | [`leases`] | which of a topic's partitions does this instance work on? |
//! | [`jobs`] | who does what is due, and what after a failure or a kill? |
//! | [`task`] | when is something done again, and what after a failure? |
//!
//! A task never renews, gives up or counts failures by itself. How long to pause after a failure is
//! [`crate::backoff`]'s matter; which tasks there are is `app`'s.

pub mod jobs;
pub mod leases;
pub mod task;
