//! `wallex reconcile`: are the books right? Changes nothing; safe beside a running service.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::config::Settings;
use crate::projector::{LEDGER, READ_MODEL};
use crate::store::reconcile::{Bounds, Check, Checked, Lag, Place, Projectors, Report};
use crate::store::{self, Class, Pool};

/// Between two looks at the lag.
const POLL: Duration = Duration::from_millis(200);
/// A wallet with very many events takes long to read.
const LIMIT: Duration = Duration::from_mins(30);
/// The backlog of the outbox is not waited for once it has not shrunk for this long: Kafka is away.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Compares wallets, events, ledger, read model and outbox with each other.
#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    /// Wait this long for the projections and the outbox to catch up first: 30s, 500ms, 2m
    #[arg(long, value_parser = super::duration, value_name = "TIME")]
    pub wait: Option<Duration>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Begin behind this wallet, as a check that was interrupted has named it
    #[arg(long, value_name = "WALLET")]
    pub from: Option<String>,
    /// The tenant that `--from` is of
    #[arg(long, value_name = "TENANT", default_value = "default", requires = "from")]
    pub tenant: String,
}

/// Prints every equation with what contradicts it. True where nothing does; lag is no failure.
pub async fn run(args: ReconcileArgs, settings: Settings) -> anyhow::Result<bool> {
    let pool = store::connect_pool(&settings.database).await.context("database settings")?;
    if let Some(wait) = args.wait {
        caught_up(&pool, wait, settings.kafka.enabled).await.context("reading the lag")?;
    }
    let of = Projectors { ledger: LEDGER, read_model: READ_MODEL };
    let from = args.from.map(|wallet| Place { tenant: args.tenant, wallet });
    let bounds = Bounds { a_question: LIMIT, in_all: None };
    let mut told = Instant::now();
    let tell = |check: &Check<'_>| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            progress(check);
        }
    };
    let checking = store::reconcile::checked(&pool, of, from, bounds, tell);
    let report = checking.await.context("checking the books")?;
    super::output::show(args.json, &report.json(), |_| print(&report))?;
    Ok(report.is_clean())
}

/// How far it is, and how to go on from there.
fn progress(check: &Check<'_>) {
    match check.place() {
        None => eprintln!("the outbox is being read"),
        Some(Place { tenant, wallet }) => eprintln!(
            "{} wallets and {} events are compared; `--from {wallet} --tenant {tenant}` goes on from there",
            check.wallets, check.events
        ),
    }
}

/// Waits until nothing is left to apply, but for parked wallets, and nothing waits for Kafka, or the time is
/// over.
async fn caught_up(pool: &Pool, wait: Duration, kafka: bool) -> store::Result<()> {
    let deadline = Instant::now() + wait;
    let (mut least, mut shrunk) = (i64::MAX, Instant::now());
    let mut failed = 0;
    loop {
        let (applied, waiting) = match looked(pool, kafka).await {
            Ok(found) => found,
            // A server under load may refuse a session once.
            Err(error) if error.class() == Class::Unavailable && failed < 2 => {
                failed += 1;
                sleep(POLL).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if waiting < least {
            (least, shrunk) = (waiting, Instant::now());
        }
        let sent = waiting == 0 || shrunk.elapsed() > PATIENCE;
        if applied && sent || Instant::now() >= deadline {
            return Ok(());
        }
        sleep(POLL).await;
    }
}

/// Whether all is applied, and how many events wait for Kafka.
async fn looked(pool: &Pool, kafka: bool) -> store::Result<(bool, i64)> {
    let mut connection = pool.acquire().await?;
    let lag = store::reconcile::lag(&mut connection, &[LEDGER, READ_MODEL]).await?;
    drop(connection);
    let waiting = match kafka {
        true => store::outbox::backlog(pool, LIMIT).await?.events,
        false => 0,
    };
    Ok((lag.iter().all(|lag| lag.events == 0), waiting))
}

fn print(report: &Report) {
    println!("{} wallets, {} events", report.wallets, report.events);
    for Checked { name, holds, count, findings, mend } in &report.equations {
        println!("{} {name}", if *holds { "✓" } else { "✗" });
        for finding in findings {
            println!("    {finding}");
        }
        let unlisted = usize::try_from(*count).unwrap_or(0).saturating_sub(findings.len());
        if unlisted > 0 {
            println!("    … and {unlisted} more");
        }
        if let Some(command) = mend {
            println!("    to mend: {command}");
        }
    }
    for Lag { projector, wallets, events } in report.lag.iter().filter(|lag| lag.events > 0) {
        println!("lag: {projector} has yet to apply {events} events of {wallets} wallets");
    }
    for parked in &report.parked {
        println!(
            "parked: wallet {} of {} at version {}, {} events wait: {}",
            parked.wallet_id, parked.projector, parked.version, parked.events, parked.cause
        );
    }
    println!("{}", if report.is_clean() { "the books are right" } else { "the books are WRONG" });
}
