//! Commands come first: how hard they press, and how long the pipeline behind them rests for it.
//!
//! The measure is how many commands a batch finds waiting, times how long the oldest of them has:
//! many that wait shortly, and few that wait long, are both no queue. Above [`PRESSED`] the CPU is
//! short: publisher and projectors rest after each round many times as long as it took, fall behind,
//! and catch up as soon as commands have become fewer. A rest is looked at again and again while it
//! lasts, so that one stall of the disk does not hold them up for longer than it takes itself.
//!
//! Below that they keep in step, in rounds that grow with the load: a round for each event of a
//! steady trickle would cost more than the events do. The publisher leads: at ease it rests a few
//! times as long as its round took. Projectors follow: what it sent comes within a few milliseconds,
//! and they only wait for all of it. A first event after the rest waits for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Commands times milliseconds: a few dozen that have waited for a few milliseconds.
const PRESSED: u64 = 120;
/// Then: so many rounds' time, up to this.
const RESTS: u32 = 40;
const REST_MAX: Duration = Duration::from_secs(2);
const REST_MIN: Duration = Duration::from_millis(4);
/// At ease: so many rounds' time, up to this and a millisecond for each unit of pressure.
const LEADS: u32 = 3;
const FOLLOWS: u32 = 1;
const FOLLOWS_MIN: Duration = Duration::from_millis(2);
const EASE_MAX: Duration = Duration::from_millis(10);
/// A rest is asked for again after this.
const LOOK: Duration = Duration::from_millis(20);
/// A batch that was noted longer ago says nothing of now.
const STALE: Duration = Duration::from_millis(100);

/// A round that ended.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub took: Duration,
    /// It left more to be done.
    pub more: bool,
    /// Another's rounds decide when there is something to do.
    pub follows: bool,
}

/// Shared by the lanes, which note, and the pipeline, which rests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pressure(Arc<Noted>);

#[derive(Debug)]
struct Noted {
    begun: Instant,
    /// Moving average over batches: commands times microseconds.
    waits: AtomicU64,
    /// When the last was noted, in microseconds since `begun`.
    at: AtomicU64,
}

impl Default for Pressure {
    fn default() -> Self {
        let noted = Noted { begun: Instant::now(), waits: 0.into(), at: 0.into() };
        Self(Arc::new(noted))
    }
}

impl Pressure {
    /// A batch of so many commands begins, whose oldest has waited for `wait`.
    pub fn note(&self, commands: usize, wait: Duration) {
        let average = if self.is_stale() { 0 } else { self.0.waits.load(Ordering::Relaxed) };
        let waits = u64::try_from(commands).unwrap_or(u64::MAX).saturating_mul(micros(wait));
        // Lanes may overwrite each other's: an average does not mind.
        self.0.waits.store((average * 7).saturating_add(waits) / 8, Ordering::Relaxed);
        self.0.at.store(micros(self.0.begun.elapsed()), Ordering::Relaxed);
    }

    /// Rests after a round. May be dropped at any time.
    pub async fn rested(&self, round: Round) {
        let begun = Instant::now();
        loop {
            match self.rest(round, begun.elapsed()) {
                Duration::ZERO => return,
                rest => tokio::time::sleep(rest).await,
            }
        }
    }

    /// How long to rest on, after a round that ended `rested` ago. To be asked again then: zero says
    /// to go on.
    pub fn rest(&self, round: Round, rested: Duration) -> Duration {
        let Round { took, more, follows } = round;
        let waits = if self.is_stale() { 0 } else { self.0.waits.load(Ordering::Relaxed) / 1000 };
        let whole = match waits {
            PRESSED.. => (took * RESTS).clamp(REST_MIN, REST_MAX),
            _ if more => Duration::ZERO,
            _ => {
                let (times, min) = if follows { (FOLLOWS, FOLLOWS_MIN) } else { (LEADS, REST_MIN) };
                (took * times).clamp(min, EASE_MAX + Duration::from_millis(waits))
            }
        };
        whole.saturating_sub(rested).min(LOOK)
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

    fn noted(commands: usize, wait: Duration) -> Pressure {
        let pressure = Pressure::default();
        (0..50).for_each(|_| pressure.note(commands, wait));
        pressure
    }

    fn leads(took: Duration, more: bool) -> Round {
        Round { took, more, follows: false }
    }

    #[test]
    fn at_ease_the_rest_grows_with_the_round_and_with_the_load() {
        let rest = |pressure: &Pressure, took| pressure.rest(leads(took, false), Duration::ZERO);
        let idle = Pressure::default();
        assert_eq!(rest(&idle, ROUND / 100), REST_MIN);
        assert_eq!(rest(&idle, ROUND), EASE_MAX);
        let behind = leads(ROUND, true);
        assert_eq!(idle.rest(behind, Duration::ZERO), Duration::ZERO);
        assert_eq!(idle.rest(leads(ROUND, false), EASE_MAX), Duration::ZERO, "it has rested");
        let follows = Round { took: ROUND / 5, more: false, follows: true };
        assert_eq!(idle.rest(follows, Duration::ZERO), ROUND / 5);
        let busy = noted(4, Duration::from_millis(2));
        assert!(rest(&busy, ROUND) > EASE_MAX);
        assert_eq!(busy.rest(behind, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn while_commands_queue_the_pipeline_rests_and_looks_again() {
        let queue = noted(64, Duration::from_millis(5));
        let round = leads(ROUND, true);
        assert_eq!(queue.rest(round, Duration::ZERO), LOOK, "and then asks again");
        assert_eq!(queue.rest(round, ROUND * (RESTS - 1)), LOOK);
        assert_eq!(queue.rest(round, ROUND * RESTS), Duration::ZERO);
        let second = Duration::from_secs(1);
        assert_eq!(queue.rest(leads(second, true), REST_MAX), Duration::ZERO);
        assert!(noted(2, second).rest(round, ROUND * 2) > Duration::ZERO, "few, but long");
        let passed = noted(30, Duration::from_millis(3));
        assert_eq!(passed.rest(round, Duration::ZERO), Duration::ZERO);
    }
}
