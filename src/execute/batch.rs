//! One batch in one transaction, up to the point where only COMMIT is left.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::fold::{Fold, Folded, fold};
use super::known_keys::{KnownKeys, versions_of};
use super::{Operation, QueuedRequest, Request, Shared, wanted};
use crate::answer::Outcomes;
use crate::store::commands::{
    BatchStart, KeyPlace, Loaded, Locking, batch_claim, batch_further, batch_start, wallets_at,
    wallets_existing, write_batch,
};
use crate::store::{self, Connection};
use crate::wallet::{Event, Further, TenantId, Wallet, WalletId};

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
    /// One for each queued; none where a wallet of the queued is contended.
    pub outcomes: Vec<Option<Outcomes>>,
    /// Wallets that another transaction has locked.
    pub contended: HashSet<(TenantId, WalletId)>,
    /// Nothing to commit: only refusals and replays.
    pub read_only: bool,
    /// Events to keep for the projectors, once they are committed.
    pub events: Vec<Event>,
    /// The server that has them, then.
    pub server: i64,
}

/// Wallets of `requests` are waited for this long before their commands are answered `wallet_busy`.
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
        requests: &[QueuedRequest],
        locking: Locking,
    ) -> store::Result<Prepared> {
        store::bounded(PREPARE_LIMIT, self.write(shared, id, requests, locking)).await
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
    pub async fn claim(&mut self, id: Uuid) -> store::Result<()> {
        store::bounded(PREPARE_LIMIT, async {
            store::begin(&mut self.connection).await?;
            batch_claim(&mut self.connection, id).await
        })
        .await
    }

    async fn write(
        &mut self,
        shared: &Shared,
        id: Uuid,
        requests: &[QueuedRequest],
        locking: Locking,
    ) -> store::Result<Prepared> {
        store::begin(&mut self.connection).await?;
        let connection = &mut self.connection;
        let (wallets, keys) = (wallets_of(requests), keys_of(requests));
        let start =
            batch_start(connection, id, &wallets, &keys, shared.settings.answers, locking).await?;
        let BatchStart { now, server, mut tenants } = start;
        let absent = |(tenant, id): &(&TenantId, &WalletId)| {
            tenants.get(*tenant).is_none_or(|loaded| loaded.world.wallet(id).is_none())
        };
        let absent: Vec<_> = wallets.into_iter().filter(absent).collect();
        let contended: HashSet<(TenantId, WalletId)> = match (locking, absent.is_empty()) {
            (Locking::Skip, false) => {
                wallets_existing(connection, &absent).await?.into_iter().collect()
            }
            _ => HashSet::new(),
        };
        let mut past = self.past(requests, &tenants).await?;
        let mut further = self.further(requests, now, &tenants).await?;
        let policy = shared.policy();
        let mut folds = HashMap::new();
        for tenant in requests.iter().map(|queued| &queued.request.tenant) {
            folds.entry(tenant).or_insert_with(|| {
                let found = tenants.remove(tenant).unwrap_or_default();
                let mut world = found.world;
                // A tenant without wallets among these has nothing that was read.
                world.now = now;
                world.extend(further.remove(tenant).unwrap_or_default());
                let keys = KnownKeys::new(found.keys, past.remove(tenant).unwrap_or_default());
                let of_tenant = contended.iter().filter(|(owner, _)| owner == tenant);
                let contended = of_tenant.map(|(_, id)| id).collect();
                Fold::new(tenant, self.partitions, world, keys, contended).by(policy.clone())
            });
        }
        let Folded { outcomes, mut writes } = fold(folds, requests);
        let read_only = writes.is_empty();
        if !read_only {
            write_batch(&mut self.connection, &shared.topic.name, now, &mut writes).await?;
        }
        Ok(Prepared { outcomes, contended, read_only, events: writes.events, server })
    }

    /// What the commands need beside their wallets: nothing, where all of them are plain.
    async fn further(
        &mut self,
        requests: &[QueuedRequest],
        now: DateTime<Utc>,
        tenants: &HashMap<TenantId, Loaded>,
    ) -> store::Result<HashMap<TenantId, Further>> {
        let wanted = wanted::of(requests, now, tenants);
        match wanted.is_empty() {
            true => Ok(HashMap::new()),
            false => batch_further(&mut self.connection, &wanted).await,
        }
    }

    /// The wallets that the answers under known keys speak of, as they were then.
    async fn past(
        &mut self,
        requests: &[QueuedRequest],
        tenants: &HashMap<TenantId, Loaded>,
    ) -> store::Result<HashMap<TenantId, HashMap<(WalletId, i64), Wallet>>> {
        let wanted = past_versions(requests, tenants);
        let mut past: HashMap<_, HashMap<_, _>> = HashMap::new();
        if wanted.is_empty() {
            return Ok(past);
        }
        for ((tenant, id, version), wallet) in wallets_at(&mut self.connection, &wanted).await? {
            past.entry(tenant).or_default().insert((id, version), wallet);
        }
        Ok(past)
    }
}

/// The versions that known keys speak of.
fn past_versions(
    requests: &[QueuedRequest],
    tenants: &HashMap<TenantId, Loaded>,
) -> Vec<(TenantId, WalletId, i64)> {
    let mut wanted = Vec::new();
    for Request { tenant, operations, .. } in requests.iter().map(|queued| &queued.request) {
        let Some(Loaded { keys, .. }) = tenants.get(tenant).filter(|found| !found.keys.is_empty())
        else {
            continue;
        };
        for Operation { key, command, .. } in operations {
            let row = key.as_ref().and_then(|key| keys.get(&key.scope[..]));
            let versions = row.into_iter().flat_map(|row| versions_of(command, &row.answer));
            wanted.extend(versions.map(|(id, version)| (tenant.clone(), id, version)));
        }
    }
    wanted
}

/// The wallets that the batch locks: sorted, each once.
fn wallets_of(requests: &[QueuedRequest]) -> Vec<(&TenantId, &WalletId)> {
    let requests = requests.iter().map(|queued| &queued.request);
    let mut wallets: Vec<_> =
        requests.flat_map(|request| request.wallets().map(|id| (&request.tenant, id))).collect();
    wallets.sort_unstable();
    wallets.dedup();
    wallets
}

/// The places of all keys that the batch may write.
fn keys_of(requests: &[QueuedRequest]) -> Vec<KeyPlace<'_>> {
    let requests = requests.iter().map(|queued| &queued.request);
    requests
        .flat_map(|request| {
            request.keys().map(|key| (&request.tenant, &key.scope[..], key.keyed_at))
        })
        .collect()
}
