//! How long to wait before the next attempt: a first pause, doubled after each failure up to a longest,
//! the upper half of it at random ("equal jitter"), so that many who failed together do not try
//! again together.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// The pause after so many failures in a row, of which there was at least one.
pub fn after(failures: u32, first: Duration, longest: Duration) -> Duration {
    jittered(first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest))
}

/// Failures in a row, and the pause that each of them asks for.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Counts a failure. How long to wait before the next attempt.
    pub fn fail(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        after(self.failures, self.first, self.longest)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

fn jittered(full: Duration) -> Duration {
    let half = full / 2;
    let span = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
    // A new hasher's keys are random enough for this.
    half + Duration::from_millis(RandomState::new().build_hasher().finish() % span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_keep_half_of_each() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(1));
        for (failures, full) in (1..).zip([50, 100, 200, 400, 800, 1000, 1000]) {
            let full = Duration::from_millis(full);
            for _ in 0..100 {
                let pause = after(failures, first, longest);
                assert!(pause >= full / 2 && pause <= full, "{pause:?} for {full:?}");
            }
        }
        assert!(after(u32::MAX, first, longest) <= longest);
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        assert!(backoff.fail() <= Duration::from_millis(100));
        assert!(backoff.fail() >= Duration::from_millis(100));
        assert_eq!(backoff.failures(), 2);
        backoff.reset();
        assert!(backoff.fail() <= Duration::from_millis(100));
    }
}
