//! Placeholder: the commands.

pub mod reconcile;
