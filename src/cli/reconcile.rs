//! `wallex reconcile`: are the books right? Changes nothing; safe beside a running service.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::config::Settings;
use crate::projector::{LEDGER, READ_MODEL};
use crate::store::reconcile::{Checked, Lag, Report};
use crate::store::{self, Pool};

/// Between two looks at the lag.
const POLL: Duration = Duration::from_millis(200);
/// Large books take long to read.
const LIMIT: Duration = Duration::from_mins(30);

/// Compares wallets, events, ledger, read model and outbox with each other.
#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    /// Wait this long for the projections to catch up first: 30s, 500ms, 2m
    #[arg(long, value_parser = super::duration, value_name = "TIME")]
    pub wait: Option<Duration>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Prints every equation with what contradicts it. True where nothing does; lag is no failure.
pub async fn run(args: ReconcileArgs, settings: Settings) -> anyhow::Result<bool> {
    let pool = store::connect_pool(&settings.database).await.context("database settings")?;
    if let Some(wait) = args.wait {
        caught_up(&pool, wait).await.context("reading the lag")?;
    }
    let checking = store::reconcile::checked(&pool, LEDGER, READ_MODEL, LIMIT);
    let report = checking.await.context("checking the books")?;
    super::output::show(args.json, &report.json(), |_| print(&report))?;
    Ok(report.is_clean())
}

/// Waits until nothing is left to apply, but for parked wallets, or the time is over.
async fn caught_up(pool: &Pool, wait: Duration) -> store::Result<()> {
    let deadline = Instant::now() + wait;
    loop {
        let mut connection = pool.acquire().await?;
        let lag = store::reconcile::lag(&mut connection, &[LEDGER, READ_MODEL]).await?;
        drop(connection);
        if lag.iter().all(|lag| lag.events == 0) || Instant::now() >= deadline {
            return Ok(());
        }
        sleep(POLL).await;
    }
}

fn print(report: &Report) {
    println!("{} wallets, {} events", report.wallets, report.events);
    for Checked { name, holds, count, findings } in &report.equations {
        println!("{} {name}", if *holds { "✓" } else { "✗" });
        for finding in findings {
            println!("    {finding}");
        }
        let unlisted = usize::try_from(*count).unwrap_or(0).saturating_sub(findings.len());
        if unlisted > 0 {
            println!("    … and {unlisted} more");
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
