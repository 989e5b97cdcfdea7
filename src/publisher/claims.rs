//! When the next claim may begin and how much it asks for: one at a time, more rows the further the
//! publisher is behind, at a pace that leaves commands the way.

use std::time::Duration;

use tokio::time::Instant;

use super::partition::Linger;
use crate::config::{OutboxSettings, ProducerSettings};
use crate::throttle::{Round, Throttle};

/// A claim that found nothing to send although there is more is repeated after this.
const EMPTY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Claims {
    running: bool,
    /// Events per partition of the next claim.
    limit: i64,
    limit_min: i64,
    limit_max: i64,
    pub linger: Linger,
    throttle: Throttle,
    /// When the last round began with its claim.
    begun: Instant,
    /// What came of the last round and when, until its rest is over.
    rest: Option<(Round, Instant)>,
    rest_until: Instant,
}

impl Claims {
    pub fn new(outbox: &OutboxSettings, producer: &ProducerSettings, throttle: Throttle) -> Self {
        let now = Instant::now();
        Self {
            running: false,
            limit: outbox.batch_size,
            limit_min: outbox.batch_size,
            limit_max: outbox.batch_max,
            linger: Linger { time: producer.linger, bytes: producer.batch_bytes },
            throttle,
            begun: now,
            rest: None,
            rest_until: now,
        }
    }

    pub fn may_begin(&mut self, now: Instant) -> bool {
        if now >= self.rest_until {
            self.look(now);
        }
        !self.running && now >= self.rest_until
    }

    /// A claim begins: how many rows it asks for of each partition.
    pub fn begin(&mut self, now: Instant) -> i64 {
        (self.running, self.begun) = (true, now);
        self.limit
    }

    /// It is over; `behind`: it left rows of a partition that are now sent.
    pub fn end(&mut self, behind: bool) {
        self.running = false;
        self.limit = match behind {
            true => self.limit.saturating_mul(2).min(self.limit_max),
            false => self.limit_min,
        };
    }

    /// More rows than that would only be read in vain: bytes are the limit.
    pub fn shrink(&mut self) {
        self.limit = self.limit_min;
    }

    /// Rows linger: looked at again half-way at the soonest, since a look costs a statement.
    pub fn linger(&mut self, now: Instant) {
        self.rest_until = self.rest_until.max(now + self.linger.time / 2);
    }

    pub fn pause_empty(&mut self, now: Instant) {
        self.rest_until = self.rest_until.max(now + EMPTY_PAUSE);
    }

    /// A round from claim to marks is over: it rests after it.
    pub fn round_ended(&mut self, now: Instant) {
        let more = self.limit > self.limit_min;
        self.rest = Some((Round { took: now - self.begun, more, follows: false }, now));
        self.look(now);
    }

    /// When the rest is over, or looked at again.
    pub fn rest_until(&self) -> Instant {
        self.rest_until
    }

    fn look(&mut self, now: Instant) {
        let left = self
            .rest
            .map_or(Duration::ZERO, |(round, ended)| self.throttle.delay(round, now - ended));
        if left.is_zero() {
            self.rest = None;
        }
        self.rest_until = now + left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load_from};

    fn claims() -> Claims {
        let (settings, _) = load_from(&[].into(), &Overrides::new()).unwrap();
        Claims::new(&settings.outbox, &settings.producer, Throttle::default())
    }

    #[test]
    fn one_claim_runs_at_a_time_and_asks_for_more_while_rows_are_left_behind() {
        let (mut claims, now) = (claims(), Instant::now());
        let size = claims.limit_min;
        for (behind, asked) in [(true, size), (true, size * 2), (false, size * 4), (true, size)] {
            assert!(claims.may_begin(now));
            assert_eq!(claims.begin(now), asked.min(claims.limit_max));
            assert!(!claims.may_begin(now));
            claims.end(behind);
        }
        claims.shrink();
        assert_eq!(claims.begin(now), size);
    }

    #[test]
    fn a_round_is_followed_by_a_rest_which_ends() {
        let (mut claims, now) = (claims(), Instant::now());
        claims.begin(now);
        claims.end(false);
        claims.round_ended(now + Duration::from_millis(1));
        assert!(!claims.may_begin(now + Duration::from_millis(2)));
        let later = now + Duration::from_secs(5);
        assert!(claims.may_begin(later));
        claims.begin(later);
        claims.end(false);
        claims.pause_empty(later);
        assert!(!claims.may_begin(later) && claims.may_begin(later + EMPTY_PAUSE));
    }
}
