//! Before the service starts: does Kafka let it in? Only where the settings ask for it; else the
//! service starts without, and its health page says what is wrong. And does the topic of the events fit
//! these books? Where it does not, the start ends.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout;

use crate::config::{KafkaSettings, SaslMechanism};
use crate::kafka::Class;
use crate::kafka::admin::Admin;
use crate::topics::{KnownTopic, Topics, Wiring};

/// The start waits this long for Kafka to say what the topic is.
const AT_START: Duration = Duration::from_secs(4);

/// Warns of a login in clear text; fails where the brokers are to be reached and are not.
pub(super) async fn check(settings: &KafkaSettings) -> anyhow::Result<()> {
    let plain = settings.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == SaslMechanism::Plain);
    if plain && settings.tls.is_none() {
        tracing::warn!(
            "KAFKA_SASL_MECHANISM=plain without TLS: the password is readable on the network"
        );
    }
    if !settings.validate_on_startup {
        return Ok(());
    }
    let cluster = async { Admin::connect(settings).await?.describe().await };
    let cluster = cluster.await.map_err(|error| {
        let what = match error.class {
            Class::Auth => "Kafka does not let the service in",
            Class::Topic | Class::Refused => "Kafka refuses to say what it is",
            _ => "Kafka is out of reach",
        };
        let context = format!(
            "KAFKA_VALIDATE_ON_STARTUP: {what}; `wallex verify-kafka` walks the way step by step"
        );
        anyhow::Error::new(error).context(context)
    })?;
    tracing::info!(cluster = cluster.id, brokers = cluster.brokers.len(), "Kafka lets us in");
    Ok(())
}

/// Freezes the count of partitions as the topic has it, before the first event is hashed. Where Kafka or
/// Postgres do not answer, the service starts without: it asks again once they do.
pub(super) async fn topic(wiring: &Wiring) -> anyhow::Result<KnownTopic> {
    let asking = async { Topics::open(wiring).await?.admit().await };
    match timeout(AT_START, asking).await {
        Ok(Ok(Ok(seen))) => Ok(seen),
        Ok(Ok(Err(misfit))) => Err(misfit).context("KAFKA_EVENTS_TOPIC"),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the events topic is not known at the start");
            Ok(KnownTopic::default())
        }
        Err(_) => Ok(KnownTopic::default()),
    }
}
