//! Commands come first: how hard they press, and how long the pipeline behind them rests for it.
//!
//! The measure is how long commands wait for their batch. While they do, publisher and projectors
//! rest after each round in proportion to the time that it took, up to ten times as long: fewer and
//! larger rounds cost less for each event, and what has piled up is caught up with as soon as
//! commands have become fewer. At ease the rest is short, a few times as long as the round: a round
//! for each event of a steady trickle would cost more than the events do, and a lone caller would
//! wait for it. A first event after the rest waits for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const REST_MIN: Duration = Duration::from_millis(4);
const REST_MAX: Duration = Duration::from_secs(2);
/// At ease: so many rounds' time, up to this.
const EASE: u32 = 3;
const EASE_MAX: Duration = Duration::from_millis(20);
/// As many rounds' time as commands wait milliseconds, at most.
const RESTS_MAX: u32 = 10;
/// A wait that was noted longer ago says nothing of now.
const STALE: Duration = Duration::from_millis(100);

/// Shared by the lanes, which note, and the pipeline, which rests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pressure(Arc<Noted>);

#[derive(Debug)]
struct Noted {
    begun: Instant,
    /// Moving average of the waits, in microseconds.
    wait: AtomicU64,
    /// When the last was noted, in microseconds since `begun`.
    at: AtomicU64,
}

impl Default for Pressure {
    fn default() -> Self {
        let noted = Noted { begun: Instant::now(), wait: 0.into(), at: 0.into() };
        Self(Arc::new(noted))
    }
}

impl Pressure {
    /// A batch begins whose oldest command has waited for `wait`.
    pub fn note(&self, wait: Duration) {
        let average = if self.is_stale() { 0 } else { self.0.wait.load(Ordering::Relaxed) };
        // Lanes may overwrite each other's: an average does not mind.
        self.0.wait.store((average * 7 + micros(wait)) / 8, Ordering::Relaxed);
        self.0.at.store(micros(self.0.begun.elapsed()), Ordering::Relaxed);
    }

    /// How long to rest after a round that took `took`, and that left `more` to be done.
    pub fn rest(&self, took: Duration, more: bool) -> Duration {
        let wait = if self.is_stale() { 0 } else { self.0.wait.load(Ordering::Relaxed) };
        match u32::try_from(wait / 1000).unwrap_or(RESTS_MAX).min(RESTS_MAX) {
            0 if more => Duration::ZERO,
            0 => (took * EASE).clamp(REST_MIN, EASE_MAX),
            rests => (took * rests).clamp(REST_MIN, REST_MAX),
        }
    }

    fn is_stale(&self) -> bool {
        let at = Duration::from_micros(self.0.at.load(Ordering::Relaxed));
        self.0.begun.elapsed().saturating_sub(at) > STALE
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(20);

    #[test]
    fn the_longer_commands_wait_the_longer_the_pipeline_rests() {
        let pressure = Pressure::default();
        assert_eq!(pressure.rest(ROUND / 100, false), REST_MIN);
        assert_eq!(pressure.rest(ROUND, false), EASE_MAX);
        assert_eq!(pressure.rest(ROUND, true), Duration::ZERO);
        for _ in 0..50 {
            pressure.note(Duration::from_millis(6));
        }
        let rest = pressure.rest(ROUND, true);
        assert!(rest >= ROUND * 4 && rest <= ROUND * 6, "{rest:?}");
        for _ in 0..50 {
            pressure.note(Duration::from_secs(1));
        }
        assert_eq!(pressure.rest(ROUND, true), ROUND * RESTS_MAX);
        assert_eq!(pressure.rest(Duration::from_secs(1), false), REST_MAX);
    }
}
