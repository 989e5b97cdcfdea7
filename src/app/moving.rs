//! The second destination's part of the wiring: it follows, and once it has become the first, publisher and
//! projectors go on in its place before anything is published.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Background;
use super::pipeline::{Books, books};
use crate::config::Settings;
use crate::kafka::Connection;
use crate::second::{self, Follower};
use crate::store::second::sides::{Sides, change, take_back};
use crate::store::{self, Pool};
use crate::wallet::TenantId;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs once before the publisher: has the destinations changed sides? Ends when that is settled.
pub(super) async fn settle(pool: &Pool, kafka: &Connection, topic: &str, stop: &CancellationToken) {
    let mut told = false;
    while !stop.is_cancelled() {
        let waits = match stop.run_until_cancelled(ask(pool, kafka, topic)).await {
            None => return,
            Some(Ok(Sides::Same)) => return,
            Some(Ok(Sides::Changed { missing })) => {
                tracing::info!(topic, missing, "the second topic is the first from now on");
                return;
            }
            Some(Ok(Sides::Waiting(others))) => {
                format!("{others} instances run with the settings of before: stop them")
            }
            Some(Err(error)) => error,
        };
        if !told {
            tracing::warn!(waits, "not published before the destinations have changed sides");
            told = true;
        }
        stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}

async fn ask(pool: &Pool, kafka: &Connection, topic: &str) -> Result<Sides, String> {
    let tenant = TenantId::default_tenant();
    let asking = store::second::known_topic(pool, &tenant);
    let second = store::bounded(store::SILENT, asking).await.map_err(|error| error.to_string())?;
    let Some(second) = second else { return Ok(Sides::Same) };
    // Another name is another topic; the same may be another cluster's.
    if second != topic {
        let taking = take_back(pool, &tenant, topic, &second);
        let taken = store::bounded(store::SILENT, taking).await;
        return taken.map(|()| Sides::Same).map_err(|error| error.to_string());
    }
    let admin = kafka.admin().await.map_err(|error| error.to_string())?;
    let id = admin.topic_id(topic).await.map_err(|error| error.to_string())?;
    // One that is not there yet was no second.
    let Some(id) = id else { return Ok(Sides::Same) };
    let changing = async {
        let mut connection = store::acquire(pool).await?;
        store::begin(&mut connection).await?;
        let changed = change(&mut connection, &tenant, topic, id).await;
        match changed {
            Ok(Sides::Changed { .. }) => store::commit(&mut connection).await?,
            _ => store::rollback(&mut connection).await?,
        }
        changed
    };
    changing.await.map_err(|error: store::Error| error.to_string())
}

impl Background {
    /// Follows events into the second destination, once the first is known to be the first.
    pub(super) fn spawn_second(
        &self,
        settings: &Settings,
        kafka: &Arc<Connection>,
        settled: &CancellationToken,
    ) {
        let Some(second) = settings.second.clone() else { return };
        let parts = second::Parts {
            pool: self.pools.pipeline.clone(),
            tenant: TenantId::default_tenant(),
            first_topic: settings.kafka.events_topic.clone(),
            partitions: settings.kafka.default_partitions,
            deployment: None,
            second,
            producer: settings.producer.clone(),
            outbox: settings.outbox.clone(),
            status: self.status.clone(),
            instance: Arc::clone(&self.instance),
            wake: Arc::clone(&self.wake_second),
            pressure: self.pressure.clone(),
        };
        let (stop, settled) = (self.stop.clone(), settled.clone());
        let (wiring, kafka) = (self.topics(settings), Arc::clone(kafka));
        self.supervise("second publisher", async move {
            if stop.run_until_cancelled(settled.cancelled()).await.is_none() {
                return;
            }
            if let Some(Books { partitions, deployment }) =
                books(&wiring, &kafka, &parts.status, &stop, || {}).await
            {
                Follower::new(second::Parts { partitions, deployment, ..parts }).run(stop).await;
            }
        });
    }
}
