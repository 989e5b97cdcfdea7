//! The highest rate that can be held, by halving: short probes first, then holds of full length, each
//! after a failure a little lower.

/// Probes end once what is left between the bounds is this share of the upper one.
const NARROW: f64 = 0.04;
/// How much lower a hold is tried after one that failed.
const LOWER: f64 = 0.93;
/// Holds that are tried before giving up: one that fails ends early.
const HOLDS: u32 = 8;

/// What is to be tried next, at what rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trial {
    /// Whether it goes well for moments.
    Probe(f64),
    /// Whether it goes well for as long as it must.
    Hold(f64),
}

/// Where the search stands.
#[derive(Debug)]
pub struct Search {
    /// The highest rate whose probe went well, the lowest whose did not.
    low: f64,
    high: f64,
    probes: u32,
    holds: u32,
}

impl Search {
    /// Begins between nothing and a rate that cannot be held, with so many probes at most.
    pub fn below(high: f64, probes: u32) -> Self {
        Self { low: 0.0, high, probes, holds: 0 }
    }

    /// None: no rate was held.
    pub fn next(&self) -> Option<Trial> {
        let narrow = self.high - self.low <= NARROW * self.high;
        match self.holds {
            // A search that has found nothing yet goes on below.
            0 if self.probes > 0 && !narrow => Some(Trial::Probe((self.low + self.high) / 2.0)),
            holds if holds < HOLDS && self.low > 0.0 => Some(Trial::Hold(self.low)),
            _ => None,
        }
    }

    /// Says how a trial went that did not end the search.
    pub fn went(&mut self, trial: Trial, well: bool) {
        match trial {
            Trial::Probe(rate) => {
                self.probes = self.probes.saturating_sub(1);
                *(if well { &mut self.low } else { &mut self.high }) = rate;
            }
            Trial::Hold(rate) => (self.low, self.holds) = (rate * LOWER, self.holds + 1),
        }
    }
}
