//! Where holds belong: a command that names one by its id alone has to know its wallets before it is
//! queued, and they never change. Kept for the holds that were placed or asked for here lately.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::store::holds::{self, Home};
use crate::store::{self, Connection};
use crate::wallet::{Command, Event, Facts, TenantId};

/// Holds in one generation: the older one goes when the newer is full.
const HOMES_MAX: usize = 50_000;

type Known = HashMap<(TenantId, Uuid), Home>;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Homes(Arc<Mutex<Generations>>);

#[derive(Debug, Default)]
struct Generations {
    newer: Known,
    older: Known,
}

impl Homes {
    pub fn get(&self, tenant: &TenantId, id: Uuid) -> Option<Home> {
        let key = (tenant.clone(), id);
        let mut known = self.lock();
        if let Some(home) = known.newer.get(&key) {
            return Some(home.clone());
        }
        let home = known.older.remove(&key)?;
        known.insert(key, home.clone());
        Some(home)
    }

    /// The hold's home, from Postgres where it is not known here; none: there is no such hold.
    pub async fn find(
        &self,
        connection: &mut Connection,
        tenant: &TenantId,
        id: Uuid,
    ) -> store::Result<Option<Home>> {
        for (id, home) in holds::homes(connection, tenant, &[id]).await? {
            self.lock().insert((tenant.clone(), id), home);
        }
        Ok(self.get(tenant, id))
    }

    /// Notes where the holds belong that these events place.
    pub(super) fn note(&self, events: &[Event]) {
        let mut known = None;
        for event in events {
            let Facts::Hold(terms) = &event.body.facts else { continue };
            let home = Home { wallet_id: event.wallet_id.clone(), to: terms.to.clone() };
            let known = known.get_or_insert_with(|| self.lock());
            known.insert((event.tenant.clone(), terms.hold_id), home);
        }
    }

    /// Tells captures among these commands where their money goes: as a command before them places the
    /// hold, or as is known here. Answers with the holds that are not known.
    pub fn fill<'a>(
        &self,
        tenant: &TenantId,
        commands: impl Iterator<Item = &'a mut Command>,
    ) -> Vec<Uuid> {
        let (mut placed, mut unknown) = (HashMap::new(), Vec::new());
        for command in commands {
            match command {
                Command::Hold(place) => {
                    placed.entry(place.hold_id.0).or_insert_with(|| place.to.clone());
                }
                Command::Capture(capture) if capture.hold.to.is_none() => {
                    let id = capture.hold.id;
                    let known = || self.get(tenant, id).map(|home| home.to);
                    match placed.get(&id).cloned().or_else(known) {
                        Some(to) => capture.hold.to = to,
                        None => unknown.push(id),
                    }
                }
                _ => {}
            }
        }
        unknown
    }

    /// Looks the unknown ones up.
    pub async fn learn(
        &self,
        connection: &mut Connection,
        tenant: &TenantId,
        unknown: &[Uuid],
    ) -> store::Result<()> {
        let found = holds::homes(connection, tenant, unknown).await?;
        let mut known = self.lock();
        for (id, home) in found {
            known.insert((tenant.clone(), id), home);
        }
        Ok(())
    }

    // A panic while the lock was held leaves whole homes behind.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, key: (TenantId, Uuid), home: Home) {
        if self.newer.len() >= HOMES_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key, home);
    }
}
