//! Pauses between attempts, pure but for the clock: 1, 2, 4, 8 s and so on up to a setting, the
//! upper half of each at random so that instances do not retry in step.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff;

const FIRST: Duration = Duration::from_secs(1);

/// How often in a row something failed, and until when it rests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    /// Notes a failure; says whether it is the first in a row.
    pub fn fail(&mut self, longest: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.until = Some(Instant::now() + backoff::after(self.failures, FIRST, longest));
        self.failures == 1
    }

    pub fn has_failed(&self) -> bool {
        self.failures > 0
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The cause is gone: rests a second longer at most.
    pub fn shorten(&mut self) {
        self.until =
            self.until.map(|until| until.min(Instant::now() + backoff::after(1, FIRST, FIRST)));
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over_after_a_success() {
        let longest = Duration::from_secs(10);
        let mut pause = Pause::default();
        for full in [1, 2, 4, 8, 10, 10] {
            let before = Instant::now();
            pause.fail(longest);
            let rest = pause.until().map(|until| until - before).unwrap_or_default();
            assert!(rest >= Duration::from_millis(full * 500), "{rest:?} for {full} s");
            assert!(rest <= Duration::from_millis(full * 1000 + 100), "{rest:?} for {full} s");
            assert!(!pause.is_over(before));
        }
        pause.shorten();
        assert!(pause.is_over(Instant::now() + FIRST));
        pause.reset();
        assert!(pause.is_over(Instant::now()));
        assert!(pause.fail(longest));
    }
}
