//! Speaks with the other instances: listens for their commits and for leases that move, and notifies
//! them of commits here, outside the hot transaction. What gets lost is found by polling.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::services::Services;
use crate::instance::Instance;
use crate::store::signals::{self, Listener, Signal};

/// Between two attempts to listen.
const PAUSE: Duration = Duration::from_secs(1);
/// Commits within this time are one signal.
const FOLD_INTERVAL: Duration = Duration::from_millis(20);

/// Listens until it is stopped, last of all: to the others this instance lives as long as its session
/// does. Wakes whom a commit elsewhere concerns.
pub(super) async fn listen(services: Services) {
    let wakes = services.wakes.of_commits();
    let Services { way, instance, quit: stop, .. } = services;
    while !stop.is_cancelled() {
        let connecting = Box::pin(Listener::connect(&way, instance.owner(), instance.key()));
        let Some(connected) = stop.run_until_cancelled(connecting).await else { break };
        match connected {
            Ok(mut listener) => {
                instance.set_listening(true);
                // What was said before is unknown.
                instance.wake_all();
                wakes.iter().for_each(|wake| wake.notify_one());
                receive(&mut listener, &instance, &wakes, &stop).await;
                instance.set_listening(false);
                // Without the lock the others take this instance for dead unless it says otherwise.
                instance.wake_all();
            }
            Err(error) => tracing::debug!(%error, "not listening to other instances"),
        }
        stop.run_until_cancelled(sleep(PAUSE)).await;
    }
}

async fn receive(
    listener: &mut Listener,
    instance: &Instance,
    wakes: &[Arc<Notify>],
    stop: &CancellationToken,
) {
    while let Some(received) = stop.run_until_cancelled(listener.next()).await {
        match received {
            Ok(Signal::Committed) => wakes.iter().for_each(|wake| wake.notify_one()),
            Ok(Signal::Leases) => instance.wake_all(),
            Err(error) => {
                tracing::warn!(%error, "listening to other instances: polling goes on");
                return;
            }
        }
    }
}

/// Notifies the others of commits here, as long as there are others.
pub(super) async fn notify(services: Services) {
    let Services { pools, instance, wakes, stop, .. } = services;
    let (pool, committed) = (pools.pipeline, wakes.others);
    while stop.run_until_cancelled(committed.notified()).await.is_some() {
        if !instance.has_peers() {
            continue;
        }
        if let Err(error) = signals::committed(&pool, instance.owner()).await {
            tracing::debug!(%error, "other instances not told of a commit: they poll");
        }
        sleep(FOLD_INTERVAL).await;
    }
}
