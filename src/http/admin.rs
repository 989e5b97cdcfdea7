//! The routes under /admin: what the repair commands do, over HTTP.

pub(super) mod outbox;
pub(super) mod projections;
pub(super) mod reconcile;
