//! What the follower says of itself: log, status, metrics; and the pauses that a failure causes.

use super::{Follower, Trouble};
use crate::status::SecondStatus;
use crate::store::lag::projection_lags;
use crate::store::second::SECOND;
use crate::store::{self};

impl Follower {
    pub(super) fn report_running(&self, running: bool) {
        let topic = self.leased.topic.clone();
        self.update(|second| {
            second.topic = topic;
            second.running = running;
        });
    }

    pub(super) fn report_partitions(&self, partitions: usize) {
        self.update(|second| second.partitions = partitions);
    }

    pub(super) fn report_well(&self) {
        let mut before = None;
        self.update(|second| {
            second.connected = true;
            before = second.error.take();
        });
        if before.is_some() {
            tracing::info!("the second destination is back");
        }
    }

    pub(super) fn published(&self, records: usize) {
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        metrics::counter!("kafka_second_published_total").increment(records);
        self.update(|second| second.published += records);
    }

    /// Warns once per trouble, and pauses.
    pub(super) fn failed(&mut self, trouble: &Trouble) {
        metrics::counter!("kafka_second_errors_total").increment(1);
        let first = self.pause.fail(self.parts.second.kafka.retry_max);
        let text = match trouble {
            // What has to be mended has names of its own there.
            Trouble::Kafka(error) if self.parts.second.apart => {
                error.to_string().replace("KAFKA_", "KAFKA_SECOND_")
            }
            trouble => trouble.to_string(),
        };
        if first {
            tracing::warn!(error = text, "second destination");
        } else {
            tracing::debug!(error = text, "second destination");
        }
        self.update(|second| {
            if let Trouble::Kafka(error) = trouble {
                second.connected = !error.is_outage();
            }
            second.error = Some(text);
        });
    }

    pub(super) async fn measure(&self) -> store::Result<()> {
        let asking = projection_lags(&self.parts.pool, &[SECOND], store::SILENT);
        let lags = store::bounded(store::SILENT, asking).await?;
        for lag in lags.iter().filter(|lag| lag.unknown.is_none()) {
            let events = u32::try_from(lag.events).unwrap_or(u32::MAX);
            metrics::gauge!("kafka_second_lag_events").set(events);
            metrics::gauge!("kafka_second_lag_seconds").set(lag.oldest);
        }
        Ok(())
    }

    fn update(&self, change: impl FnOnce(&mut SecondStatus)) {
        self.parts.status.update(|pipeline| change(pipeline.second.get_or_insert_default()));
    }
}
