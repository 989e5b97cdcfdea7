//! What the tests share: servers, the service as a process, waiting for conditions.

pub mod app;
#[allow(dead_code, reason = "the chaos runs use more of it")]
#[path = "../chaos/ask.rs"]
pub mod ask;
#[allow(dead_code, reason = "the chaos runs use more of it")]
#[path = "../chaos/checker.rs"]
pub mod checker;
pub mod golden;
#[allow(dead_code, reason = "the chaos runs use more of it")]
#[path = "../chaos/journal.rs"]
pub mod journal;
#[allow(dead_code, reason = "the chaos runs use more of it")]
#[path = "../chaos/load.rs"]
pub mod load;
pub mod pgbouncer;
pub mod proxy;
#[allow(dead_code, reason = "the chaos runs use more of it")]
#[path = "../chaos/records.rs"]
pub mod records;
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
