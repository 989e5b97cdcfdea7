//! `wallex loadtest`: puts load on a running service, measures it, then checks its money.
//!
//! It speaks HTTP only, opens wallets of its own, and keeps its own account of what it did. At the
//! end every wallet must have the balance that this account says, and a ledger that leads there.

pub mod ask;
mod books;
mod check;
mod client;
mod drive;
mod ledger;
mod pace;
mod plan;
mod report;
mod settle;
mod tally;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use books::Books;
use check::{Checked, Wanted};
use client::{Client, Failure, Target};
use drive::{Load, Progress, Ran};
use pace::Limit;
use plan::{Mix, Plan, Spread};
use report::Report;

const DURATION: Duration = Duration::from_secs(30);
/// The numbers of the measured operations begin here, behind any warm-up's.
const MEASURED_FIRST: u64 = 1 << 40;
const TICK: Duration = Duration::from_secs(1);

/// Measures a running service, then checks every wallet's balance and ledger.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit codes: 0 passed, 1 failed, 2 usage, 3 the service cannot be reached.")]
pub struct LoadtestArgs {
    /// The service
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    pub url: Target,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub connections: u16,
    /// Operations per second, begun on time whether or not answers come (open loop); latency counts
    /// from the intended time. Without it, each connection begins the next when it has its answer
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// How long to measure: 30s, 500ms, 2m [default: 30s]
    #[arg(long, value_parser = super::duration, value_name = "TIME", conflicts_with = "operations")]
    pub duration: Option<Duration>,
    /// How many operations to measure, in place of --duration
    #[arg(long, value_name = "N")]
    pub operations: Option<u64>,
    /// Shares of the kinds of operation
    #[arg(long, default_value = "credit=70,debit=20,transfer=10")]
    pub mix: Mix,
    /// Wallets to open
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub wallets: u32,
    /// Which wallets the operations meet
    #[arg(long, value_enum, default_value_t = Spread::Uniform)]
    pub spread: Spread,
    /// Load before the measurement begins; 0 for none
    #[arg(long, value_parser = super::duration, value_name = "TIME", default_value = "2s")]
    pub warmup: Duration,
    /// Whether every operation has an idempotency key; without one, nothing of unknown outcome is
    /// repeated
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    pub keys: bool,
    /// Gives the same operations again [default: from the clock, and printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Name of the run, before its wallets' ids; with the name of an earlier run, its wallets are
    /// used again [default: made, and printed]
    #[arg(long, value_parser = run_name, value_name = "NAME")]
    pub run: Option<String>,
    /// No load: only check the wallets of an earlier run
    #[arg(long, value_parser = run_name, value_name = "RUN",
        conflicts_with_all = ["run", "rate", "duration", "operations"])]
    pub check_only: Option<String>,
    /// How long to wait for one answer
    #[arg(long, value_parser = super::duration, value_name = "TIME", default_value = "10s")]
    pub timeout: Duration,
    /// How long the projections may take to catch up after the load
    #[arg(long, value_parser = super::duration, value_name = "TIME", default_value = "120s")]
    pub wait: Duration,
    /// Write the result as JSON; - is the standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// There is no service where one was named.
#[derive(Debug, thiserror::Error)]
#[error("no service at {target}: {cause}")]
pub struct Unreachable {
    target: String,
    cause: String,
}

/// Runs the load and the check. True where no operation failed and all the books agree.
pub async fn run(args: LoadtestArgs) -> anyhow::Result<bool> {
    let mut client = Client::new(args.url.clone(), args.timeout);
    let unreachable = |cause: String| Unreachable { target: args.url.to_string(), cause };
    let ready = client.get("/readyz").await.map_err(|failure| unreachable(failure.to_string()))?;
    if ready.status != 200 {
        return Err(unreachable(format!("not ready: {}", ready.code())).into());
    }
    let report = match &args.check_only {
        Some(run) => check_only(&args, &mut client, run).await?,
        None => load_and_check(&args).await?,
    };
    publish(&args, &report)?;
    Ok(report.passed())
}

async fn load_and_check(args: &LoadtestArgs) -> anyhow::Result<Report> {
    let nonce = Uuid::now_v7().simple().to_string();
    let (time, chance) = nonce.split_at_checked(12).unwrap_or((&nonce, ""));
    let seed = args.seed.unwrap_or_else(|| u64::from_str_radix(time, 16).unwrap_or(0));
    let made = || format!("load-{time}{}", chance.get(..4).unwrap_or(""));
    let run = args.run.clone().unwrap_or_else(made);
    let (wallets, connections) = (u64::from(args.wallets), usize::from(args.connections));
    let load = describe(args);
    say(args, &format!("run {run}, seed {seed}: {load}"));

    let accounts = drive::open(&args.url, args.timeout, connections, &run, wallets).await?;
    let load_shared = Arc::new(Load {
        target: args.url.clone(),
        patience: args.timeout,
        connections,
        keys: args.keys,
        plan: Plan::new(seed, args.mix, args.spread, wallets),
        books: Books::new(accounts),
        progress: Progress::default(),
        stop: CancellationToken::new(),
    });
    let ran = shown(args, &load_shared, phases(args, &load_shared)).await;

    let books = &load_shared.books;
    let wanted = books.accounts.iter().map(|a| (a.id.clone(), a.expected())).collect();
    let checked = check_wallets(args, wanted).await?;
    let (totals, uncertain) = (Some(books.totals()), books.uncertain());
    Ok(Report { run, seed: Some(seed), load, ran: Some(ran), totals, uncertain, checked })
}

