//! A point in a fold to go back to: what an atomic request may change, as it was before.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::Request;
use super::fold::{Fold, Touch};
use crate::wallet::{Standing, WalletId};

/// The state of one request's wallets, and how much was to be written, before it ran.
#[derive(Debug)]
pub(super) struct Savepoint {
    wallets: Vec<(WalletId, Standing, Option<Touch>)>,
    touched_holds: HashMap<Uuid, Touch>,
    events: usize,
    keys: usize,
}

impl Savepoint {
    pub fn take(fold: &Fold<'_>, request: &Request) -> Self {
        let ids: HashSet<&WalletId> = request.wallets().collect();
        let state =
            |id: &WalletId| (id.clone(), fold.world.standing(id), fold.touched.get(id).copied());
        Self {
            wallets: ids.into_iter().map(state).collect(),
            touched_holds: fold.touched_holds.clone(),
            events: fold.writes.events.len(),
            keys: fold.writes.keys.len(),
        }
    }

    pub fn restore(self, fold: &mut Fold<'_>) {
        for (id, standing, touch) in self.wallets {
            fold.world.restore(standing);
            match touch {
                Some(touch) => fold.touched.insert(id, touch),
                None => fold.touched.remove(&id),
            };
        }
        fold.touched_holds = self.touched_holds;
        fold.writes.events.truncate(self.events);
        for key in fold.writes.keys.drain(self.keys..) {
            fold.keys.take_back(&key.scope);
        }
    }
}
