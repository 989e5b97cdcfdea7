//! `wallex projections status|rebuild`: shows where the projections stand, rebuilds one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::output;
use crate::config::Settings;
use crate::envelope::timestamp;
use crate::projector::Projection;
use crate::projector::rebuild::{Filled, Rebuild};
use crate::store;
use crate::store::rebuild::{self as tables, State};

#[derive(Debug, Subcommand)]
pub enum ProjectionsCommand {
    /// Where each projector stands, parked wallets, the last rebuilds
    Status {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Rebuild a projection from the events, wallet by wallet, while it is read and written; as the tables' owner
    Rebuild(RebuildArgs),
}

#[derive(Debug, Clone, Args)]
pub struct RebuildArgs {
    #[arg(value_parser = words())]
    projection: String,
    /// Only count the events
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub async fn run(command: ProjectionsCommand, settings: Settings) -> anyhow::Result<bool> {
    match command {
        ProjectionsCommand::Status { json } => {
            let pool =
                store::connect_pool(&settings.database).await.context("database settings")?;
            let mut connection = store::acquire(&pool).await?;
            let state = tables::state(&mut connection).await?;
            output::show(json, &state, print)
        }
        ProjectionsCommand::Rebuild(args) => rebuild(args, &settings).await,
    }
}

/// What a projection may be called on the command line.
fn words() -> PossibleValuesParser {
    PossibleValuesParser::new(Projection::ALL.map(|projection| projection.word))
}

async fn rebuild(args: RebuildArgs, settings: &Settings) -> anyhow::Result<bool> {
    let projection = Projection::ALL.into_iter().find(|known| known.word == args.projection);
    let kind = projection.context("no projection has this name")?;
    let topic = &settings.kafka.events_topic;
    let mut rebuild = Rebuild::open(&settings.database, topic, kind).await?;
    let events = rebuild.extent().await?;
    println!("{events} events are to be applied again");
    if args.dry_run {
        return Ok(true);
    }
    let question = "Each wallet's rows are replaced in one transaction. Go on?";
    if !args.yes && !output::confirmed(question)? {
        println!("nothing was changed");
        return Ok(false);
    }
    let mut said = Instant::now();
    let filled = rebuild
        .run(&CancellationToken::new(), |filled| {
            if said.elapsed() >= Duration::from_secs(1) {
                said = Instant::now();
                eprintln!("{}", progress(filled));
            }
        })
        .await?;
    println!("{} rebuilt from {} events", kind.name(), filled.events);
    Ok(true)
}

fn progress(filled: Filled) -> String {
    let millis = i64::try_from(filled.elapsed.as_millis()).unwrap_or(i64::MAX).max(1);
    let rate = filled.events.saturating_mul(1000) / millis;
    let left = (filled.of - filled.events).max(0) / rate.max(1);
    format!("{} of {} events, {rate} a second, {left} s left", filled.events, filled.of)
}

/// How far a projection is behind, in words.
fn behind(events: Option<i64>, more: bool, why: Option<&str>) -> String {
    match (events, why) {
        (Some(events), _) if more => format!("at least {events} events behind"),
        (Some(events), _) => format!("{events} events behind"),
        (None, why) => format!("not known how far behind: {}", why.unwrap_or("no answer")),
    }
}

fn print(state: &State) {
    let mut lag: BTreeMap<&str, (Option<i64>, bool)> = BTreeMap::new();
    for at in &state.partitions {
        let (events, more) = lag.entry(&at.projector).or_insert((Some(0), false));
        *events = events.zip(at.lag).map(|(sum, own)| sum + own);
        *more |= at.more;
    }
    for (projector, (events, more)) in lag {
        let of_it = || state.partitions.iter().filter(|at| at.projector == projector);
        let why = of_it().find_map(|at| at.unknown);
        println!("{projector}: {}", behind(events, more, why));
        for at in of_it() {
            println!(
                "  partition {}: next offset {}, {}, moved {}",
                at.partition,
                at.next_offset,
                behind(at.lag, at.more, at.unknown),
                timestamp(at.updated_at)
            );
        }
    }
    for parked in &state.parked {
        println!(
            "parked: wallet {} of {} at version {}: {}",
            parked.wallet_id, parked.projector, parked.version, parked.cause
        );
    }
    for last in &state.rebuilds {
        let begun = timestamp(last.started_at);
        match last.finished_at {
            Some(end) => println!(
                "{} rebuilt from {} events, {begun} to {}",
                last.projector,
                last.events,
                timestamp(end)
            ),
            None if state.rebuilding => {
                println!(
                    "{} is being rebuilt since {begun}: {} events",
                    last.projector, last.events
                );
            }
            None => println!("{}: the rebuild of {begun} was broken off", last.projector),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_the_rate_and_what_is_left_of_the_time() {
        let filled = Filled { events: 500, of: 2000, elapsed: Duration::from_millis(250) };
        assert_eq!(progress(filled), "500 of 2000 events, 2000 a second, 0 s left");
        let slow = Filled { events: 10, of: 2000, elapsed: Duration::from_secs(10) };
        assert_eq!(progress(slow), "10 of 2000 events, 1 a second, 1990 s left");
        let none = Filled { events: 0, of: 0, elapsed: Duration::ZERO };
        assert_eq!(progress(none), "0 of 0 events, 0 a second, 0 s left");
    }
}
