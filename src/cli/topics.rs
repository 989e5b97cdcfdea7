//! `wallex topics ensure|list|describe|delete|create-tenant|delete-tenant|recommend`.

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::output;
use crate::kafka::topics::{Drift, KeyStrategy};
use crate::store;
use crate::topics::sizing::{Load, recommend};
use crate::topics::{Deleted, Ensured, Topics, View, Wiring};

#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Create the topics that are missing, and show how the others differ from the settings
    Ensure {
        /// Those for inbound commands and the audit, too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        how: How,
    },
    /// The topics of the service, of its tenants and of KAFKA_TOPICS_FILE, and their health
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// One topic: its configuration, its partitions, how it differs
    Describe {
        topic: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Delete a topic that KAFKA_TOPICS_FILE declares, with all that is in it
    Delete {
        topic: String,
        #[command(flatten)]
        how: How,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Create a tenant's own topics
    CreateTenant {
        tenant: String,
        #[command(flatten)]
        how: How,
    },
    /// Delete a tenant's own topics with all that is in them
    DeleteTenant {
        tenant: String,
        #[command(flatten)]
        how: How,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// How many partitions a new topic should have
    Recommend(RecommendArgs),
}

#[derive(Debug, Clone, Args)]
pub struct How {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct RecommendArgs {
    /// Messages a second, at the peak
    #[arg(long)]
    rate: u64,
    /// Different keys among them
    #[arg(long)]
    keys: u64,
    /// Consumers of one group that share the work
    #[arg(long, default_value_t = 1)]
    consumers: u64,
    /// What records are keyed by: wallet, owner, tenant or random
    #[arg(long, default_value = "wallet", value_parser = key)]
    key: KeyStrategy,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(command: TopicsCommand) -> anyhow::Result<bool> {
    if let TopicsCommand::Recommend(args) = command {
        return print_recommendation(&args);
    }
    let settings = super::settings()?;
    let pool = store::connect_pool(&settings.database).await.context("database settings")?;
    let codec = settings.producer.compression;
    let topics = Topics::open(&Wiring { pool, kafka: settings.kafka, codec }).await?;
    match command {
        TopicsCommand::Ensure { all, how } => {
            show_ensured(&topics.ensure(all, how.dry_run).await?, how.json)
        }
        TopicsCommand::List { json } => {
            let text = |views: &Vec<View>| views.iter().for_each(|view| println!("{}", line(view)));
            output::show(json, &topics.list().await?, text)
        }
        TopicsCommand::Describe { topic, json } => {
            let found = topics.describe(&topic).await?;
            let view = found.with_context(|| format!("{topic} is no topic of this service"))?;
            output::show(json, &view, print_view)
        }
        TopicsCommand::Delete { topic, how, yes } => {
            let unknown = || format!("{topic} is no topic of KAFKA_TOPICS_FILE");
            let planned = topics.delete(&topic, true).await?.with_context(unknown)?;
            if let Some(ended) = ends_here(&planned, &how, yes)? {
                return Ok(ended);
            }
            let deleted = topics.delete(&topic, false).await?.with_context(unknown)?;
            show_deleted(&deleted, how.json)
        }
        TopicsCommand::CreateTenant { tenant, how } => {
            show_ensured(&topics.create_tenant(&tenant, how.dry_run).await?, how.json)
        }
        TopicsCommand::DeleteTenant { tenant, how, yes } => {
            let planned = topics.delete_tenant(&tenant, true).await?;
            if let Some(ended) = ends_here(&planned, &how, yes)? {
                return Ok(ended);
            }
            show_deleted(&topics.delete_tenant(&tenant, false).await?, how.json)
        }
        TopicsCommand::Recommend(_) => Ok(true),
    }
}

/// What the command ends with where nothing is to be deleted, which it then has said.
fn ends_here(planned: &Deleted, how: &How, yes: bool) -> anyhow::Result<Option<bool>> {
    if how.dry_run || planned.deleted.is_empty() {
        return show_deleted(planned, how.json).map(Some);
    }
    let names = planned.deleted.join(" and ");
    let question = format!("All that is in {names} goes with it. Delete it?");
    if !yes && !output::confirmed(&question)? {
        println!("nothing was changed");
        return Ok(Some(false));
    }
    Ok(None)
}

fn key(text: &str) -> Result<KeyStrategy, String> {
    KeyStrategy::parse(text).ok_or_else(|| "use wallet, owner, tenant or random".to_owned())
}

fn print_recommendation(args: &RecommendArgs) -> anyhow::Result<bool> {
    let RecommendArgs { rate, keys, consumers, key, json } = *args;
    output::show(json, &recommend(&Load { rate, keys, consumers, key }), |answer| {
        println!("{} partitions", answer.partitions);
        answer.reasons.iter().for_each(|reason| println!("  {reason}"));
    })
}

fn show_ensured(ensured: &Ensured, json: bool) -> anyhow::Result<bool> {
    output::show(json, ensured, |ensured| {
        let verb = if ensured.dry_run { "would be created" } else { "created" };
        ensured.created.iter().for_each(|name| println!("{name} {verb}"));
        ensured.drift.iter().for_each(|drift| println!("{}", difference(drift)));
        ensured.warnings.iter().for_each(|warning| println!("warning: {warning}"));
        if ensured.created.is_empty() && ensured.drift.is_empty() {
            println!("all topics are there, as they should be");
        }
    })
}

fn show_deleted(deleted: &Deleted, json: bool) -> anyhow::Result<bool> {
    output::show(json, deleted, |deleted| {
        let verb = if deleted.dry_run { "would be deleted" } else { "deleted" };
        deleted.deleted.iter().for_each(|name| println!("{name} {verb}"));
        if deleted.deleted.is_empty() {
            println!("none of them is there");
        }
        deleted.warnings.iter().for_each(|warning| println!("warning: {warning}"));
    })
}

fn difference(drift: &Drift) -> String {
    let Drift { topic, what, wanted, actual } = drift;
    format!("{topic}: {what} is {actual}, the settings say {wanted}")
}

/// One topic in a line.
fn line(view: &View) -> String {
    if !view.exists {
        return format!("{}: not there; `wallex topics ensure` creates it", view.name);
    }
    let health = match (view.offline, view.under_replicated) {
        (0, 0) => "healthy".to_owned(),
        (0, lacking) => format!("{lacking} partitions under-replicated"),
        (offline, _) => format!("{offline} partitions OFFLINE"),
    };
    let hashed = view.hashed_over.map_or_else(String::new, |n| format!(", hashed over {n}"));
    let drift = match view.drift.len() {
        0 => "as configured".to_owned(),
        differences => format!("{differences} differences"),
    };
    let partitions = view.partitions.len();
    format!("{}: {partitions} partitions{hashed}, by {}, {health}, {drift}", view.name, view.key)
}

fn print_view(view: &View) {
    println!("{}", line(view));
    for (name, value) in &view.configs {
        println!("  {name}={value}");
    }
    view.drift.iter().for_each(|drift| println!("  ! {}", difference(drift)));
    for partition in &view.partitions {
        let leader = partition.leader.map_or_else(|| "none".to_owned(), |id| id.to_string());
        println!(
            "  partition {}: leader {leader}, replicas {:?}, in sync {:?}",
            partition.number, partition.replicas, partition.in_sync
        );
    }
}
