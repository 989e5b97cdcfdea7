//! The circuit breaker: while Kafka is out of reach nothing connects but one cheap probe. Keeps time
//! and counts; sends nothing itself.
//!
//! ```text
//! closed ──failures in a row──► open ──good probe──► half open ──good probes──► closed
//!                                ▲ └─no full attempt for KAFKA_BREAKER_RESET_MS─► half open, one full attempt
//!                                └───────────────── failure ──────────────────────┘
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::error::Error;
use crate::config::BreakerSettings;

pub use crate::status::BreakerState;

/// Between two probes while closed: what the health pages say is never older.
const WATCH: Duration = Duration::from_secs(5);
/// What a refusal begins with; the cause follows.
const REFUSED: &str = "not tried, the breaker is open: ";
const PROBE_FIRST: Duration = Duration::from_secs(1);
const PROBE_LONGEST: Duration = Duration::from_secs(10);

/// One per cluster: every connection to it stands behind it.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    inner: Mutex<Inner>,
    states: watch::Sender<BreakerState>,
    /// The gauge speaks of the first cluster.
    gauged: bool,
}

#[derive(Debug)]
struct Inner {
    state: BreakerState,
    /// In a row.
    failures: u32,
    /// Good probes in a row since it opened.
    good: u32,
    /// Bad probes since it opened.
    bad: u32,
    /// Half open for full attempts, not only for probes.
    full: bool,
    /// Since when it is open, or half open for full attempts.
    tried: Instant,
    probed: Instant,
    cause: Option<Error>,
}

impl Breaker {
    pub fn new(settings: &BreakerSettings) -> Arc<Self> {
        Self::with_gauge(settings, true)
    }

    /// The breaker of a second cluster: it has no gauge.
    pub fn for_second_cluster(settings: &BreakerSettings) -> Arc<Self> {
        Self::with_gauge(settings, false)
    }

    fn with_gauge(settings: &BreakerSettings, gauged: bool) -> Arc<Self> {
        let now = Instant::now();
        let inner = Inner {
            state: BreakerState::Closed,
            failures: 0,
            good: 0,
            bad: 0,
            full: false,
            tried: now,
            probed: now,
            cause: None,
        };
        let breaker = Self {
            settings: settings.clone(),
            inner: Mutex::new(inner),
            states: watch::Sender::new(BreakerState::Closed),
            gauged,
        };
        breaker.show(BreakerState::Closed);
        Arc::new(breaker)
    }

    pub fn state(&self) -> BreakerState {
        self.lock().state
    }

    /// What the last failure was.
    pub fn cause(&self) -> Option<Error> {
        self.lock().cause.clone()
    }

    /// Sends every change to the receiver.
    pub fn subscribe(&self) -> watch::Receiver<BreakerState> {
        self.states.subscribe()
    }

    /// Whether a full attempt may be made; else why not.
    pub fn allows(&self) -> Result<(), Error> {
        self.allows_at(Instant::now())
    }

