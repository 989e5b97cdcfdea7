//! The republisher: works off the list of wallets whose events are to be sent again, a small
//! transaction at a time. The publisher sends the rows that it writes; it is never waited for by
//! commands, and any number of instances may work on one list.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::store::outbox::republish::{self, Step};
use crate::store::{self, Pool};
use crate::wallet::TenantId;

/// Between two looks at an empty list, unless woken.
const IDLE: Duration = Duration::from_secs(5);
/// Until the publisher has sent some of what waits.
const FULL: Duration = Duration::from_millis(100);
/// After an error of Postgres.
const PAUSE: Duration = Duration::from_secs(1);

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

impl Republisher {
    /// Works until told to stop; a transaction that runs by then is finished.
    pub async fn run(self, token: CancellationToken) {
        while !token.is_cancelled() {
            let stepping = step(&self.pool, &self.tenant, &self.topic);
            let pause = match store::bounded(store::SILENT, stepping).await {
                Ok(Step::Wrote(events)) => {
                    tracing::debug!(events, "events to be sent again");
                    self.publisher.notify_one();
                    continue;
                }
                Ok(Step::Full) => FULL,
                Ok(Step::Idle) => IDLE,
                Err(error) => {
                    tracing::debug!(%error, "republishing");
                    PAUSE
                }
            };
            tokio::select! {
                () = token.cancelled() => {}
                () = self.asked.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// One transaction's worth of the list.
pub async fn step(pool: &Pool, tenant: &TenantId, topic: &str) -> store::Result<Step> {
    let mut connection = store::acquire(pool).await?;
    store::begin(&mut connection).await?;
    match republish::step(&mut connection, tenant, topic).await {
        Ok(step) => store::commit(&mut connection).await.map(|()| step),
        Err(error) => {
            // The first error says more; the pool mends the session anyway.
            let _ = store::rollback(&mut connection).await;
            Err(error)
        }
    }
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
