//! The command line: one binary, a subcommand for each thing an operator does.
//!
//! Exit codes: 0 fine, 1 failed, 2 usage; `loadtest` also 3, when there is no service.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "commands speak to a terminal")]

pub mod dev;
mod healthcheck;
mod loadtest;
mod openapi;
mod reconcile;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Overrides, Settings};

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
    /// Show or check the settings
    #[command(subcommand)]
    Config(settings::ConfigCommand),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the OpenAPI document, as /openapi.json serves it
    Openapi,
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
            crate::store::migrate(&settings(&Overrides::new())?.database).await?;
            println!("the schema is up to date");
            Ok(true)
        }
        Command::Reconcile(args) => reconcile::run(args, settings(&Overrides::new())?).await,
        Command::Config(command) => settings::run(&command),
        Command::Completions { shell } => {
            let command = &mut <Arguments as clap::CommandFactory>::command();
            clap_complete::generate(shell, command, "wallex", &mut std::io::stdout());
            Ok(true)
        }
        Command::Openapi => openapi::run(),
        Command::Healthcheck(args) => healthcheck::run(args, &settings(&Overrides::new())?).await,
        // It speaks to any service, and needs no settings of this one.
        Command::Loadtest(args) => loadtest::run(args).await,
    }
}

/// The settings, with a warning for each name that is most likely misspelt.
fn settings(flags: &Overrides) -> anyhow::Result<Settings> {
    let (settings, unknown) = config::load(flags)?;
    for name in unknown {
        eprintln!("wallex: {name} is no setting; .env.example lists them all");
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
