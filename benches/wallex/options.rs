//! What a run measures, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Measures the service against what PostgreSQL alone can do, on one machine in one run.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench")]
pub struct Options {
    /// About two minutes: single lines of the groups a, b and c, one pass.
    #[arg(long, conflicts_with = "smoke")]
    pub quick: bool,
    /// A few seconds: only that everything works. Its figures mean nothing.
    #[arg(long)]
    pub smoke: bool,
    /// Groups to run: a ceilings, b commands, c bulk, d reads, e pipeline, g memory, h growth.
    /// (Group f, the cost of an operation, is part of every line.)
    #[arg(long, value_delimiter = ',', value_name = "a,b,…")]
    pub only: Vec<String>,
    /// Only lines whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub lines: Option<String>,
    /// Times that every line is measured, interleaved; the default is 3, or 1 when quick.
    #[arg(long)]
    pub passes: Option<usize>,
    /// Seconds of one reading; the default is 5, or 3 when quick.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Rows that wait in the outbox before a drain; the default is 1,000,000, in smoke 5,000.
    #[arg(long)]
    pub backlog: Option<u64>,
    /// A setting of the service, for comparisons: COMMAND_LANES=2. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub settings: Vec<String>,
    /// The service to measure; the release build unless given.
    #[arg(long, value_name = "FILE")]
    pub service: Option<PathBuf>,
    /// Writes all readings there, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the table into docs/PERFORMANCE.md.
    #[arg(long)]
    pub write_docs: bool,
    /// What `cargo bench` passes to every program.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much of everything.
#[derive(Debug, Clone)]
pub struct Scale {
    pub name: &'static str,
    pub passes: usize,
    pub reading: Duration,
    pub warm_up: Duration,
    /// Load on a new broker before anything is measured: its virtual machine compiles what runs often.
    pub broker_warm_up: Duration,
    /// One reading of growth: long enough that the first touches after a checkpoint do not decide it.
    pub growth: Duration,
    /// Longest wait for the pipeline to be in step again.
    pub patience: Duration,
    /// Rows waiting in the outbox before a drain.
    pub backlog: u64,
    /// Events that projectors apply from nothing.
    pub rebuild: u64,
    /// Events in the tables of the grown database.
    pub grown: u64,
}

impl Options {
    pub fn scale(&self) -> Scale {
        let second = Duration::from_secs(1);
        let full = Scale {
            name: "full",
            passes: 3,
            reading: 5 * second,
            warm_up: second,
            broker_warm_up: 20 * second,
            growth: 30 * second,
            patience: 180 * second,
            backlog: 1_000_000,
            rebuild: 300_000,
            grown: 5_000_000,
        };
        let mut scale = match (self.quick, self.smoke) {
            (true, _) => Scale { name: "quick", passes: 1, reading: 3 * second, ..full },
            (_, true) => Scale {
                name: "smoke",
                passes: 1,
                reading: second / 2,
                warm_up: second / 5,
                broker_warm_up: second / 5,
                growth: second / 2,
                backlog: 5_000,
                rebuild: 2_000,
                grown: 5_000,
                ..full
            },
            _ => full,
        };
        scale.backlog = self.backlog.unwrap_or(scale.backlog);
        scale.passes = self.passes.unwrap_or(scale.passes).max(1);
        scale.reading = self.seconds.map_or(scale.reading, Duration::from_secs);
        scale
    }
}
