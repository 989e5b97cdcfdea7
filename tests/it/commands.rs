//! Inbound commands: what other services put into `wallet-commands` takes effect once, is answered in
//! `wallet-command-results`, and is never lost, whoever is killed meanwhile.

mod broker;
mod effects;
mod instances;
mod kills;
mod poison;
mod retries;

use std::collections::BTreeMap;
use std::time::Duration;

use rskafka::record::Record;
use serde_json::Value;
use wallex::envelope::partition_of;

use crate::dead_letters::wire;
use crate::support::app::{App, Setup};
use crate::support::eventually;

/// Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const PARTITIONS: i32 = 10;

/// A service that consumes commands, its topics made.
pub async fn start(setup: Setup) -> App {
    let app = setup.with_commands().start().await;
    topics_made(&app).await;
    app
}

async fn topics_made(app: &App) {
    eventually("the topics of commands", PATIENCE, async || {
        let topics = wire::client().await.list_topics().await.ok()?;
        let wanted = [commands(app), results(app), letters(app), retry(app, "30min")];
        wanted.iter().all(|name| topics.iter().any(|topic| topic.name == *name)).then_some(())
    })
    .await;
}

pub fn commands(app: &App) -> String {
    app.variable("KAFKA_COMMANDS_TOPIC").to_owned()
}

pub fn results(app: &App) -> String {
    app.variable("KAFKA_COMMAND_RESULTS_TOPIC").to_owned()
}

pub fn letters(app: &App) -> String {
    format!("{}_dlt", commands(app))
}

pub fn retry(app: &App, stage: &str) -> String {
    format!("{}.retry.{stage}", commands(app))
}

/// A command as its sender makes it: keyed by its wallet.
pub fn command(value: &Value) -> Record {
    let key = value["walletId"].as_str().unwrap_or_default();
    wire::record(Some(key.as_bytes()), Some(value.to_string().as_bytes()))
}

/// Appends records, each to the partition of its key, in their order.
pub async fn send(app: &App, records: Vec<Record>) {
    let mut partitions: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
    for record in records {
        let to = partition_of(record.key.as_deref().unwrap_or_default(), PARTITIONS);
        partitions.entry(to).or_default().push(record);
    }
    for (partition, records) in partitions {
        wire::produce(&commands(app), partition, records).await;
    }
}

/// A result as its reader has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub status: u64,
    pub body: Value,
    pub record: Record,
}

/// Every result by command id, in the order in which they were written.
pub async fn told(app: &App) -> BTreeMap<String, Vec<Told>> {
    let mut told: BTreeMap<String, Vec<Told>> = BTreeMap::new();
    for (partition, _, record) in wire::read(&results(app)).await {
        let value: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        let fields: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["body", "commandId", "status"]);
        let id = value["commandId"].as_str().unwrap().to_owned();
        assert_eq!(record.key.as_deref(), Some(id.as_bytes()));
        assert_eq!(partition, partition_of(&id, PARTITIONS));
        let (status, body) = (value["status"].as_u64().unwrap(), value["body"].clone());
        told.entry(id).or_default().push(Told { status, body, record });
    }
    told
}

/// Commands that are behind the places of the consumer.
async fn consumed(app: &App) -> i64 {
    sqlx::query_scalar(
        "select coalesce(sum(next_offset), 0)::bigint from projector_checkpoints \
         where projector = 'wallex-commands'",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap()
}

/// Waits until each of these commands has at least so many results.
pub async fn answered(app: &App, ids: &[&str], times: usize) -> BTreeMap<String, Vec<Told>> {
    eventually(&format!("{times} results of {ids:?}"), PATIENCE, async || {
        let told = told(app).await;
        let enough = |id: &&str| told.get(*id).is_some_and(|told| told.len() >= times);
        ids.iter().all(enough).then_some(told)
    })
    .await
}
