//! `wallex outbox status|retry|republish`: what waits for Kafka, and what to do about it. All of it
//! is done in Postgres; a running service sends.

use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use tokio::time::{Instant, sleep};

use super::output;
use crate::config::Settings;
use crate::envelope::timestamp;
use crate::republisher;
use crate::store::dual_publish::SecondBacklog;
use crate::store::outbox::repair::{self, Refused, RetrySelector, State};
use crate::store::outbox::republish::{self, Counts, RepublishSelector};
use crate::store::{self, Pool};
use crate::wallet::{TenantId, WalletId};

/// Between two looks at what is left.
const POLL: Duration = Duration::from_millis(500);
/// Without a change for so long, the reason is said.
const STUCK: Duration = Duration::from_secs(15);

#[derive(Debug, Subcommand)]
pub enum OutboxCommand {
    /// The backlog, rows that the broker refused, and what was never sent
    Status {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Have rows that the broker refused tried again
    Retry(RetryArgs),
    /// Have events sent again, in order; of a wallet everything from the first chosen one on
    Republish(RepublishArgs),
}

#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct RetryArgs {
    /// Ids of rows, as status shows them
    #[arg(value_name = "ID", allow_hyphen_values = true, required_unless_present_any = ["wallet", "all"])]
    ids: Vec<i64>,
    /// All refused rows of one wallet
    #[arg(long, value_parser = wallet, conflicts_with = "ids")]
    wallet: Option<WalletId>,
    /// All refused rows
    #[arg(long, conflicts_with_all = ["ids", "wallet"])]
    all: bool,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Args)]
