//! What the tests share: servers, the service as a process, waiting for conditions.

pub mod app;
pub mod books;
pub mod golden;
pub mod load;
pub mod pgbouncer;
pub mod proxy;
pub mod registry;
pub mod servers;
pub mod topic;

use std::time::{Duration, Instant};

/// Waits until `condition` gives a value. Panics with `what` when that takes longer than `patience`.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(begun.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
