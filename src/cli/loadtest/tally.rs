//! What one connection saw: counts, and latencies in whole microseconds. Merged at the end, so that
//! connections share nothing while they measure.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::plan::Kind;

pub type Latencies = Histogram<u64>;

/// What became of one operation.
#[derive(Debug)]
pub enum Outcome {
    Applied,
    /// Refused for insufficient funds: the service doing its job.
    Declined,
    /// Refused for another reason, which is definite.
    Failed(String),
    /// It may or may not have been done.
    Unknown(String),
}

/// The operations of one kind.
#[derive(Debug, Clone)]
pub struct Counts {
    pub applied: u64,
    pub declined: u64,
    pub failed: u64,
    /// Of those applied or declined: a quick failure is no good latency.
    pub latencies: Latencies,
}

#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub kinds: BTreeMap<Kind, Counts>,
    /// Every answer, those of attempts that were repeated included.
    pub statuses: BTreeMap<u16, u64>,
    /// Causes of attempts that were repeated.
    pub retries: BTreeMap<String, u64>,
    pub failures: BTreeMap<String, u64>,
    /// Answers with `Idempotency-Replayed`: the first attempt had been done after all.
    pub replayed: u64,
}

impl Default for Counts {
    fn default() -> Self {
        // Three digits from 1 µs to 10 min; these bounds are valid ones.
        let latencies = Histogram::new_with_bounds(1, 600_000_000, 3);
        let latencies = latencies.unwrap_or_else(|_| unreachable!("the bounds are valid"));
        Self { applied: 0, declined: 0, failed: 0, latencies }
    }
}

impl Counts {
    pub fn operations(&self) -> u64 {
        self.applied + self.declined + self.failed
    }

    fn add(&mut self, other: &Self) {
        self.applied += other.applied;
        self.declined += other.declined;
        self.failed += other.failed;
        // Both have the same bounds, so every value fits.
        let _ = self.latencies.add(&other.latencies);
    }
}

impl Tally {
    pub fn record(&mut self, kind: Kind, outcome: &Outcome, latency: Duration) {
        let counts = self.kinds.entry(kind).or_default();
        match outcome {
            Outcome::Applied => counts.applied += 1,
            Outcome::Declined => counts.declined += 1,
            Outcome::Failed(cause) | Outcome::Unknown(cause) => {
                counts.failed += 1;
                *self.failures.entry(cause.clone()).or_default() += 1;
                return;
            }
        }
        counts.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn answered(&mut self, status: u16) {
        *self.statuses.entry(status).or_default() += 1;
    }

    pub fn retried(&mut self, cause: String) {
        *self.retries.entry(cause).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (kind, counts) in &other.kinds {
            self.kinds.entry(*kind).or_default().add(counts);
        }
        merge(&mut self.statuses, &other.statuses);
        merge(&mut self.retries, &other.retries);
        merge(&mut self.failures, &other.failures);
        self.replayed += other.replayed;
    }

    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.kinds.values().for_each(|counts| total.add(counts));
        total
    }
}

fn merge<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declines_are_measured_and_failures_are_not() {
        let mut tally = Tally::default();
        tally.record(Kind::Debit, &Outcome::Applied, Duration::from_millis(1));
        tally.record(Kind::Debit, &Outcome::Declined, Duration::from_millis(3));
        tally.record(Kind::Debit, &Outcome::Failed("gone".to_owned()), Duration::from_secs(9));
        let mut sum = Tally::default();
        sum.add(&tally);
        sum.add(&tally);
        let total = sum.total();
        assert_eq!((total.applied, total.declined, total.failed), (2, 2, 2));
        assert_eq!(sum.failures["gone"], 2);
        assert_eq!(total.latencies.len(), 4);
        assert!((2_990..3_010).contains(&total.latencies.max()));
    }
}
