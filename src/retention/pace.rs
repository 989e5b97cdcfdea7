//! How much of a table is looked at in one transaction, and how long the rest is after it: a table's purge takes
//! a quarter of one session's time, a half while it is far behind, and none of its steps takes long.

use std::time::Duration;

/// Rows looked at in one transaction: at first, at least and at most.
const ROWS: i64 = 1000;
const ROWS_MIN: i64 = 100;
const ROWS_MAX: i64 = 4000;
/// A step that takes longer is followed by smaller ones, one that is much shorter by larger ones.
const LONG: Duration = Duration::from_millis(200);
const SHORT: Duration = Duration::from_millis(40);
/// The rest after a step, in steps.
const REST: u32 = 3;
/// The same where rows were due for so long that the purge cannot keep up.
const REST_BEHIND: u32 = 1;
const BEHIND: Duration = Duration::from_hours(1);
const REST_MIN: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Pace {
    rows: i64,
    /// For how long the oldest of the last rows had been due.
    late: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rows: ROWS, late: Duration::ZERO }
    }
}

impl Pace {
    /// Rows of the next step.
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// A step looked at `seen` rows, and some of them had been due for `late`.
    pub fn seen(&mut self, seen: i64, took: Duration, late: Duration) {
        self.late = late;
        if took > LONG {
            self.rows = (self.rows / 2).max(ROWS_MIN);
        } else if took < SHORT && seen >= self.rows {
            self.rows = (self.rows * 2).min(ROWS_MAX);
        }
    }

    /// The rest after a step that took so long. `usual`: between two walks, so that rows are due for so long
    /// before they are met.
    pub fn rest(&self, took: Duration, usual: Duration) -> Duration {
        let rests = if self.late > BEHIND + usual * 2 { REST_BEHIND } else { REST };
        (took * rests).max(REST_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_steps_become_smaller_and_a_purge_that_is_behind_rests_less() {
        let (millis, hour) = (Duration::from_millis, Duration::from_hours(1));
        let mut pace = Pace::default();
        pace.seen(1000, millis(10), Duration::ZERO);
        assert_eq!((pace.rows(), pace.rest(millis(10), hour)), (2000, millis(30)));
        pace.seen(10, millis(10), hour * 2);
        assert_eq!((pace.rows(), pace.rest(millis(10), hour)), (2000, millis(30)), "not many");
        pace.seen(2000, millis(100), hour * 4);
        assert_eq!((pace.rows(), pace.rest(millis(100), hour)), (2000, millis(100)));
        for _ in 0..9 {
            pace.seen(2000, millis(900), Duration::ZERO);
        }
        assert_eq!((pace.rows(), pace.rest(millis(1), hour)), (ROWS_MIN, REST_MIN));
    }
}
