//! The topics of inbound commands: made where they are missing, and looked at now and then. More
//! partitions are read as well; a topic that was recreated is read from its beginning.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::backoff::Backoff;
use crate::kafka;
use crate::kafka::admin::Admin;
use crate::kafka::topics::{Topic, TopicSpec};
use crate::store;
use crate::store::topics::{Identity, identify, partitions_frozen};

const EVERY: Duration = Duration::from_secs(5);
/// Pause after a failure, doubled up to the second.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("Postgres: {0}")]
    Store(#[from] store::Error),
    #[error("Kafka: {0}")]
    Kafka(#[from] kafka::Error),
    #[error("the topic {0} is not there yet")]
    Missing(String),
}

/// Waits until all topics are there; none: the task is being stopped.
pub(super) async fn prepare(shared: &Shared, stop: &CancellationToken) -> Option<Admin> {
    let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
    let mut admin = None;
    let mut told = String::new();
    loop {
        match stop.run_until_cancelled(Box::pin(look(shared, &mut admin))).await? {
            Ok(()) => {
                shared.report_well();
                return admin;
            }
            Err(error) => {
                let error = error.to_string();
                // A missing right is granted by an operator: one line in the log is enough.
                if error != told {
                    tracing::warn!(error, "inbound commands wait for their topics");
                }
                shared.report_error(&error);
                told = error;
                admin = None;
                stop.run_until_cancelled(sleep(backoff.fail())).await?;
            }
        }
    }
}

/// Looks again and again until told to stop.
pub(super) async fn watch(shared: &Shared, admin: Admin, stop: &CancellationToken) {
    let mut admin = Some(admin);
    while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
        let looking = Box::pin(look(shared, &mut admin));
        let Some(looked) = stop.run_until_cancelled(looking).await else { break };
        if let Err(error) = looked {
            tracing::debug!(%error, "the topics of inbound commands are not known");
            admin = None;
        }
    }
}

async fn look(shared: &Shared, admin: &mut Option<Admin>) -> Result<(), Failure> {
    let parts = &shared.parts;
    let connected = match admin.take() {
        Some(connected) => connected,
        None => parts.connection.admin().await?,
    };
    let specs = TopicSpec::inbound(&parts.kafka, parts.producer.compression);
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let mut found = connected.topics(names.iter().copied()).await?;
    if found.len() < names.len() {
        let report = connected.ensure_topics(&specs).await?;
        tracing::info!(created = ?report.created, "topics of inbound commands");
        found = connected.topics(names).await?;
    }
    let stages = shared.stages.iter().map(|stage| (&stage.topic, true));
    let sinks = [(&shared.results, false), (&shared.dead_letters, false)];
    for (topic, is_read) in stages.chain(sinks) {
        let state = found.iter().find(|found| found.name == topic.name);
        let state = state.ok_or_else(|| Failure::Missing(topic.name.clone()))?;
        let partitions = i32::try_from(state.partitions.len()).unwrap_or(i32::MAX);
        // A broker of a time before ids says nothing of it.
        if is_read && !state.id.is_nil() {
            recognize(shared, state, partitions).await?;
        }
        topic.partitions.store(partitions, Ordering::Relaxed);
    }
    *admin = Some(connected);
    Ok(())
}

/// Notes which topic it is. Where it was recreated, every place moves back to the beginning.
async fn recognize(shared: &Shared, state: &Topic, partitions: i32) -> Result<(), Failure> {
    let (pool, tenant) = (&shared.parts.pool, &shared.parts.tenant);
    let noting = async {
        let mut connection = store::acquire(pool).await?;
        partitions_frozen(&mut connection, tenant, &state.name, partitions).await?;
        drop(connection);
        identify(pool, tenant, &state.name, state.id).await
    };
    if let Identity::Changed { before } = store::bounded(store::SILENT, noting).await? {
        let error = format!(
            "the topic {} was recreated (id {before}, now {}): it is read from its beginning",
            state.name, state.id
        );
        tracing::error!("{error}");
        shared.report_error(&error);
    }
    Ok(())
}
