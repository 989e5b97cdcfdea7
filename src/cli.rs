//! The command line: one binary, a subcommand for each thing an operator does.
//!
//! Exit codes: 0 fine, 1 failed, 2 usage; `loadtest` also 3, when there is no service.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "commands speak to a terminal")]

// Before the commands, which print with them.
#[macro_use]
mod output;

mod archive;
pub mod dev;
mod dlq;
mod healthcheck;
pub mod loadtest;
mod openapi;
mod outbox;
mod projections;
mod reconcile;
mod schemas;
mod serve;
mod settings;
mod topics;
mod verify_kafka;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config::{self, Notes, Overrides, Settings};

/// A wallet and billing service: exact money over Postgres, every event to Kafka in order.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service (what happens without a subcommand, too)
    Serve(serve::ServeArgs),
    /// Run the service with a private PostgreSQL and Kafka, all in this terminal
    Dev(dev::DevArgs),
    /// Bring the database's schema up to date
    Migrate,
    /// Check that events, ledger, read model, wallets and outbox agree
    Reconcile(reconcile::ReconcileArgs),
    /// Old months of events and postings: list, take one to files, bring it back, check its files
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
    /// Dead letters and parked wallets: list, show, replay, settle
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// What waits for Kafka, what it refused, and events sent again
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// Projections: show where they stand, rebuild one
    #[command(subcommand)]
    Projections(projections::ProjectionsCommand),
    /// Topics: what is there, create what is missing, tenants' own, how many partitions
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    /// Walk the way to Kafka step by step, and say where it ends and why
    VerifyKafka(verify_kafka::VerifyArgs),
    /// Show or check the settings
    #[command(subcommand)]
    Config(settings::ConfigCommand),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the OpenAPI document, as /openapi.json serves it
    Openapi,
    /// Print the AsyncAPI document of the topics, as /asyncapi.json serves it
    Asyncapi,
    /// The schemas of what is in the topics, and their registry
    #[command(subcommand)]
    Schemas(schemas::SchemasCommand),
    /// Ask a running service whether it is healthy; for containers
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Put load on a running service, then check its money and its ledger
    Loadtest(loadtest::LoadtestArgs),
}

/// Runs the command of this process's arguments.
pub async fn main() -> ExitCode {
    // One TLS provider for every client, before any of them is made. It is only ever set here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let command = Arguments::parse().command.unwrap_or(Command::Serve(serve::ServeArgs::default()));
    match run(command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("wallex: {error:#}");
            let unreachable = error.is::<loadtest::Unreachable>();
            if unreachable { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}

async fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Serve(args) => serve::run(args).await.map(|()| true),
        Command::Dev(args) => dev::run(args).await.map(|()| true),
        Command::Migrate => {
            let tell = |text: &str| eprintln!("wallex: {text}");
            let asked = crate::store::migrate(&settings()?.database, tell).await?;
            println!("the schema is up to date");
            if let Some(asked) = asked {
                eprintln!("wallex: {asked}");
            }
            Ok(true)
        }
        Command::Reconcile(args) => reconcile::run(args, settings()?).await,
        Command::Archive(command) => archive::run(command, settings()?).await,
        Command::Dlq(command) => dlq::run(command, settings()?).await,
        Command::Outbox(command) => outbox::run(command, settings()?).await,
        Command::Projections(command) => projections::run(command, settings()?).await,
        Command::Topics(command) => topics::run(command).await,
        Command::VerifyKafka(args) => verify_kafka::run(&args, settings()?).await,
        Command::Config(command) => settings::run(&command),
        Command::Completions { shell } => {
            let command = &mut <Arguments as clap::CommandFactory>::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, command, "wallex", &mut script);
            output::write(&script);
            Ok(true)
        }
        Command::Openapi => openapi::run(),
        Command::Asyncapi => openapi::asyncapi(&settings()?),
        Command::Schemas(command) => schemas::run(command, &settings()?).await,
        Command::Healthcheck(args) => healthcheck::run(args, &settings()?).await,
        // It speaks to any service, and needs no settings of this one.
        Command::Loadtest(args) => loadtest::run(args).await,
    }
}

/// The settings, with a warning for each name that is most likely misspelt.
fn settings() -> anyhow::Result<Settings> {
    settings_and_notes(&Overrides::new()).map(|(settings, _)| settings)
}

/// The same, with what else there is to tell of them. What the driver of the database would refuse
/// is refused here: every command and `config check` agree.
fn settings_and_notes(flags: &Overrides) -> anyhow::Result<(Settings, Notes)> {
    let (settings, notes) = config::load(flags)?;
    crate::store::check_settings(&settings.database).map_err(anyhow::Error::msg)?;
    for warning in &notes.warnings {
        eprintln!("wallex: {warning}");
    }
    Ok((settings, notes))
}

/// A time on the command line: 30s, 500ms, 2m; a bare number is in seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text}: use 30s, 500ms or 2m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match text.strip_prefix(digits) {
        Some("ms") => Ok(Duration::from_millis(number)),
        Some("" | "s") => Ok(Duration::from_secs(number)),
        Some("m") => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::duration;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert!(duration("s").is_err() && duration("-1s").is_err() && duration("1h").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