/// Warm-up, then the measurement. What failed in the warm-up has failed all the same.
async fn phases(args: &LoadtestArgs, load: &Arc<Load>) -> Ran {
    let mut failures = std::collections::BTreeMap::new();
    if !args.warmup.is_zero() {
        let warm = drive::run(load, 0, Limit::For(args.warmup), args.rate).await;
        failures = warm.tally.failures;
    }
    let limit = match args.operations {
        Some(operations) => Limit::Operations(operations),
        None => Limit::For(args.duration.unwrap_or(DURATION)),
    };
    let mut ran = drive::run(load, MEASURED_FIRST, limit, args.rate).await;
    for (cause, count) in failures {
        *ran.tally.failures.entry(format!("{cause} (in the warm-up)")).or_default() += count;
    }
    ran
}

/// Drives the load with a line of progress on a terminal; the first Ctrl-C ends it early.
async fn shown(args: &LoadtestArgs, load: &Arc<Load>, phases: impl Future<Output = Ran>) -> Ran {
    let mut phases = std::pin::pin!(phases);
    let terminal = std::io::stderr().is_terminal();
    let mut ticks = tokio::time::interval(TICK);
    let (mut before, begun) = (0, Instant::now());
    loop {
        tokio::select! {
            ran = &mut phases => {
                if terminal {
                    eprint!("\r\x1b[K");
                }
                return ran;
            }
            _ = tokio::signal::ctrl_c(), if !load.stop.is_cancelled() => {
                say(args, "stopping; checking what was done");
                load.stop.cancel();
            }
            _ = ticks.tick(), if terminal => {
                let Progress { operations, declined, failed } = &load.progress;
                let [now, declined, failed] =
                    [operations, declined, failed].map(|count| count.load(Ordering::Relaxed));
                let (time, rate) = (begun.elapsed().as_secs(), now - before);
                eprint!(
                    "\r\x1b[K{time:>4} s  {now} operations, {rate}/s, {declined} declined, \
                     {failed} failed"
                );
                let _ = std::io::stderr().flush();
                before = now;
            }
        }
    }
}

async fn check_only(args: &LoadtestArgs, client: &mut Client, run: &str) -> anyhow::Result<Report> {
    let ids = check::wallets_of(client, run).await.map_err(|failure| gone(args, &failure))?;
    let checked = check_wallets(args, ids.into_iter().map(|id| (id, None)).collect()).await?;
    let (run, load) = (run.to_owned(), "none: only checked".to_owned());
    Ok(Report { run, seed: None, load, ran: None, totals: None, uncertain: 0, checked })
}

async fn check_wallets(args: &LoadtestArgs, wanted: Vec<Wanted>) -> anyhow::Result<Checked> {
    let connections = usize::from(args.connections);
    let checking = check::check(&args.url, args.timeout, connections, wanted, args.wait);
    checking.await.map_err(|failure| gone(args, &failure))
}

/// The service went away before the books could be checked.
fn gone(args: &LoadtestArgs, failure: &Failure) -> anyhow::Error {
    let error = Unreachable { target: args.url.to_string(), cause: failure.to_string() };
    anyhow::Error::new(error).context("checking")
}

fn describe(args: &LoadtestArgs) -> String {
    let (wallets, mix, connections) = (args.wallets, args.mix, args.connections);
    let pace = match args.rate {
        Some(rate) => format!("open loop, {rate} operations/s"),
        None => "closed loop".to_owned(),
    };
    let spread = clap::ValueEnum::to_possible_value(&args.spread);
    let spread = spread.map_or(String::new(), |value| value.get_name().to_owned());
    format!("{pace} over {connections} connections, {wallets} wallets ({spread}), {mix}")
}

/// The standard output is the JSON's alone when it goes there.
fn say(args: &LoadtestArgs, text: &str) {
    if args.json.as_ref().is_some_and(|path| path.as_os_str() == "-") {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
}

fn publish(args: &LoadtestArgs, report: &Report) -> anyhow::Result<()> {
    say(args, &report.text());
    let Some(path) = &args.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(&report.json())?;
    if path.as_os_str() == "-" {
        println!("{text}");
        return Ok(());
    }
    std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}

/// A run's name stands in URLs, ids and JSON as it is.
fn run_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let valid = !text.is_empty() && text.len() <= 100 && text.chars().all(plain);
    valid.then(|| text.to_owned()).ok_or_else(|| "use letters, digits, -, _ and .".to_owned())
}
