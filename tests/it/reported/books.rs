//! Restores, failovers, lag and totals: what the projections say of the books.

mod failover;
mod restored;
mod sizes;
mod totals;
