//! Before the service starts: does Kafka let it in? Only where the settings ask for it; else the
//! service starts without, and its health page says what is wrong.

use anyhow::Context as _;

use crate::config::{KafkaSettings, SaslMechanism};
use crate::kafka::admin::Admin;

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
    let cluster = cluster.await.context(
        "KAFKA_VALIDATE_ON_STARTUP: Kafka does not let the service in; `wallex verify-kafka` walks \
         the way step by step",
    )?;
    tracing::info!(cluster = cluster.id, brokers = cluster.brokers.len(), "Kafka lets us in");
    Ok(())
}
