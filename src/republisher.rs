//! The republisher: works off the list of wallets whose events are to be sent again, a small
//! transaction at a time. The publisher sends the rows that it writes; it is never waited for by
//! commands, and any number of instances may work on one list.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::background::task::Task;
use crate::store::outbox::republish::{self, Step};
use crate::store::{self, Pool};
use crate::wallet::TenantId;

/// Between two looks at an empty list, unless woken.
const IDLE: Duration = Duration::from_secs(5);
/// Until the publisher has sent some of what waits.
const FULL: Duration = Duration::from_millis(100);

/// What the republisher needs; `app` puts it together.
#[derive(Debug)]
pub struct Republisher {
    pub pool: Pool,
    pub tenant: TenantId,
    /// Where the events are sent.
    pub topic: String,
    /// Fired when the list has grown.
    pub asked: Arc<Notify>,
    /// To be fired when there are rows to send.
    pub publisher: Arc<Notify>,
}

impl Task for Republisher {
    const NAME: &'static str = "republisher";
    type Error = store::Error;

    async fn round(&mut self) -> store::Result<Duration> {
        let stepping = step(&self.pool, &self.tenant, &self.topic);
        Ok(match store::bounded(store::SILENT, stepping).await? {
            Step::Wrote(events) => {
                tracing::debug!(events, "events to be sent again");
                self.publisher.notify_one();
                Duration::ZERO
            }
            Step::Full => FULL,
            Step::Idle => IDLE,
        })
    }

    async fn woken(&mut self) {
        self.asked.notified().await;
    }
}

/// One transaction's worth of the list.
pub async fn step(pool: &Pool, tenant: &TenantId, topic: &str) -> store::Result<Step> {
    let mut connection = store::acquire(pool).await?;
    store::begin(&mut connection).await?;
    let step = republish::step(&mut connection, tenant, topic).await;
    store::answered(&mut connection, step).await
}

/// Puts wallets on the list, or with `dry_run` only counts them.
pub async fn ask(
    pool: &Pool,
    tenant: &TenantId,
    selection: &republish::RepublishSelector,
    dry_run: bool,
) -> store::Result<republish::Counts> {
    let mut connection = store::acquire(pool).await?;
    store::begin(&mut connection).await?;
    let asked = republish::ask(&mut connection, tenant, selection).await;
    if dry_run || asked.is_err() {
        let _ = store::rollback(&mut connection).await;
    } else {
        store::commit(&mut connection).await?;
    }
    asked
}
