//! Inbound commands wired: their consumer, and their group's offsets committed to Kafka.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Background;
use crate::config::Settings;
use crate::execute::Executor;
use crate::group_offsets::{self, OffsetCommitter};
use crate::inbound::{Inbound, Parts};
use crate::kafka::Connection;
use crate::status::COMMANDS;
use crate::wallet::TenantId;

impl Background {
    /// The consumer is a way in: it stops at `shutdown`, before the lanes, which drain once nobody
    /// can send them anything.
    pub(super) fn spawn_inbound(
        &self,
        settings: &Settings,
        connection: &Arc<Connection>,
        executor: Executor,
        shutdown: &CancellationToken,
    ) {
        let inbound = Inbound::new(Parts {
            tenant: TenantId::default_tenant(),
            kafka: settings.kafka.clone(),
            producer: settings.producer.clone(),
            group_prefix: settings.consumer.group_prefix.clone(),
            connection: Arc::clone(connection),
            pool: self.pools.pipeline.clone(),
            executor,
            queue_max: settings.commands.queue_max,
            instance: Arc::clone(&self.instance),
            status: self.status.clone(),
        });
        let running = inbound.run(shutdown.clone());
        self.supervise_in(&self.tasks, shutdown, "inbound commands", running);
        let role = group_offsets::COMMANDS_ROLE;
        let offsets = OffsetCommitter::new(group_offsets::Deps {
            projector: COMMANDS,
            role,
            group: format!("{}{COMMANDS}", settings.consumer.group_prefix),
            tenant: TenantId::default_tenant().as_str().to_owned(),
            topic: settings.kafka.inbound.topic.clone(),
            connection: Arc::clone(connection),
            pool: self.pools.pipeline.clone(),
            instance: Arc::clone(&self.instance),
            status: self.status.clone(),
        });
        self.supervise(role, offsets.run(self.stop.clone()));
    }
}
