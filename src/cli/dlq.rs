//! `wallex dlq`: dead letters and parked wallets. Changes only Postgres; a running service does what
//! is asked for, so that a request outlives this command.

mod print;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tokio::time::{Instant, sleep};

use super::output;
use print::counted;

use crate::answer::{DeadLetterStoryView, DeadLettersView};
use crate::config::Settings;
use crate::store::dead_letters::requests::{self, MatchedRows, Outstanding, ReplaySelector};
use crate::store::dead_letters::{self, Filter, STATES, Source};
use crate::store::{self, Connection, parked};

/// Between two looks at what is still to be done.
const POLL: Duration = Duration::from_millis(200);
/// Without any progress for so long, no service seems to be at work.
const PROGRESS_WAIT_MAX: Duration = Duration::from_secs(15);

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Dead letters, newest first, and parked wallets
    List(ListArgs),
    /// One dead letter: its bytes, its headers, its history
    Show {
        id: i64,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters to their topic again, try parked wallets again now
    Replay(ReplayArgs),
    /// Settle dead letters: they are kept, and replayed only by their ids from now on
    Quarantine(QuarantineArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// What has this wallet's id as its key, and the wallet itself where it is parked
    #[arg(long, value_name = "WALLET")]
    wallet: Option<String>,
    /// An error class; `parked` for the parked wallets alone
    #[arg(long, value_name = "CLASS")]
    cause: Option<String>,
    /// What was meant to be an event, or a command; parked wallets are of events
    #[arg(long, value_parser = Source::WORDS)]
    source: Option<String>,
    /// Dead letters: open, requested, replayed, quarantined; parked wallets: retrying, waiting
    #[arg(long, value_parser = state)]
    state: Option<String>,
    /// Lines of each kind, at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
    /// Only dead letters with lower ids: the next page
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What is meant. Everything given must agree.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct SelectorArgs {
    /// Dead letters by their ids, whatever their state; all others are taken where they are open
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// What has this wallet's id as its key, and the wallet itself where it is parked
    #[arg(long, value_name = "WALLET")]
    wallet: Option<String>,
    /// An error class; `parked` for the parked wallets alone
    #[arg(long, value_name = "CLASS")]
    cause: Option<String>,
    /// What was meant to be an event, or a command; parked wallets are of events
    #[arg(long, value_parser = Source::WORDS)]
    source: Option<String>,
    /// Everything that is open
    #[arg(long, conflicts_with_all = ["ids", "wallet", "cause"])]
    all: bool,
}

#[derive(Debug, Args)]
pub struct SelectionArgs {
    #[command(flatten)]
    which: SelectorArgs,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Leave it to the service and do not wait until it is done
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
pub struct QuarantineArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Why, kept for later readers
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    note: String,
}

/// True where everything was done.
pub async fn run(command: DlqCommand, settings: Settings) -> anyhow::Result<bool> {
    let pool = store::connect_pool(&settings.database).await.context("database settings")?;
    let mut connection = store::acquire(&pool).await.context("connecting to Postgres")?;
    match command {
        DlqCommand::List(args) => list(&mut connection, args).await,
        DlqCommand::Show { id, json } => show(&mut connection, id, json).await,
        DlqCommand::Replay(args) => replay(&mut connection, args).await,
        DlqCommand::Quarantine(args) => quarantine(&mut connection, args).await,
    }
}

async fn list(connection: &mut Connection, args: ListArgs) -> anyhow::Result<bool> {
    let ListArgs { wallet, cause, source, state, limit, before, json } = args;
    let wallets = match before.is_none() && requests::has_parked(&cause, &source) {
        false => Vec::new(),
        true => {
            let filter = parked::Filter { wallet: wallet.clone(), state: state.clone(), limit };
            parked::list(connection, &filter).await?
        }
    };
    let filter = Filter { wallet, cause, source, state, before, limit };
    let letters = dead_letters::list(connection, &filter).await?;
    let view = DeadLettersView {
        dead_letters: letters.into_iter().map(Into::into).collect(),
        parked_wallets: wallets.into_iter().map(Into::into).collect(),
        next_cursor: None,
    };
    output::show(json, &view, print::list)
}

async fn show(connection: &mut Connection, id: i64, json: bool) -> anyhow::Result<bool> {
    let found = dead_letters::show(connection, id).await?;
    let found =
        found.with_context(|| format!("there is no dead letter {id}: `wallex dlq list`"))?;
    output::show(json, &DeadLetterStoryView::from(found), print::story)
}

async fn replay(connection: &mut Connection, args: ReplayArgs) -> anyhow::Result<bool> {
    let selection = &args.selection;
    let chosen = chosen(connection, selection).await?;
    let (letters, wallets) = (chosen.ids.len(), chosen.wallets.len());
    let what =
        format!("{} and {}", counted(letters, "dead letter"), counted(wallets, "parked wallet"));
    if selection.json {
        println!("{}", serde_json::to_string_pretty(&chosen.view(selection.dry_run))?);
    }
    let say = |text: String| {
        if selection.json { eprintln!("{text}") } else { println!("{text}") }
    };
    if selection.dry_run || chosen == MatchedRows::default() {
        say(format!("to be replayed: {what}"));
        return Ok(true);
    }
    confirm(selection, &format!("replay {what}"))?;
    requests::replay(connection, &chosen).await?;
    if args.no_wait {
        say(format!("requested: {what}"));
        return Ok(true);
    }
    match done(connection, &chosen).await? {
        Outstanding { letters: 0, wallets: 0 } => {
            let parked = still_parked(connection, &chosen).await?;
            say(format!(
                "replayed: {}; released: {}",
                counted(letters, "dead letter"),
                counted(wallets - parked, "wallet")
            ));
            if parked > 0 {
                let parked = counted(parked, "wallet");
                say(format!("{parked} failed again: `wallex dlq list --cause parked`"));
            }
            let refused = requests::refused(connection, &chosen.ids).await?;
            for (id, cause) in &refused {
                say(format!("dead letter {id} was refused: {cause}"));
            }
            Ok(parked == 0 && refused.is_empty())
        }
        left => {
            say(format!(
                "{} dead letters and {} wallets are still to be done, and for {} s nothing \
                 happened: is a service running, with Kafka in reach? The request stays",
                left.letters,
                left.wallets,
                PROGRESS_WAIT_MAX.as_secs()
            ));
            Ok(false)
        }
    }
}

async fn quarantine(connection: &mut Connection, args: QuarantineArgs) -> anyhow::Result<bool> {
    let selection = &args.selection;
    let MatchedRows { ids, .. } = chosen(connection, selection).await?;
    if !selection.dry_run {
        confirm(selection, &format!("settle {}", counted(ids.len(), "dead letter")))?;
        requests::quarantine(connection, &ids, &args.note).await?;
    }
    let word = if selection.dry_run { "to be settled" } else { "settled" };
    let text = format!("{word}: {}", counted(ids.len(), "dead letter"));
    let settled = MatchedRows { ids, wallets: Vec::new() }.view(selection.dry_run);
    output::show(selection.json, &settled, |_| println!("{text}"))
}

async fn chosen(connection: &mut Connection, args: &SelectionArgs) -> anyhow::Result<MatchedRows> {
    let selection = ReplaySelector {
        ids: args.which.ids.clone(),
        wallet: args.which.wallet.clone(),
        cause: args.which.cause.clone(),
        source: args.which.source.clone(),
    };
    let chosen = requests::choose(connection, &selection).await?;
    let unknown = args.which.ids.iter().find(|id| !chosen.ids.contains(id));
    anyhow::ensure!(
        unknown.is_none(),
        "there is no dead letter {} of this kind: `wallex dlq list`",
        unknown.copied().unwrap_or_default()
    );
    Ok(chosen)
}

/// Asks where many are meant; without a terminal it demands `--yes`.
fn confirm(args: &SelectionArgs, what: &str) -> anyhow::Result<()> {
    if args.yes || !args.which.ids.is_empty() || args.which.wallet.is_some() {
        return Ok(());
    }
    anyhow::ensure!(std::io::stdin().is_terminal(), "to {what} add --yes");
    anyhow::ensure!(output::confirmed(&format!("{what}?"))?, "nothing was done");
    Ok(())
}

/// Waits while there is progress; what is left.
async fn done(connection: &mut Connection, chosen: &MatchedRows) -> anyhow::Result<Outstanding> {
    let (mut last, mut since) = (Outstanding::default(), Instant::now());
    let mut told = Instant::now();
    loop {
        let left = requests::outstanding(connection, chosen).await?;
        if left != last {
            (last, since) = (left, Instant::now());
        }
        if left == Outstanding::default() || since.elapsed() > PROGRESS_WAIT_MAX {
            return Ok(left);
        }
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            eprintln!("{} dead letters, {} wallets to go", left.letters, left.wallets);
        }
        sleep(POLL).await;
    }
}

async fn still_parked(connection: &mut Connection, chosen: &MatchedRows) -> anyhow::Result<usize> {
    let mut count = 0;
    for wallet in &chosen.wallets {
        let id = Some(wallet.wallet_id.clone());
        let filter = parked::Filter { wallet: id, state: None, limit: 1000 };
        let found = parked::list(connection, &filter).await?;
        let is_it = |parked: &parked::Parked| {
            parked.tenant_id == wallet.tenant_id && parked.projector == wallet.projector
        };
        count += usize::from(found.iter().any(is_it));
    }
    Ok(count)
}

fn state(text: &str) -> Result<String, String> {
    let known = STATES.iter().chain(&parked::STATES);
    match known.clone().any(|state| *state == text) {
        true => Ok(text.to_owned()),
        false => Err(format!("one of {}", known.copied().collect::<Vec<_>>().join(", "))),
    }
}
