//! One batch in one transaction, up to the point where only COMMIT is left.

use std::collections::HashSet;
use std::time::Duration;

use uuid::Uuid;

use super::fold::{Fold, Folded, Known};
use super::{Job, Outcomes, Shared};
use crate::store::commands::{
    Begun, Kept, Locking, Past, Taken, batch_claim, claim_and_read, wallets_at, wallets_existing,
    write_batch,
};
use crate::store::{self, Connection};
use crate::wallet::{Event, TenantId, WalletId};

/// A session of a lane with what it has to know.
#[derive(Debug)]
pub(super) struct Session {
    pub connection: Connection,
    /// The count that wallets are hashed over, frozen in the database.
    pub partitions: i32,
}

/// A batch that has been decided and written, and is not yet committed.
#[derive(Debug)]
pub(super) struct Prepared {
    /// One for each job; none where a wallet of the job was skipped.
    pub outcomes: Vec<Option<Outcomes>>,
    /// Wallets that somebody else holds.
    pub skipped: HashSet<WalletId>,
    /// Nothing to commit: only refusals and replays.
    pub read_only: bool,
    /// Events to keep for the projectors, once they are committed.
    pub events: Vec<Event>,
    /// The server that has them, then.
    pub server: i64,
}

/// Wallets of `jobs` are waited for this long before their commands are answered `wallet_busy`.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that is silent for longer is away: no caller waits for a frozen one.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const PREPARE_LIMIT: Duration = Duration::from_secs(8);
const COMMIT_LIMIT: Duration = Duration::from_secs(5);

impl Session {
    /// Rests first where the attempts before this one failed.
    pub async fn open(shared: &Shared) -> store::Result<Self> {
        shared.reconnect.rest().await;
        let opened = store::bounded(CONNECT_LIMIT, Self::connect(shared)).await;
        shared.reconnect.note(opened.is_ok());
        opened
    }

    async fn connect(shared: &Shared) -> store::Result<Self> {
        let mut connection = store::connect::connect_lane(&shared.database, LOCK_TIMEOUT).await?;
        let topic = &shared.topic;
        let partitions = store::topics::hashed_over(
            &mut connection,
            &TenantId::default_tenant(),
            &topic.name,
            topic.default_partitions,
        )
        .await?;
        Ok(Self { connection, partitions })
    }

    /// Begins the batch and takes it up to its COMMIT. On an error the transaction is still open.
    pub async fn prepare(
        &mut self,
        shared: &Shared,
        id: Uuid,
        jobs: &[Job],
        locking: Locking,
    ) -> store::Result<Prepared> {
        store::bounded(PREPARE_LIMIT, self.write(shared, id, jobs, locking)).await
    }

    /// Commits. Whatever the error, the outcome is unknown.
    pub async fn commit(&mut self) -> store::Result<()> {
        store::bounded(COMMIT_LIMIT, store::commit(&mut self.connection)).await
    }

    /// Gives the transaction up; false where the session is of no use any more.
    pub async fn rollback(&mut self) -> bool {
        store::bounded(CONNECT_LIMIT, store::rollback(&mut self.connection)).await.is_ok()
    }

    /// Begins the batch for its id alone: proves whether a batch of this id has committed.
    pub async fn claim(&mut self, tenant: &TenantId, id: Uuid) -> store::Result<()> {
        store::bounded(PREPARE_LIMIT, async {
            store::begin(&mut self.connection).await?;
            batch_claim(&mut self.connection, tenant, id).await
        })
        .await
    }

    async fn write(
        &mut self,
        shared: &Shared,
        id: Uuid,
        jobs: &[Job],
        locking: Locking,
    ) -> store::Result<Prepared> {
        store::begin(&mut self.connection).await?;
        let (connection, tenant) = (&mut self.connection, tenant_of(jobs));
        let ids = wallets_of(jobs);
        let keys = jobs.iter().flat_map(|job| job.request.keys());
        let scopes: Vec<&[u8]> = keys.map(|key| &key.scope[..]).collect();
        let Begun { wallets, now, taken, server } =
            claim_and_read(connection, tenant, id, &ids, &scopes, locking).await?;
        let absent: Vec<&str> =
            ids.into_iter().filter(|id| !wallets.contains_key(&WalletId::stored(id))).collect();
        let skipped: HashSet<WalletId> = match (locking, absent.is_empty()) {
            (Locking::Skip, false) => {
                wallets_existing(connection, tenant, &absent).await?.into_iter().collect()
            }
            _ => HashSet::new(),
        };
        let past = match past_places(jobs, &taken).as_slice() {
            [] => Past::new(),
            places => wallets_at(connection, tenant, places).await?,
        };
        let known = Known { now, taken, past };
        let fold = Fold::new(wallets, &skipped, known, tenant, self.partitions);
        let Folded { outcomes, mut writes } = fold.run(jobs);
        let read_only = writes.is_empty();
        #[cfg(feature = "seeded-bugs")]
        crate::seeded::keys_later(&shared.database, tenant, &shared.topic.name, now, &mut writes);
        if !read_only {
            write_batch(connection, tenant, &shared.topic.name, now, &mut writes).await?;
        }
        Ok(Prepared { outcomes, skipped, read_only, events: writes.events, server })
    }
}

/// The events that known keys speak of: their answers are made from them again.
fn past_places<'a>(jobs: &'a [Job], taken: &Taken) -> Vec<(&'a WalletId, i64)> {
    let mut places = Vec::new();
    for operation in jobs.iter().flat_map(|job| &job.request.operations) {
        let Some(row) = operation.key.as_ref().and_then(|key| taken.get(&key.scope[..])) else {
            continue;
        };
        if let Kept::Versions(first, second) = row.kept {
            places.push((operation.command.wallet_id(), first));
            places.extend(operation.command.second_wallet_id().zip(second));
        }
    }
    places
}

/// A batch holds one tenant's commands; it is never empty.
pub(super) fn tenant_of(jobs: &[Job]) -> &TenantId {
    static NOBODY: std::sync::LazyLock<TenantId> =
        std::sync::LazyLock::new(|| TenantId::stored(""));
    jobs.first().map_or(&NOBODY, |job| &job.request.tenant)
}

/// The ids that the batch locks: sorted, each once.
fn wallets_of(jobs: &[Job]) -> Vec<&str> {
    let wallets = jobs.iter().flat_map(|job| job.request.wallets());
    let mut ids: Vec<&str> = wallets.map(WalletId::as_str).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
