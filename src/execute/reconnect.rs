//! Pauses between attempts to reach Postgres: 50 ms, doubling up to 1 s, the upper half of each at
//! random. A server that is starting is not flooded by every waiting batch of every instance at once.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::backoff;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// How often in a row no lane could connect, and when that was.
#[derive(Debug, Default)]
pub(super) struct Reconnect(Mutex<Option<(u32, Instant)>>);

impl Reconnect {
    /// Waits until the next attempt is due. Each that waits has a time of its own.
    pub async fn rest(&self) {
        if let Some(due) = self.due() {
            sleep_until(due).await;
        }
    }

    fn due(&self) -> Option<Instant> {
        let failed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.map(|(failures, at)| at + backoff::after(failures, FIRST, LONGEST))
    }

    pub fn note(&self, connected: bool) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failed.map_or(0, |(failures, _)| failures);
        *failed = (!connected).then(|| (before.saturating_add(1), Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_rest_longer_after_each_failure_and_not_at_all_after_a_success() {
        let reconnect = Reconnect::default();
        assert_eq!(reconnect.due(), None);
        for full in [50, 100, 200, 400, 800, 1000, 1000] {
            let before = Instant::now();
            reconnect.note(false);
            let rest = reconnect.due().map(|due| due - before).unwrap_or_default();
            assert!(rest >= Duration::from_millis(full / 2), "{rest:?} for {full} ms");
            assert!(rest <= Duration::from_millis(full + 100), "{rest:?} for {full} ms");
        }
        reconnect.note(true);
        assert_eq!(reconnect.due(), None);
    }
}
