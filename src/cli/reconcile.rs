//! `wallex reconcile`: are the books right? Changes nothing; safe beside a running service.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::config::Settings;
use crate::projector::{LEDGER, READ_MODEL};
use crate::store::reconcile::{Checked, Lag, Report};
use crate::store::{self, Pool};
use crate::wallet::TenantId;

/// Between two looks at the lag.
const POLL: Duration = Duration::from_millis(200);

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
    let pool = store::connect_pool(&settings.database).context("database settings")?;
    let tenant = TenantId::default_tenant();
    if let Some(wait) = args.wait {
        caught_up(&pool, &tenant, wait).await.context("reading the lag")?;
    }
    let report = checked(&pool, &tenant).await.context("checking the books")?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&json(&report))?);
    } else {
        print(&report);
    }
    Ok(report.is_clean())
}

/// The report of one tenant, in one snapshot.
pub async fn checked(pool: &Pool, tenant: &TenantId) -> store::Result<Report> {
    let mut connection = pool.acquire().await?;
    store::begin(&mut connection).await?;
    store::reconcile::snapshot(&mut connection).await?;
    let report = store::reconcile::report(&mut connection, tenant, LEDGER, READ_MODEL).await;
    store::rollback(&mut connection).await?;
    report
}

/// Waits until nothing is left to apply, but for parked wallets, or the time is over.
async fn caught_up(pool: &Pool, tenant: &TenantId, wait: Duration) -> store::Result<()> {
    let deadline = Instant::now() + wait;
    loop {
        let mut connection = pool.acquire().await?;
        let lag = store::reconcile::lag(&mut connection, tenant, &[LEDGER, READ_MODEL]).await?;
        drop(connection);
        if lag.iter().all(|lag| lag.events == 0) || Instant::now() >= deadline {
            return Ok(());
        }
        sleep(POLL).await;
    }
}

fn print(report: &Report) {
    println!("{} wallets, {} events", report.wallets, report.events);
    for Checked { name, count, findings } in &report.equations {
        println!("{} {name}", if *count == 0 { "✓" } else { "✗" });
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

fn json(report: &Report) -> serde_json::Value {
    let equation = |checked: &Checked| {
        serde_json::json!({
            "name": checked.name,
            "holds": checked.count == 0,
            "count": checked.count,
            "findings": checked.findings,
        })
    };
    let lag = |lag: &Lag| {
        serde_json::json!({
            "projector": lag.projector, "wallets": lag.wallets, "events": lag.events,
        })
    };
    let parked = report.parked.iter().map(|parked| {
        serde_json::json!({
            "projector": parked.projector,
            "walletId": parked.wallet_id,
            "version": parked.version,
            "events": parked.events,
            "cause": parked.cause,
        })
    });
    serde_json::json!({
        "clean": report.is_clean(),
        "wallets": report.wallets,
        "events": report.events,
        "equations": report.equations.iter().map(equation).collect::<Vec<_>>(),
        "lag": report.lag.iter().map(lag).collect::<Vec<_>>(),
        "parked": parked.collect::<Vec<_>>(),
    })
}
