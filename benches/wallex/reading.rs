//! One measurement, and what several of the same line come to.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cost::Cost;
use crate::statements::Breakdown;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Reading {
    /// Operations a second; of a bulk request each operation counts.
    pub rate: f64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub cost: Option<Cost>,
    /// What an event cost in PostgreSQL until it was in both projections; of a read or a transaction where
    /// nothing is projected.
    pub statements: Option<Breakdown>,
    /// Answers that were not a success.
    pub errors: u64,
    /// What else was seen: a name, a value.
    pub notes: Vec<(&'static str, f64)>,
    /// Why there is no figure.
    pub missing: Option<String>,
}

impl Reading {
    pub fn of(rate: f64) -> Self {
        Self { rate, ..Self::default() }
    }

    pub fn missing(why: &str) -> Self {
        Self { missing: Some(why.to_owned()), ..Self::default() }
    }

    pub fn with_latency(mut self, latency: &Histogram<u64>) -> Self {
        let ms = |quantile| Some(latency.value_at_quantile(quantile) as f64 / 1000.0);
        (self.p50_ms, self.p99_ms) = (ms(0.5), ms(0.99));
        self
    }

    pub fn with_cost(mut self, cost: Cost) -> Self {
        self.cost = Some(cost);
        self
    }

    pub fn with_statements(mut self, statements: Option<Breakdown>) -> Self {
        self.statements = statements;
        self
    }

    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.notes.push((name, value));
        self
    }
}

/// A line of the table: the readings of all passes.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub group: char,
    pub name: String,
    pub readings: Vec<Reading>,
}

impl Line {
    /// The readings that have figures.
    fn figures(&self, of: impl Fn(&Reading) -> Option<f64>) -> Vec<f64> {
        let present = self.readings.iter().filter(|reading| reading.missing.is_none());
        let mut figures: Vec<f64> = present.filter_map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    pub fn median(&self, of: impl Fn(&Reading) -> Option<f64>) -> Option<f64> {
        let figures = self.figures(of);
        let middle = figures.len() / 2;
        match figures.len() {
            0 => None,
            n if n % 2 == 1 => Some(figures[middle]),
            _ => Some((figures[middle - 1] + figures[middle]) / 2.0),
        }
    }

    pub fn rate(&self) -> Option<f64> {
        self.median(|reading| Some(reading.rate))
    }

    pub fn cost(&self, of: impl Fn(&Cost) -> f64) -> Option<f64> {
        self.median(|reading| reading.cost.as_ref().map(&of))
    }

    /// All readings as one.
    pub fn statements(&self) -> Option<Breakdown> {
        Breakdown::of_all(self.readings.iter().filter_map(|reading| reading.statements.as_ref()))
    }

    pub fn note(&self, name: &str) -> Option<f64> {
        self.median(|reading| {
            reading.notes.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
        })
    }

    /// Names of the notes, as the first reading has them.
    pub fn notes(&self) -> Vec<&'static str> {
        let first = self.readings.iter().find(|reading| !reading.notes.is_empty());
        first.map(|r| r.notes.iter().map(|(name, _)| *name).collect()).unwrap_or_default()
    }

    /// Half the distance between the lowest and the highest rate, as a share of the median.
    pub fn spread(&self) -> Option<f64> {
        let figures = self.figures(|reading| Some(reading.rate));
        let (low, high, middle) = (figures.first()?, figures.last()?, self.rate()?);
        (figures.len() > 1 && middle > 0.0).then(|| (high - low) / 2.0 / middle)
    }

    pub fn errors(&self) -> u64 {
        self.readings.iter().map(|reading| reading.errors).sum()
    }

    /// Why there are no figures at all.
    pub fn missing(&self) -> Option<&str> {
        let all = self.readings.iter().all(|reading| reading.missing.is_some());
        self.readings.first().filter(|_| all)?.missing.as_deref()
    }
}
