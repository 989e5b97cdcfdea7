//! The routes of operators, below `/admin`: what the commands do.

pub(super) mod dead_letters;
pub(super) mod outbox;
pub(super) mod projections;
pub(super) mod reconcile;
pub(super) mod topics;