    fn allows_at(&self, now: Instant) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.state == BreakerState::Closed || inner.full {
            return Ok(());
        }
        if now.duration_since(inner.tried) >= self.settings.reset {
            inner.full = true;
            inner.tried = now;
            self.enter(&mut inner, BreakerState::HalfOpen);
            return Ok(());
        }
        inner.refusal().map_or(Ok(()), Err)
    }

    /// Waits until it is open; then why. What was begun before does not go on trying.
    pub(super) async fn opened(&self) -> Error {
        let mut states = self.subscribe();
        loop {
            // The sender is this breaker's own: it does not go away while a caller waits here.
            let _ = states.wait_for(|state| *state == BreakerState::Open).await;
            if let Some(refusal) = self.lock().refusal() {
                return refusal;
            }
        }
    }

    /// How a full attempt ended. Errors that Kafka gave as an answer show that it is there.
    pub fn tried(&self, result: Result<(), &Error>) {
        self.tried_at(Instant::now(), result);
    }

    fn tried_at(&self, now: Instant, result: Result<(), &Error>) {
        let mut inner = self.lock();
        match result {
            // Refused here: nothing was tried.
            Err(error) if error.message.starts_with(REFUSED) => {}
            Err(error) if error.is_outage() => {
                inner.failures = inner.failures.saturating_add(1);
                inner.cause = Some(error.clone());
                let broken = inner.failures >= self.settings.failures;
                match inner.state {
                    BreakerState::Closed if broken => self.open(&mut inner, now),
                    BreakerState::HalfOpen if inner.full => self.open(&mut inner, now),
                    _ => {}
                }
            }
            // A late answer of a connection from before says nothing of new ones.
            _ if inner.state == BreakerState::Closed || inner.full => self.close(&mut inner),
            _ => {}
        }
    }

    /// How a probe ended.
    pub fn probed(&self, result: Result<(), &Error>) {
        self.probed_at(Instant::now(), result);
    }

    fn probed_at(&self, now: Instant, result: Result<(), &Error>) {
        self.lock().probed = now;
        if self.state() == BreakerState::Closed {
            return self.tried_at(now, result);
        }
        let mut inner = self.lock();
        match result {
            Err(error) if error.is_outage() => {
                inner.bad = inner.bad.saturating_add(1);
                inner.good = 0;
                inner.cause = Some(error.clone());
                // A full attempt that no caller has made by now does not keep the way open.
                if !inner.full || now.duration_since(inner.tried) >= PROBE_LONGEST {
                    (inner.full, inner.tried) = (false, now);
                    self.enter(&mut inner, BreakerState::Open);
                }
            }
            _ => {
                inner.good = inner.good.saturating_add(1);
                if inner.good >= self.settings.successes {
                    self.close(&mut inner);
                } else {
                    self.enter(&mut inner, BreakerState::HalfOpen);
                }
            }
        }
    }

    /// When the next probe is due: 1, 2, 4, 8, then every 10 s while open.
    pub fn probe_due(&self) -> Instant {
        let inner = self.lock();
        let pause = match inner.state {
            BreakerState::Closed => WATCH,
            BreakerState::HalfOpen if !inner.full => PROBE_FIRST,
            _ => PROBE_FIRST.saturating_mul(1 << inner.bad.min(4)).min(PROBE_LONGEST),
        };
        inner.probed + pause
    }

    fn open(&self, inner: &mut Inner, now: Instant) {
        (inner.good, inner.bad, inner.full) = (0, 0, false);
        (inner.tried, inner.probed) = (now, now);
        self.enter(inner, BreakerState::Open);
    }

    fn close(&self, inner: &mut Inner) {
        (inner.failures, inner.full) = (0, false);
        self.enter(inner, BreakerState::Closed);
    }

    fn enter(&self, inner: &mut Inner, state: BreakerState) {
        if inner.state == state {
            return;
        }
        inner.state = state;
        let cause = inner.cause.as_ref().map(ToString::to_string);
        match state {
            BreakerState::Closed => tracing::info!("breaker closed: Kafka is in reach"),
            BreakerState::HalfOpen => tracing::info!("breaker half open: Kafka may be back"),
            BreakerState::Open => tracing::warn!(cause, "breaker open: Kafka is out of reach"),
        }
        self.show(state);
    }

    fn show(&self, state: BreakerState) {
        if self.gauged {
            metrics::gauge!("kafka_breaker_state").set(match state {
                BreakerState::Closed => 0.0,
                BreakerState::HalfOpen => 1.0,
                BreakerState::Open => 2.0,
            });
        }
        self.states.send_replace(state);
    }

    // A panic while the lock was held leaves plain counters behind: still worth following.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The error of a caller that asks while it is open.
    fn refusal(&self) -> Option<Error> {
        self.cause.as_ref().map(|cause| {
            let message = format!("{REFUSED}{}", cause.message);
            Error { message, ..cause.clone() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Class;
    use super::*;

    const RESET: Duration = Duration::from_secs(300);

    fn breaker() -> Arc<Breaker> {
        Breaker::new(&BreakerSettings { failures: 5, successes: 2, reset: RESET })
    }

    fn outage() -> Error {
        Error::new(Class::Network, "Connection refused (os error 111)")
    }

    fn opened(now: Instant) -> Arc<Breaker> {
        let breaker = breaker();
        for _ in 0..5 {
            assert_eq!(breaker.state(), BreakerState::Closed);
            breaker.tried_at(now, Err(&outage()));
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_what_is_refused_then_says_the_cause() {
        let (breaker, now) = (breaker(), Instant::now());
        for _ in 0..4 {
            breaker.tried_at(now, Err(&outage()));
        }
        breaker.tried_at(now, Ok(()));
        for _ in 0..4 {
            breaker.tried_at(now, Err(&outage()));
        }
        assert!(breaker.allows_at(now).is_ok(), "not in a row");
        breaker.tried_at(now, Err(&Error::new(Class::Topic, "UnknownTopicOrPartition")));
        breaker.tried_at(now, Err(&outage()));
        assert!(breaker.allows_at(now).is_ok(), "a broker that refuses is there");
        let opened = opened(now);
        let refusal = opened.allows_at(now).unwrap_err();
        opened.tried_at(now, Err(&refusal));
        assert_eq!(opened.allows_at(now).unwrap_err(), refusal, "it is no cause of its own");
        let refused = refusal.to_string();
        assert!(refused.contains("breaker is open"), "{refused}");
        assert!(refused.contains("Connection refused"), "{refused}");
    }

    #[test]
    fn probes_run_after_1_2_4_8_and_every_10_s_and_two_good_ones_close_it() {
        let mut now = Instant::now();
        let breaker = opened(now);
        for expected in [1, 2, 4, 8, 10, 10] {
            assert_eq!(breaker.probe_due() - now, Duration::from_secs(expected));
            now = breaker.probe_due();
            breaker.probed_at(now, Err(&outage()));
        }
        let stands = |now: Instant| (breaker.state(), (breaker.probe_due() - now).as_secs());
        breaker.probed_at(now, Ok(()));
        assert_eq!(stands(now), (BreakerState::HalfOpen, 1));
        assert!(breaker.allows_at(now).is_err(), "one good probe is not enough");
        breaker.probed_at(now, Err(&outage()));
        assert_eq!(stands(now), (BreakerState::Open, 10));
        breaker.probed_at(now, Ok(()));
        breaker.probed_at(now, Ok(()));
        assert_eq!(stands(now), (BreakerState::Closed, 5));
        assert!(breaker.allows_at(now).is_ok());
    }

    #[test]
    fn a_full_attempt_is_made_after_the_longest_time_whatever_the_probes_say() {
        let begun = Instant::now();
        let breaker = opened(begun);
        let second = Duration::from_secs(1);
        assert!(breaker.allows_at(begun + RESET - second).is_err());
        assert!(breaker.allows_at(begun + RESET).is_ok());
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.tried_at(begun + RESET, Err(&outage()));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.allows_at(begun + RESET).is_err(), "and again after as long");
        assert!(breaker.allows_at(begun + RESET * 2).is_ok());
        breaker.tried_at(begun + RESET * 2, Ok(()));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_full_attempt_that_no_caller_makes_does_not_keep_the_way_open() {
        let begun = Instant::now();
        let breaker = opened(begun);
        let full = begun + RESET;
        assert!(breaker.allows_at(full).is_ok());
        breaker.probed_at(full + Duration::from_secs(1), Err(&outage()));
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "it may be on its way");
        breaker.probed_at(full + PROBE_LONGEST, Err(&outage()));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.allows_at(full + PROBE_LONGEST).is_err());
        assert!(breaker.allows_at(full + PROBE_LONGEST + RESET).is_ok(), "and again after as long");
    }

    #[test]
    fn a_subscriber_learns_of_every_change() {
        let (breaker, now) = (breaker(), Instant::now());
        let mut states = breaker.subscribe();
        for _ in 0..5 {
            breaker.tried_at(now, Err(&outage()));
        }
        assert!(states.has_changed().unwrap());
        assert_eq!(*states.borrow_and_update(), BreakerState::Open);
        breaker.probed_at(now, Ok(()));
        breaker.probed_at(now, Ok(()));
        assert_eq!(*states.borrow_and_update(), BreakerState::Closed);
    }
}
