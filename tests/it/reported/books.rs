//! Restores, failovers, lag and totals: what the projections say of the books.
