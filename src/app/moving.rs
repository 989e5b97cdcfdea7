//! The second destination's part of the wiring: it follows, and once it has become the first, publisher and
//! projectors go on in its place before anything is published.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Background;
use super::pipeline::{Books, books};
use crate::config::Settings;
use crate::kafka::{Breaker, Connection};
use crate::publisher::{Deps, Publisher, Role};
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
    /// Publishes events into the second topic, too, once the first is known to be the first.
    pub(super) fn spawn_dual_publisher(
        &self,
        settings: &Settings,
        kafka: &Arc<Connection>,
        settled: &CancellationToken,
    ) {
        let Some(second) = settings.second.clone() else { return };
        let role = Role::Dual {
            first_topic: settings.kafka.events_topic.clone(),
            from_now: second.from_now,
            apart: second.apart,
        };
        let breaker = Breaker::aside(&second.kafka.breaker);
        let wake = &self.wake_second;
        let deps = self.publisher_deps(settings, role, second.kafka, breaker, wake);
        let (stop, settled) = (self.stop.clone(), settled.clone());
        let (wiring, kafka) = (self.topics(settings), Arc::clone(kafka));
        self.supervise("second publisher", async move {
            if stop.run_until_cancelled(settled.cancelled()).await.is_none() {
                return;
            }
            if let Some(Books { partitions, deployment }) =
                books(&wiring, &kafka, &deps.status, &stop, || {}).await
            {
                Publisher::new(Deps { partitions, deployment, ..deps }).run(stop).await;
            }
        });
    }
}
