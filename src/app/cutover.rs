//! Dual publishing's part of the wiring: once the second topic has become the first, publisher and
//! projectors go on in its place before anything is published.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::kafka::Connection;
use crate::store::dual_publish::cutover::{Cutover, cut_over, take_back};
use crate::store::{self, Pool};
use crate::wallet::TenantId;

/// Between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Runs once before the publisher: cuts over where the settings ask for that, and ends when it is known
/// which topic is the first.
pub(super) async fn run(pool: &Pool, kafka: &Connection, topic: &str, stop: &CancellationToken) {
    let mut logged = false;
    while !stop.is_cancelled() {
        let waits = match stop.run_until_cancelled(attempt(pool, kafka, topic)).await {
            None => return,
            Some(Ok(Cutover::NotDue)) => return,
            Some(Ok(Cutover::Done { missing })) => {
                tracing::info!(topic, missing, "the second topic is the first from now on");
                return;
            }
            Some(Ok(Cutover::Waiting(others))) => {
                format!("{others} instances run with the settings of before: stop them")
            }
            Some(Err(error)) => error,
        };
        if !logged {
            tracing::warn!(waits, "not published before the destinations have changed sides");
            logged = true;
        }
        stop.run_until_cancelled(tokio::time::sleep(RETRY_INTERVAL)).await;
    }
}

async fn attempt(pool: &Pool, kafka: &Connection, topic: &str) -> Result<Cutover, String> {
    let tenant = TenantId::default_tenant();
    let asking = store::dual_publish::known_topic(pool, &tenant);
    let second = store::bounded(store::SILENT, asking).await.map_err(|error| error.to_string())?;
    let Some(second) = second else { return Ok(Cutover::NotDue) };
    // Another name is another topic; the same may be another cluster's.
    if second != topic {
        let taking = take_back(pool, &tenant, topic, &second);
        let taken = store::bounded(store::SILENT, taking).await;
        return taken.map(|()| Cutover::NotDue).map_err(|error| error.to_string());
    }
    let admin = kafka.admin().await.map_err(|error| error.to_string())?;
    let id = admin.topic_id(topic).await.map_err(|error| error.to_string())?;
    // One that is not there yet was no second.
    let Some(id) = id else { return Ok(Cutover::NotDue) };
    let cutting = async {
        let mut connection = store::acquire(pool).await?;
        store::begin(&mut connection).await?;
        let cutover = cut_over(&mut connection, &tenant, topic, id).await;
        match cutover {
            Ok(Cutover::Done { .. }) => store::commit(&mut connection).await?,
            _ => store::rollback(&mut connection).await?,
        }
        cutover
    };
    cutting.await.map_err(|error: store::Error| error.to_string())
}
