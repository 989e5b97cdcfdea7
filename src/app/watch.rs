//! Asks the Kafka cluster every few seconds who it is: what the health pages say of it is true even
//! while nothing is published.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::config::KafkaSettings;
use crate::kafka::Error;
use crate::kafka::admin::Admin;
use crate::status::{BrokerStatus, ClusterStatus, Status};

const EVERY: Duration = Duration::from_secs(5);

/// Runs until told to stop.
pub(super) async fn watch(settings: KafkaSettings, status: Status, stop: CancellationToken) {
    let mut admin = None;
    while !stop.is_cancelled() {
        let Some(answer) = stop.run_until_cancelled(ask(&settings, &mut admin)).await else {
            break;
        };
        match answer {
            Ok(cluster) => status.update(|pipeline| {
                pipeline.connected = true;
                pipeline.connection_error = None;
                pipeline.cluster = Some(cluster);
            }),
            Err(error) => {
                admin = None;
                status.update(|pipeline| {
                    pipeline.connected = false;
                    pipeline.connection_error = Some(error.to_string());
                    pipeline.cluster = None;
                });
            }
        }
        stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
}

async fn ask(settings: &KafkaSettings, admin: &mut Option<Admin>) -> Result<ClusterStatus, Error> {
    let connected = match admin.take() {
        Some(connected) => connected,
        None => Admin::connect(settings).await?,
    };
    let begun = Instant::now();
    let cluster = connected.describe().await?;
    let ping_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    *admin = Some(connected);
    let mut brokers = Vec::new();
    for broker in cluster.brokers {
        let reachable = broker.is_reachable().await;
        let host = format!("{}:{}", broker.host, broker.port);
        brokers.push(BrokerStatus { id: broker.id, host, reachable });
    }
    Ok(ClusterStatus { id: cluster.id, brokers, ping_ms })
}
