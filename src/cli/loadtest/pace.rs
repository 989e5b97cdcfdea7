//! Which operation is next, and when it was meant to begin.
//!
//! Closed loop: as soon as a connection is free. Open loop: at a fixed rate, whether or not a
//! connection is free; latency then counts from the intended time, so that a slow service cannot
//! hide its queue by slowing the generator down (coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long after the end of an open loop its waiting operations may still begin.
const DRAIN: Duration = Duration::from_secs(5);
const NANOS: u128 = 1_000_000_000;

/// When a phase is over.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    For(Duration),
    Operations(u64),
}

/// Hands out the operations of one phase.
pub struct Source {
    /// The phase's first number: phases share no operation.
    first: u64,
    taken: AtomicU64,
    total: u64,
    begun: Instant,
    deadline: Option<Instant>,
    rate: Option<u32>,
    /// Operations whose time has come; open loop only.
    due: Semaphore,
    stop: CancellationToken,
}

impl Source {
    pub fn new(first: u64, limit: Limit, rate: Option<u32>, stop: CancellationToken) -> Arc<Self> {
        let begun = Instant::now();
        let (total, deadline) = match (limit, rate) {
            (Limit::Operations(total), _) => (total, None),
            (Limit::For(time), None) => (u64::MAX, Some(begun + time)),
            (Limit::For(time), Some(rate)) => {
                let total = time.as_nanos() * u128::from(rate) / NANOS;
                (u64::try_from(total).unwrap_or(u64::MAX), Some(begun + time + DRAIN))
            }
        };
        let (taken, due) = (AtomicU64::new(0), Semaphore::new(0));
        Arc::new(Self { first, taken, total, begun, deadline, rate, due, stop })
    }

    /// The next operation's number and intended time; none when the phase is over.
    pub async fn take(&self) -> Option<(u64, Instant)> {
        if self.rate.is_some() {
            self.due.acquire().await.ok()?.forget();
        }
        if self.stop.is_cancelled() || self.deadline.is_some_and(|at| Instant::now() >= at) {
            return None;
        }
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let begin = match self.rate {
            Some(rate) => self.begun + intended(number, rate),
            None => Instant::now(),
        };
        (number < self.total).then_some((self.first + number, begin))
    }

    /// Releases operations at the rate until all are released. Blocks: a thread's sleep is much
    /// finer than the runtime's timer, whose millisecond would be in every latency.
    pub fn pace(&self, connections: usize) {
        let Some(rate) = self.rate else { return };
        for number in 0..self.total {
            let ahead = intended(number, rate).saturating_sub(self.begun.elapsed());
            if !ahead.is_zero() {
                std::thread::sleep(ahead);
            }
            if self.stop.is_cancelled() {
                break;
            }
            self.due.add_permits(1);
        }
        // One more for each connection, to find that there is nothing left.
        self.due.add_permits(connections);
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Operations of an open loop that should have begun but never did, given how many did.
    pub fn unsent(&self, done: u64) -> u64 {
        let open = self.rate.is_some() && !self.stop.is_cancelled();
        if open { self.total.saturating_sub(done) } else { 0 }
    }
}

/// When operation `number` is meant to begin, from the phase's beginning.
fn intended(number: u64, rate: u32) -> Duration {
    let nanos = u128::from(number) * NANOS / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intended_times_do_not_drift() {
        assert_eq!(intended(0, 3), Duration::ZERO);
        assert_eq!(intended(3_000_000, 3), Duration::from_secs(1_000_000));
    }

    #[tokio::test]
    async fn a_closed_loop_hands_out_each_number_once() {
        let source = Source::new(10, Limit::Operations(2), None, CancellationToken::new());
        let numbers = [source.take().await, source.take().await, source.take().await];
        assert_eq!(numbers.map(|next| next.map(|(number, _)| number)), [Some(10), Some(11), None]);
    }

    #[tokio::test]
    async fn an_open_loop_counts_from_the_intended_time() {
        let limit = Limit::For(Duration::from_millis(20));
        let source = Source::new(0, limit, Some(100), CancellationToken::new());
        source.pace(1);
        // Both were released before anyone asked: the second was meant for 10 ms later.
        let (first, second) = (source.take().await.unwrap(), source.take().await.unwrap());
        assert_eq!(second.1 - first.1, Duration::from_millis(10));
        assert!(source.take().await.is_none());
        assert_eq!(source.unsent(1), 1);
    }
}
