//! What a run measures, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Measures the service against what PostgreSQL alone can do, on one machine in one run.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench")]
pub struct Options {
    /// About two minutes: single lines of the groups a, b and c, one pass. All of them are bursts.
    #[arg(long, conflicts_with = "smoke")]
    pub quick: bool,
    /// A few seconds: only that everything works. Its figures mean nothing.
    #[arg(long)]
    pub smoke: bool,
    /// Groups to run: a ceilings, b commands, c bulk, d reads, e pipeline, g memory, h growth,
    /// i purges.
    /// (Group f, the cost of an operation, is part of every line.)
    #[arg(long, value_delimiter = ',', value_name = "a,b,…")]
    pub only: Vec<String>,
    /// Only lines whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub lines: Option<String>,
    /// Times that every line is measured, interleaved; the default is 3, or 1 when quick.
    #[arg(long)]
    pub passes: Option<usize>,
    /// Seconds of one reading; the default is 15, or 3 when quick.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Seconds that a rate must be held to be in step; the default is 30.
    #[arg(long)]
    pub hold: Option<u64>,
    /// Prints for each line what an event costs in PostgreSQL, statement by statement.
    #[arg(long, conflicts_with = "uncounted")]
    pub statements: bool,
    /// Does not count statements: shows what pg_stat_statements costs.
    #[arg(long)]
    pub uncounted: bool,
    /// Rows that wait in the outbox before a drain; the default is 1,000,000, in smoke 5,000.
    #[arg(long)]
    pub backlog: Option<u64>,
    /// A setting of the service, for comparisons: COMMAND_LANES=2. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub settings: Vec<String>,
    /// The service to measure; the release build unless given.
    #[arg(long, value_name = "FILE")]
    pub service: Option<PathBuf>,
    /// What each query costs at 100,000 and 1,000,000 rows, and how that grows; in smoke at 5,000 and 20,000.
    #[arg(long, conflicts_with_all = ["quick", "only", "lines"])]
    pub growth: bool,
    /// What an event costs over tables of years, in little memory: steady, beside freezes, under a held snapshot.
    #[arg(long, conflicts_with_all = ["quick", "smoke", "only", "lines", "growth"])]
    pub size: bool,
    /// With --size: events in the tables; a tenth of them before.
    #[arg(long, requires = "size", default_value_t = 20_000_000)]
    pub rows: u64,
    /// With --size: minutes of load in all.
    #[arg(long, requires = "size", default_value_t = 30)]
    pub minutes: u64,
    /// With --growth: at 10,000,000 rows, too.
    #[arg(long, requires = "growth")]
    pub full: bool,
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
    /// One probe of a rate, and how many of them there are at most.
    pub probe: Duration,
    pub probes: u32,
    /// Load at the same rate before either of them.
    pub lead_in: Duration,
    /// How long a rate is held that is called in step, and how far a projection may be behind.
    pub hold: Duration,
    pub in_step: Duration,
    /// How often a second that is looked at, at least.
    pub looks: f64,
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
    /// Events whose outbox rows and keys are to be purged.
    pub purged: u64,
}

/// A shorter reading is a burst: it ends before checkpoints, vacuum and the pipeline have been paid.
pub const BURST: Duration = Duration::from_secs(15);

impl Scale {
    /// How long is measured, and what that makes of the figures.
    pub fn readings(&self) -> String {
        let seconds = |time: Duration| time.as_secs_f64();
        if self.reading < BURST {
            return format!("{} s: bursts, none of them lasts", seconds(self.reading));
        }
        let (reading, hold) = (seconds(self.reading), seconds(self.hold));
        format!("{reading} s as a burst, {hold} s where it says in step")
    }
}

impl Options {
    /// Rows at which queries are asked.
    pub fn sizes(&self) -> Vec<u64> {
        match (self.smoke, self.full) {
            (true, _) => vec![5_000, 20_000],
            (_, false) => vec![100_000, 1_000_000],
            (_, true) => vec![100_000, 1_000_000, 10_000_000],
        }
    }

    pub fn scale(&self) -> Scale {
        let second = Duration::from_secs(1);
        let full = Scale {
            name: "full",
            passes: 3,
            reading: BURST,
            warm_up: second,
            probe: 4 * second,
            probes: 7,
            lead_in: 3 * second,
            hold: 30 * second,
            in_step: second,
            looks: 4.0,
            broker_warm_up: 20 * second,
            growth: 30 * second,
            patience: 180 * second,
            backlog: 1_000_000,
            rebuild: 300_000,
            grown: 5_000_000,
            purged: 200_000,
        };
        let mut scale = match (self.quick, self.smoke) {
            (true, _) => Scale { name: "quick", passes: 1, reading: 3 * second, ..full },
            (_, true) => Scale {
                name: "smoke",
                passes: 1,
                reading: second / 2,
                warm_up: second / 5,
                probe: second / 2,
                probes: 4,
                lead_in: second / 5,
                hold: second,
                // It is to show that it works, wherever it runs.
                in_step: 20 * second,
                looks: 1.0,
                broker_warm_up: second / 5,
                growth: second / 2,
                backlog: 5_000,
                rebuild: 2_000,
                grown: 5_000,
                purged: 2_000,
                ..full
            },
            _ => full,
        };
        scale.backlog = self.backlog.unwrap_or(scale.backlog);
        scale.passes = self.passes.unwrap_or(scale.passes).max(1);
        scale.reading = self.seconds.map_or(scale.reading, Duration::from_secs);
        scale.hold = self.hold.map_or(scale.hold, Duration::from_secs);
        scale
    }
}
