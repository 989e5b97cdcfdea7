//! Asks now and then which topic the events topic is: one that was deleted and made anew under its
//! name takes offsets that were used before, which nobody else would notice.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::KafkaSettings;
use crate::kafka::Error;
use crate::kafka::admin::Admin;
use crate::status::{COMMANDS, Status};
use crate::store::topics::{Identity, identify};
use crate::store::{self, Pool};
use crate::wallet::TenantId;

const EVERY: Duration = Duration::from_secs(5);

/// What the watch needs.
pub(super) struct Parts {
    pub settings: KafkaSettings,
    pub pool: Pool,
    pub tenant: TenantId,
    pub status: Status,
}

/// Runs until told to stop.
pub(super) async fn watch(parts: Arc<Parts>, stop: CancellationToken) {
    let mut admin = None;
    while let Some(asked) = stop.run_until_cancelled(ask(&parts, &mut admin)).await {
        if let Err(error) = asked {
            admin = None;
            tracing::debug!(error, "the id of the events topic is not known");
        }
        stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
}

async fn ask(parts: &Parts, admin: &mut Option<Admin>) -> Result<(), String> {
    let text = |error: Error| error.to_string();
    let connected = match admin.take() {
        Some(connected) => connected,
        None => Admin::connect(&parts.settings).await.map_err(text)?,
    };
    let topic = &parts.settings.events_topic;
    let id = connected.topic_id(topic).await.map_err(text)?;
    *admin = Some(connected);
    let Some(id) = id else { return Ok(()) };
    let noting = identify(&parts.pool, &parts.tenant, topic, id);
    let noted = store::bounded(store::SILENT, noting).await.map_err(|error| error.to_string())?;
    if let Identity::Changed { before } = noted {
        let error = format!(
            "the topic {topic} was made anew (id {before}, now {id}): it is read from its \
             beginning, and what it lacks is read from events"
        );
        tracing::error!("{error}");
        parts.status.update(|pipeline| {
            let projectors = pipeline.projectors.iter_mut();
            for (_, projector) in projectors.filter(|(name, _)| **name != COMMANDS) {
                projector.last_error = Some(error.clone());
                projector.error_passes = false;
            }
        });
    }
    Ok(())
}
