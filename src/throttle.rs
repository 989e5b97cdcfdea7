//! Commands come first: how long publisher and projectors pause after each round while commands wait.
//!
//! The measure is how many commands a batch finds waiting, times how long the oldest has waited: many
//! that wait shortly, and few that wait long, are both no queue. Above [`BUSY`] the CPU is short: the
//! pipeline pauses many times as long as a round took, falls behind, and catches up as soon as commands
//! have become fewer. The pause is computed again while it lasts, so that one stall of the disk does
//! not delay the pipeline for longer than the stall itself.
//!
//! Below that the pipeline keeps in step, in rounds that grow with the load: a round for each event of a
//! steady trickle would cost more than the events do. The publisher pauses a few times as long as
//! its round took. Projectors follow it: what it sent arrives within a few milliseconds, and they
//! only wait for all of it. The first event after a pause waits for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Commands times milliseconds: a few dozen that have waited for a few milliseconds.
const BUSY: u64 = 120;
/// Then: so many rounds' time, up to this.
const BUSY_ROUNDS: u32 = 40;
const PAUSE_MAX: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(4);
/// At ease: so many rounds' time, up to this and a millisecond for each unit of it.
const LEADER_ROUNDS: u32 = 3;
const FOLLOWER_ROUNDS: u32 = 1;
const FOLLOWER_PAUSE_MIN: Duration = Duration::from_millis(2);
const EASY_PAUSE_MAX: Duration = Duration::from_millis(10);
/// A rest is asked for again after this.
const RECHECK: Duration = Duration::from_millis(20);
/// A batch that was observed longer ago says nothing of now.
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

/// Shared by the lanes, which observe, and the pipeline, which pauses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Throttle(Arc<Observed>);

#[derive(Debug)]
struct Observed {
    begun: Instant,
    /// Moving average over batches: commands times microseconds.
    waits: AtomicU64,
    /// When the last was observed, in microseconds since `begun`.
    at: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        let observed = Observed { begun: Instant::now(), waits: 0.into(), at: 0.into() };
        Self(Arc::new(observed))
    }
}

impl Throttle {
    /// A batch of so many commands begins, whose oldest has waited for `wait`.
    pub fn observe(&self, commands: usize, wait: Duration) {
        let average = if self.is_stale() { 0 } else { self.0.waits.load(Ordering::Relaxed) };
        let waits = u64::try_from(commands).unwrap_or(u64::MAX).saturating_mul(micros(wait));
        // Lanes may overwrite each other's: an average does not mind.
        self.0.waits.store((average * 7).saturating_add(waits) / 8, Ordering::Relaxed);
        self.0.at.store(micros(self.0.begun.elapsed()), Ordering::Relaxed);
    }

    /// Rests after a round. May be dropped at any time.
    pub async fn rest(&self, round: Round) {
        let begun = Instant::now();
        loop {
            match self.delay(round, begun.elapsed()) {
                Duration::ZERO => return,
                rest => tokio::time::sleep(rest).await,
            }
        }
    }

    /// How long to rest on, after a round that ended `rested` ago. To be asked again then: zero says
    /// to go on.
    pub fn delay(&self, round: Round, rested: Duration) -> Duration {
        let Round { took, more, follows } = round;
        let waits = if self.is_stale() { 0 } else { self.0.waits.load(Ordering::Relaxed) / 1000 };
        let whole = match waits {
            BUSY.. => (took * BUSY_ROUNDS).clamp(PAUSE_MIN, PAUSE_MAX),
            _ if more => Duration::ZERO,
            _ => {
                let (times, min) = if follows {
                    (FOLLOWER_ROUNDS, FOLLOWER_PAUSE_MIN)
                } else {
                    (LEADER_ROUNDS, PAUSE_MIN)
                };
                (took * times).clamp(min, EASY_PAUSE_MAX + Duration::from_millis(waits))
            }
        };
        whole.saturating_sub(rested).min(RECHECK)
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

    fn observed(commands: usize, wait: Duration) -> Throttle {
        let throttle = Throttle::default();
        (0..50).for_each(|_| throttle.observe(commands, wait));
        throttle
    }

    fn leads(took: Duration, more: bool) -> Round {
        Round { took, more, follows: false }
    }

    #[test]
    fn at_ease_the_rest_grows_with_the_round_and_with_the_load() {
        let rest = |throttle: &Throttle, took| throttle.delay(leads(took, false), Duration::ZERO);
        let idle = Throttle::default();
        assert_eq!(rest(&idle, ROUND / 100), PAUSE_MIN);
        assert_eq!(rest(&idle, ROUND), EASY_PAUSE_MAX);
        let behind = leads(ROUND, true);
        assert_eq!(idle.delay(behind, Duration::ZERO), Duration::ZERO);
        assert_eq!(
            idle.delay(leads(ROUND, false), EASY_PAUSE_MAX),
            Duration::ZERO,
            "it has rested"
        );
        let follows = Round { took: ROUND / 5, more: false, follows: true };
        assert_eq!(idle.delay(follows, Duration::ZERO), ROUND / 5);
        let busy = observed(4, Duration::from_millis(2));
        assert!(rest(&busy, ROUND) > EASY_PAUSE_MAX);
        assert_eq!(busy.delay(behind, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn while_commands_queue_the_pipeline_rests_and_looks_again() {
        let queue = observed(64, Duration::from_millis(5));
        let round = leads(ROUND, true);
        assert_eq!(queue.delay(round, Duration::ZERO), RECHECK, "and then asks again");
        assert_eq!(queue.delay(round, ROUND * (BUSY_ROUNDS - 1)), RECHECK);
        assert_eq!(queue.delay(round, ROUND * BUSY_ROUNDS), Duration::ZERO);
        let second = Duration::from_secs(1);
        assert_eq!(queue.delay(leads(second, true), PAUSE_MAX), Duration::ZERO);
        assert!(observed(2, second).delay(round, ROUND * 2) > Duration::ZERO, "few, but long");
        let passed = observed(30, Duration::from_millis(3));
        assert_eq!(passed.delay(round, Duration::ZERO), Duration::ZERO);
    }
}
