//! `wallex schemas list|check|register`: what the topics' records look like, and what the registry
//! says of it.

use anyhow::Context as _;
use serde_json::json;

use super::output;
use crate::config::Settings;
use crate::registry::{Finding, Registry, State, Subject, subjects};
use crate::topics;

#[derive(Debug, clap::Subcommand)]
pub enum SchemasCommand {
    /// The subjects under which a registry has them
    List {
        /// Print one JSON document, schemas included
        #[arg(long)]
        json: bool,
    },
    /// Whether they fit what the registry has; changes nothing
    Check {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Register those that the registry does not have, unless one does not fit
    Register,
}

pub async fn run(command: SchemasCommand, settings: &Settings) -> anyhow::Result<bool> {
    let subjects = subjects(&topics::channels(settings));
    let registry = settings.registry.as_ref();
    let registry = registry.context("SCHEMA_REGISTRY_URL is not set: there is no registry");
    match command {
        SchemasCommand::List { json } => list(&subjects, json),
        SchemasCommand::Check { json } => {
            let findings = Registry::new(registry?).check(&subjects).await?;
            output::show(json, &findings, |findings| {
                findings.iter().for_each(|finding| println!("{}", line(finding)));
            })?;
            Ok(findings.iter().all(|finding| finding.state != State::Incompatible))
        }
        SchemasCommand::Register => {
            let registry = registry?;
            let new = Registry::new(registry).register(&subjects).await?;
            println!("{registry}: {} subjects, {new} registered now", subjects.len());
            Ok(true)
        }
    }
}

fn list(subjects: &[Subject], json: bool) -> anyhow::Result<bool> {
    let shown = subjects.iter().map(|subject| {
        json!({"subject": subject.name, "topic": subject.topic, "schema": subject.schema()})
    });
    output::show(json, &shown.collect::<Vec<_>>(), |_| {
        subjects.iter().for_each(|subject| println!("{}", subject.name));
    })
}

fn line(finding: &Finding) -> String {
    let Finding { subject, state, reason } = finding;
    match state {
        State::Registered => format!("{subject}: registered"),
        State::New => format!("{subject}: not known; `wallex schemas register` registers it"),
        State::Compatible => {
            format!("{subject}: another version is registered, which this one fits")
        }
        State::Unchecked => {
            format!("{subject}: another version is registered; the registry compares none")
        }
        State::Incompatible => {
            format!("{subject}: does NOT fit: {}", reason.as_deref().unwrap_or_default())
        }
    }
}
