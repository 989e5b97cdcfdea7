//! What the integration tests use, too: the load, its journal and the checker, which stand here;
//! the servers and the proxy, which stand there.

#[path = "ask.rs"]
pub mod ask;
#[path = "checker.rs"]
pub mod checker;
#[path = "journal.rs"]
pub mod journal;
#[path = "load.rs"]
pub mod load;
#[path = "../it/support/proxy.rs"]
pub mod proxy;
#[path = "records.rs"]
pub mod records;
#[path = "../it/support/servers.rs"]
pub mod servers;

use std::time::{Duration, Instant};

/// Waits until `condition` gives a value; none when that takes longer than `patience`.
pub async fn within<T>(
    patience: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return Some(value);
        }
        if begun.elapsed() > patience {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same, ending the run where it takes longer.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    match within(patience, condition).await {
        Some(value) => value,
        None => panic!("not within {patience:?}: {what}"),
    }
}