pub struct RepublishArgs {
    #[command(flatten)]
    what: RepublishWhat,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Do not wait until they are sent
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
struct RepublishWhat {
    /// What was applied without Kafka and never sent
    #[arg(long)]
    unpublished: bool,
    /// All events of one wallet
    #[arg(long, value_parser = wallet)]
    wallet: Option<WalletId>,
    /// Events of this time or later: 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<DateTime<Utc>>,
    /// Every event there is: the topic was wiped
    #[arg(long)]
    all: bool,
}

pub async fn run(command: OutboxCommand, settings: Settings) -> anyhow::Result<bool> {
    let pool = store::connect_pool(&settings.database).await.context("database settings")?;
    let tenant = TenantId::default_tenant();
    match command {
        OutboxCommand::Status { json } => {
            let mut state = state(&pool, &tenant).await.context("reading the outbox")?;
            if settings.second.is_some() {
                state.second = store::dual_publish::backlog(&pool, &tenant).await?;
            }
            output::show(json, &state, print)
        }
        OutboxCommand::Retry(args) => {
            let which = match args.wallet {
                Some(wallet) => RetrySelector::Wallet(wallet),
                None if args.all => RetrySelector::All,
                None => RetrySelector::Ids(args.ids),
            };
            let rows = repair::retried(&pool, &tenant, &which, args.dry_run).await?;
            let verb = if args.dry_run { "would be" } else { "are" };
            println!("{rows} refused rows {verb} tried again");
            Ok(true)
        }
        OutboxCommand::Republish(args) => republish(args, &settings, &pool, &tenant).await,
    }
}

async fn state(pool: &Pool, tenant: &TenantId) -> store::Result<State> {
    let mut connection = store::acquire(pool).await?;
    repair::state(&mut connection, tenant).await
}

async fn republish(
    args: RepublishArgs,
    settings: &Settings,
    pool: &Pool,
    tenant: &TenantId,
) -> anyhow::Result<bool> {
    anyhow::ensure!(
        settings.kafka.enabled,
        "KAFKA_ENABLED=false: there is no topic to send to; set it to true and restart the service first"
    );
    let selection = args.what.selection();
    let counts = republisher::ask(pool, tenant, &selection, true).await?;
    println!("{} events of {} wallets are to be sent again", counts.events, counts.wallets);
    if args.dry_run || counts.wallets == 0 {
        return Ok(true);
    }
    if !args.yes && !output::confirmed("Consumers will meet copies, and drop them. Go on?")? {
        println!("nothing was changed");
        return Ok(false);
    }
    republisher::ask(pool, tenant, &selection, false).await?;
    if args.no_wait {
        println!("a running service sends them; `wallex outbox status` shows how far it is");
        return Ok(true);
    }
    follow(pool, tenant, &settings.kafka.events_topic).await?;
    println!("all of them are sent");
    Ok(true)
}

/// Says how much is left until nothing is.
async fn follow(pool: &Pool, tenant: &TenantId, topic: &str) -> store::Result<()> {
    let mut last: Option<(Counts, i64)> = None;
    let mut changed = Instant::now();
    loop {
        let mut connection = store::acquire(pool).await?;
        let listed = republish::listed(&mut connection, tenant).await?;
        let outstanding = republish::outstanding(&mut connection, tenant, topic).await?;
        drop(connection);
        if listed.wallets == 0 && outstanding == 0 {
            return Ok(());
        }
        if last != Some((listed, outstanding)) {
            last = Some((listed, outstanding));
            changed = Instant::now();
            eprintln!("{} events are left", listed.events + outstanding);
        } else if changed.elapsed() > STUCK {
            changed = Instant::now();
            eprintln!(
                "nothing moves: does a service run with KAFKA_ENABLED=true, is Kafka connected, \
                 has the broker refused rows? It is safe to stop this command; a service goes on."
            );
        }
        sleep(POLL).await;
    }
}

impl RepublishWhat {
    fn selection(self) -> RepublishSelector {
        match (self.wallet, self.since) {
            (Some(wallet), _) => RepublishSelector::Wallet(wallet),
            (None, Some(since)) => RepublishSelector::Since(since),
            (None, None) if self.unpublished => RepublishSelector::Unpublished,
            (None, None) => RepublishSelector::All,
        }
    }
}

fn print(state: &State) {
    println!("{} events wait, the oldest for {} ms", state.backlog, state.oldest_ms);
    for at in &state.partitions {
        println!(
            "  {} partition {}: {} events, {} of them sent again, the oldest for {} ms",
            at.topic, at.partition, at.events, at.republished, at.oldest_ms
        );
    }
    for row in &state.refused {
        let Refused { id, wallet_id, version, attempts, held, last_error, waiting, .. } = row;
        let held = if *held { "held" } else { "tried again by itself" };
        println!(
            "refused: row {id}, wallet {wallet_id} version {version}, {attempts} times, {held}, \
             {waiting} rows wait behind it: {last_error}"
        );
    }
    if state.unpublished > 0 {
        println!("{} rows were applied without Kafka and never sent", state.unpublished);
    }
    if let Some(from) = state.purge.unpublished_from {
        println!("rows from {} on were purged without having been sent", timestamp(from));
    }
    if state.republication.wallets > 0 {
        let Counts { wallets, events } = state.republication;
        println!("{events} events of {wallets} wallets are to be sent again");
    }
    if let Some(second) = &state.second {
        let SecondBacklog { topic, backlog, more, oldest_ms } = second;
        let least = if *more { "at least " } else { "" };
        match backlog.zip(*oldest_ms) {
            Some((events, ms)) => {
                println!(
                    "second topic {topic}: {least}{events} events wait, the oldest for {ms} ms"
                );
            }
            None => println!(
                "second topic {topic}: what it lacks is not known, its places are of another Postgres cluster: a running service mends them"
            ),
        }
    }
    match state.purge.purged_through {
        Some(through) => println!("purged through {}", timestamp(through)),
        None => println!("nothing was purged yet"),
    }
}

fn wallet(text: &str) -> Result<WalletId, String> {
    WalletId::parse(text).ok_or_else(|| "a wallet's id has 1 to 255 visible characters".to_owned())
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|_| format!("{text}: use a time such as 2026-01-31T12:00:00Z"))
}
