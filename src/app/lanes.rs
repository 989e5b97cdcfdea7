//! The lanes of commands, each on a thread of its own.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::oneshot;

use super::Background;
use crate::execute::{self, EventsTopic, Executor, Lane, Notifiers};

impl Background {
    pub(super) fn lanes(&self) -> (Executor, Vec<Lane>) {
        let s = &self.services;
        let settings = &s.settings;
        let topic = EventsTopic {
            name: settings.kafka.events_topic.as_str().into(),
            default_partitions: settings.kafka.default_partitions,
        };
        let mut listeners = s.wakes.of_commits();
        listeners.push(Arc::clone(&s.wakes.others));
        execute::start(
            s.way.clone(),
            topic,
            settings.commands.clone(),
            Notifiers::new(listeners),
            s.throttle.clone(),
            s.event_cache.clone(),
            self.commands.clone(),
        )
    }

    /// Without a lane commands would wait for ever: its death ends the service.
    pub(super) fn spawn_lanes(&self, lanes: Vec<Lane>) -> anyhow::Result<()> {
        for lane in lanes {
            let ended = lane_thread(lane).context("a lane could not get its thread")?;
            let (status, shutdown) = (self.services.status.clone(), self.services.shutdown.clone());
            self.commands.spawn(async move {
                if ended.await.is_err() {
                    tracing::error!("a lane died: the service stops");
                    status.update(|pipeline| pipeline.dead_tasks.push("lane"));
                    shutdown.cancel();
                }
            });
        }
        Ok(())
    }
}

/// Runs a lane on a thread and a runtime of its own. The receiver hears when it has ended, or errs
/// when it died.
fn lane_thread(lane: Lane) -> std::io::Result<oneshot::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended, hears) = oneshot::channel();
    std::thread::Builder::new().name("lane".to_owned()).spawn(move || {
        runtime.block_on(lane.run());
        let _ = ended.send(());
    })?;
    Ok(hears)
}
