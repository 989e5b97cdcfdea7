//! Compares every topic that should be there with what the cluster has, now and then: what is missing,
//! offline, under-replicated or different is on the health pages and in the metrics.

use std::sync::Arc;
use std::time::Duration;

use super::services::{Kafka, Services};
use crate::background::task::{Never, Task};
use crate::kafka::Connection;
use crate::status::{Status, TopicHealth};
use crate::topics::{Topics, TopicsError, View, Wiring};

const PAUSE: Duration = Duration::from_secs(10);
/// While something is not as it should be: it may be corrected any moment.
const PAUSE_SHORT: Duration = Duration::from_secs(2);

pub(super) struct TopicWatch {
    wiring: Wiring,
    connection: Arc<Connection>,
    status: Status,
    /// Kept from round to round.
    open: Option<Topics>,
}

impl TopicWatch {
    pub fn new(services: &Services, kafka: &Kafka) -> Self {
        let (connection, status) = (Arc::clone(&kafka.connection), services.status.clone());
        Self { wiring: services.topics(), connection, status, open: None }
    }
}

impl Task for TopicWatch {
    const NAME: &'static str = "topic health";
    const MAY_BE_CUT: bool = true;
    type Error = Never;

    async fn round(&mut self) -> Result<Duration, Never> {
        // Who cannot be reached is asked by the watch of the cluster; one of them is enough.
        let found = match self.status.snapshot().connected {
            true => look(&self.wiring, &self.connection, &mut self.open).await,
            false => None,
        };
        let well = found.as_ref().is_some_and(|topics| topics.iter().all(TopicHealth::is_well));
        if let Some(topics) = &found {
            count(topics);
        }
        self.status.update(|pipeline| pipeline.topics = found);
        Ok(if well { PAUSE } else { PAUSE_SHORT })
    }
}

/// None: Kafka or Postgres did not answer.
async fn look(
    wiring: &Wiring,
    connection: &Connection,
    open: &mut Option<Topics>,
) -> Option<Vec<TopicHealth>> {
    let asked = async {
        let topics = match open.take() {
            Some(topics) => topics,
            None => Topics::open_behind(wiring, connection).await?,
        };
        let views = topics.list().await?;
        *open = Some(topics);
        Ok::<_, TopicsError>(views)
    };
    let views = asked.await;
    let views = views.inspect_err(|error| tracing::debug!(%error, "topics not looked at")).ok()?;
    Some(views.into_iter().map(health).collect())
}

fn health(view: View) -> TopicHealth {
    TopicHealth {
        exists: view.exists,
        partitions: view.partitions.len(),
        under_replicated: view.under_replicated,
        offline: view.offline,
        drift: view.drift.into_iter().map(|drift| drift.what).collect(),
        name: view.name,
    }
}

fn count(topics: &[TopicHealth]) {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let those = |which: fn(&TopicHealth) -> bool| topics.iter().filter(|t| which(t)).count();
    metrics::gauge!("kafka_topics_missing").set(number(those(|topic| !topic.exists)));
    metrics::gauge!("kafka_topics_drifted").set(number(those(|topic| !topic.drift.is_empty())));
    let offline = topics.iter().map(|topic| topic.offline).sum();
    metrics::gauge!("kafka_topics_offline_partitions").set(number(offline));
    let lacking = topics.iter().map(|topic| topic.under_replicated).sum();
    metrics::gauge!("kafka_topics_under_replicated_partitions").set(number(lacking));
}
