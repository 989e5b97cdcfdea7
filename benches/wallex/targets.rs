//! What the service is meant to reach: ratios of figures of one run.

use std::cmp::Ordering;

use serde::Serialize;

use crate::reading::Line;

/// The line that targets of the pipeline look at.
pub const IN_STEP: &str = "credit, 1,000 wallets, in step";

/// A target, what it aims at beyond, and what was measured.
#[derive(Debug, Serialize)]
pub struct Target {
    pub name: &'static str,
    pub wanted: &'static str,
    pub aim: &'static str,
    pub measured: Option<f64>,
    /// How `measured` reads.
    pub unit: &'static str,
    bound: f64,
    /// The target is an upper bound.
    most: bool,
}

impl Target {
    /// None where the run did not measure it.
    pub fn is_met(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(if self.most { measured <= self.bound } else { measured >= self.bound })
    }
}

/// The lines of a run, by name.
pub struct Found<'a>(pub &'a [Line]);

impl Found<'_> {
    fn line(&self, name: &str) -> Option<&Line> {
        self.0.iter().find(|line| line.name == name)
    }

    fn rate(&self, name: &str) -> Option<f64> {
        self.line(name)?.rate()
    }

    /// The best rate among the lines whose names begin so.
    fn best(&self, prefix: &str) -> Option<f64> {
        let lines = self.0.iter().filter(|line| line.name.starts_with(prefix));
        lines.filter_map(Line::rate).max_by(f64::total_cmp)
    }

    /// One transaction per operation with a key, at its best client count.
    fn best_pgbench(&self) -> Option<&Line> {
        let counts = self.0.iter().filter(|line| line.name.starts_with("pgbench, "));
        let uniform = counts.filter(|line| !line.name.contains("one row") && line.rate().is_some());
        uniform.max_by(|a, b| a.rate().partial_cmp(&b.rate()).unwrap_or(Ordering::Equal))
    }

    pub fn pgbench(&self) -> Option<f64> {
        self.best_pgbench()?.rate()
    }

    pub fn pgbench_one_row(&self) -> Option<f64> {
        self.best("pgbench, one row")
    }

    pub fn batched_100(&self) -> Option<f64> {
        self.best("batched writer, 100 a transaction")
    }

    fn batched_narrow(&self) -> Option<f64> {
        self.best("batched writer, narrow tables")
    }

    fn p50(&self, name: &str) -> Option<f64> {
        self.line(name)?.median(|reading| reading.p50_ms)
    }
}

fn ratio(figure: Option<f64>, to: Option<f64>) -> Option<f64> {
    figure.zip(to).filter(|(_, to)| *to > 0.0).map(|(figure, to)| figure / to)
}

fn least(name: &'static str, [wanted, aim]: [&'static str; 2], measured: Option<f64>) -> Target {
    let (bound, unit) = bound(wanted);
    Target { name, wanted, aim, measured, unit, bound, most: false }
}

fn most(name: &'static str, words: [&'static str; 2], measured: Option<f64>) -> Target {
    Target { most: true, ..least(name, words, measured) }
}

/// The number and the unit of "1.5 ×" or "30,000 /s".
fn bound(wanted: &'static str) -> (f64, &'static str) {
    let (number, unit) = wanted.split_once(' ').unwrap_or((wanted, ""));
    (number.replace(',', "").parse().unwrap_or(f64::NAN), unit)
}

/// The table that ends every report.
pub fn targets(found: &Found<'_>) -> Vec<Target> {
    let mut all = commands(found);
    all.extend(pipeline(found));
    all
}

fn commands(found: &Found<'_>) -> Vec<Target> {
    let uniform = found.rate("credit, 1,000 wallets, 128 connections");
    let hot = found.rate("credit, hot wallet, 128 connections");
    let one = found.p50("credit, 1,000 wallets, 1 connections");
    let bulk = found.rate("POST /bulk of 100, 8 connections");
    let grown = found.rate("credit, 128 connections, grown tables");
    let empty = found.rate("credit, 128 connections, empty tables");
    let memory = found.line("resident memory, 512 connections");
    let one_row = ratio(hot, found.pgbench_one_row());
    let single = ratio(one, found.p50("pgbench, 1 clients"));
    let highest = memory.and_then(|line| line.note("MB highest"));
    vec![
        least("128 connections against pgbench", ["3 ×", "5 ×"], ratio(uniform, found.pgbench())),
        least("hot wallet against pgbench on one row", ["10 ×", "17 ×"], one_row),
        least(
            "bulk of 100 against the batched writer",
            ["0.95 ×", "1.0 ×"],
            ratio(bulk, found.batched_100()),
        ),
        least(
            "bulk of 100 against the batched writer's narrow tables",
            ["0.6 ×", ""],
            ratio(bulk, found.batched_narrow()),
        ),
        most("p50 of a credit, one connection, against pgbench", ["1.5 ×", "1.0 ×"], single),
        least("hot wallet against 1,000 wallets", ["0.9 ×", "1.1 ×"], ratio(hot, uniform)),
        least("grown tables against empty ones", ["0.85 ×", "0.97 ×"], ratio(grown, empty)),
        most("resident memory under full load", ["150 MB", "60 MB"], highest),
    ]
}

fn pipeline(found: &Found<'_>) -> Vec<Target> {
    let in_step = found.line(IN_STEP);
    let readable = found.line("answer to readable entry, at 1000/s");
    let p50 = readable.and_then(|line| line.median(|reading| reading.p50_ms));
    let p99 = readable.and_then(|line| line.median(|reading| reading.p99_ms));
    let gzip = found.rate("publisher drains a full outbox, gzip");
    let purges = found.line("purges of old outbox rows and keys");
    let postgres = |line: &Line| line.cost(|cost| cost.postgres_us);
    let kilobytes = |line: &Line| line.cost(|cost| cost.wal_bytes / 1000.0);
    vec![
        least(
            "credits in step (1 s, for 30 s) against pgbench",
            ["2.4 ×", "3.5 ×"],
            ratio(in_step.and_then(Line::rate), found.pgbench()),
        ),
        most(
            "PostgreSQL's CPU of a credit in step against pgbench's of a transaction",
            ["0.25 ×", "0.15 ×"],
            ratio(in_step.and_then(postgres), found.best_pgbench().and_then(postgres)),
        ),
        most("WAL of a credit in step", ["2.2 KB", "1.6 KB"], in_step.and_then(kilobytes)),
        most("WAL of an event's purges", ["0.6 KB", ""], purges.and_then(kilobytes)),
        most("answer to readable entry at 1,000/s, p50", ["20 ms", "8 ms"], p50),
        most("answer to readable entry at 1,000/s, p99", ["100 ms", ""], p99),
        least(
            "drain of a full outbox, gzip, against pgbench",
            ["14 ×", "24 ×"],
            ratio(gzip, found.pgbench()),
        ),
    ]
}
