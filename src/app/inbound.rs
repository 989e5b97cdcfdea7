//! Inbound commands wired: their consumer, and their group's offsets committed to Kafka.

use std::sync::Arc;

use super::pipeline;
use super::services::{Kafka, Services};
use crate::execute::Executor;
use crate::group_offsets;
use crate::inbound::{Inbound, Parts};
use crate::status::COMMANDS;

/// The consumer; it ends with the ways in.
pub(super) fn commands(
    s: &Services,
    kafka: &Kafka,
    executor: Executor,
) -> impl Future<Output = ()> + Send + 'static {
    let inbound = Inbound::new(Parts {
        tenant: s.tenant.clone(),
        kafka: s.settings.kafka.clone(),
        producer: s.settings.producer.clone(),
        group_prefix: s.settings.consumer.group_prefix.clone(),
        connection: Arc::clone(&kafka.connection),
        pool: s.pools.pipeline.clone(),
        executor,
        queue_max: s.settings.commands.queue_max,
        instance: Arc::clone(&s.instance),
        status: s.status.clone(),
    });
    inbound.run(s.shutdown.clone())
}

/// Its group's offsets, and the role of their lease.
pub(super) fn offsets(
    s: &Services,
    kafka: &Kafka,
) -> (&'static str, impl Future<Output = ()> + Send + 'static) {
    let role = group_offsets::COMMANDS_ROLE;
    let topic = s.settings.kafka.inbound.topic.clone();
    (role, pipeline::offsets(s, kafka, topic, COMMANDS, role))
}
