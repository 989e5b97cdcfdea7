//! Asks the Kafka cluster every few seconds for its id: what the health pages say of it is true even
//! while nothing is published. The same question is the breaker's probe while it is open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::services::Services;
use crate::config::KafkaSettings;
use crate::kafka::admin::Admin;
use crate::kafka::{self, BreakerState, Error};
use crate::status::{BrokerStatus, ClusterStatus, Status, TopicStatus};

/// Runs until told to stop.
pub(super) async fn watch(services: Services, breaker: Arc<kafka::Breaker>) {
    let Services { settings, status, stop, .. } = services;
    let settings = &settings.kafka;
    let mut admin = None;
    let mut states = breaker.subscribe();
    while !stop.is_cancelled() {
        let was_open = breaker.state() == BreakerState::Open;
        if breaker.state() != BreakerState::Closed {
            // A probe is one attempt; a client of before would go on trying for seconds.
            admin = None;
        }
        let answer = tokio::select! {
            () = stop.cancelled() => break,
            answer = ask(settings, &mut admin) => answer,
            // Opened by others while the brokers were asked: the client would go on trying.
            () = opened(&mut states), if !was_open => {
                admin = None;
                rest(&status, &breaker, &mut states, &stop).await;
                continue;
            }
        };
        breaker.probed(answer.as_ref().map(drop));
        if answer.is_err() {
            admin = None;
        }
        status.update(|pipeline| {
            pipeline.connected = answer.is_ok();
            match answer {
                Ok(cluster) => {
                    pipeline.connection_error = None;
                    pipeline.cluster = Some(cluster);
                }
                Err(error) => {
                    pipeline.connection_error = Some(error.to_string());
                    pipeline.cluster = None;
                }
            }
        });
        rest(&status, &breaker, &mut states, &stop).await;
    }
}

async fn opened(states: &mut watch::Receiver<BreakerState>) {
    // An error: the breaker is gone, and with it all that could open it.
    if states.wait_for(|state| *state == BreakerState::Open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Until the next probe is due, or the service stops.
async fn rest(
    status: &Status,
    breaker: &kafka::Breaker,
    states: &mut watch::Receiver<BreakerState>,
    stop: &CancellationToken,
) {
    loop {
        show(status, breaker);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(breaker.probe_due()) => break,
            // Opened or closed by others: the next probe is due at another time.
            _ = states.changed() => {}
        }
    }
}

fn show(status: &Status, breaker: &kafka::Breaker) {
    let state = breaker.state();
    let cause = (state == BreakerState::Open).then(|| breaker.cause()).flatten();
    status.update(|pipeline| {
        pipeline.breaker = state;
        if let Some(cause) = cause {
            pipeline.connected = false;
            pipeline.connection_error = Some(cause.to_string());
        }
    });
}

async fn ask(settings: &KafkaSettings, admin: &mut Option<Admin>) -> Result<ClusterStatus, Error> {
    let connected = match admin.take() {
        Some(connected) => connected,
        None => Admin::connect(settings).await?,
    };
    let begun = Instant::now();
    let cluster = connected.describe().await?;
    let ping_ms = millis(begun.elapsed());
    let names: Vec<String> = settings.own_topics().map(|topic| topic.name(settings)).collect();
    // Whether the cluster answers does not hang on them.
    let topics = connected.topics(names.iter().map(String::as_str)).await.unwrap_or_default();
    *admin = Some(connected);
    let mut brokers = Vec::new();
    for broker in cluster.brokers {
        let latency_ms = broker.latency().await.map(millis);
        let host = format!("{}:{}", broker.host, broker.port);
        let reachable = latency_ms.is_some();
        brokers.push(BrokerStatus { id: broker.id, host, reachable, latency_ms });
    }
    if !brokers.is_empty() && brokers.iter().all(|broker| !broker.reachable) {
        let addresses: Vec<String> = brokers.into_iter().map(|broker| broker.host).collect();
        return Err(Error::advertised(&addresses));
    }
    let topics = topics.into_iter().map(|topic| TopicStatus {
        under_replicated: topic.under_replicated(),
        offline: topic.offline(),
        partitions: topic.partitions.len(),
        name: topic.name,
    });
    let (id, controller) = (cluster.id, cluster.controller);
    Ok(ClusterStatus { id, controller, brokers, topics: topics.collect(), ping_ms })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
