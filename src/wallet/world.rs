//! What commands are decided on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::{BALANCE_MAX, Event, Facts, Features, Footprint, Hold, Wallet, WalletId};

/// One tenant's wallets as they stand under lock, what else was read of them, and the time at which they
/// do.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The database's clock, read after the locks.
    pub now: DateTime<Utc>,
    wallets: HashMap<WalletId, Wallet>,
    /// Those that commands name, and those that may fall due.
    holds: HashMap<Uuid, Hold>,
    /// Open holds of wallets of which they were counted.
    open_holds: HashMap<WalletId, i64>,
    /// Of wallets whose due holds were read: when the first of the others falls due.
    next_due: HashMap<WalletId, Option<DateTime<Utc>>>,
    /// Wallets whose row says less than they have: features, what falls due, metadata.
    rewritten: HashSet<WalletId>,
}

/// What was read of a tenant after its wallets were locked.
#[derive(Debug, Default)]
pub struct Further {
    pub holds: Vec<Hold>,
    /// Of wallets that place holds.
    pub open_holds: HashMap<WalletId, i64>,
    /// Of wallets that something may be due on: when the first hold falls due that is not due yet.
    pub next_due: HashMap<WalletId, Option<DateTime<Utc>>>,
}

/// One wallet with what belongs to it, as it stood at a point to go back to.
#[derive(Debug)]
pub struct Standing {
    id: WalletId,
    wallet: Option<Wallet>,
    holds: Vec<Hold>,
    open_holds: Option<i64>,
    is_rewritten: bool,
}

/// Rules that an operator may set.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// No balance leaves `-balance_max ..= balance_max`.
    pub balance_max: Decimal,
    /// How long a hold lives whose caller does not say.
    pub hold_ttl: Duration,
    /// Whether events may be written that instances of the version before do not know.
    pub money_events: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            balance_max: BALANCE_MAX,
            hold_ttl: Duration::from_hours(7 * 24),
            money_events: true,
        }
    }
}

impl World {
    pub fn new(now: DateTime<Utc>, wallets: impl IntoIterator<Item = Wallet>) -> Self {
        let wallets = wallets.into_iter().map(|wallet| (wallet.id.clone(), wallet)).collect();
        Self { now, wallets, ..Self::default() }
    }

    /// Takes in what was read after the wallets.
    pub fn extend(&mut self, further: Further) {
        self.holds.extend(further.holds.into_iter().map(|hold| (hold.id, hold)));
        self.open_holds.extend(further.open_holds);
        for (id, next) in further.next_due {
            self.next_due.insert(id.clone(), next);
            self.reschedule(&id);
        }
    }

    /// The wallet, unless there is none of this id.
    pub fn wallet(&self, id: &WalletId) -> Option<&Wallet> {
        self.wallets.get(id)
    }

    pub fn wallets(&self) -> impl Iterator<Item = &Wallet> {
        self.wallets.values()
    }

    /// The hold, whichever wallet it is of, where a command names it.
    pub fn hold(&self, id: Uuid) -> Option<&Hold> {
        self.holds.get(&id)
    }

    /// The open holds of a wallet among those that were read.
    pub fn open_holds_of(&self, id: &WalletId) -> impl Iterator<Item = &Hold> {
        self.holds.values().filter(move |hold| hold.is_open() && hold.wallet_id == *id)
    }

    /// How many open holds the wallet has.
    pub fn open_holds(&self, id: &WalletId) -> i64 {
        self.open_holds.get(id).copied().unwrap_or(0)
    }

    /// The holds of the footprint's wallets that are due, the earliest first.
    pub fn due_holds(&self, footprint: &Footprint<'_>) -> Vec<&Hold> {
        let at = self.at(footprint);
        let is_due = |id: &&WalletId| {
            let next = self.wallet(id).and_then(|wallet| wallet.upkeep.next_due_at);
            next.is_some_and(|next| next <= at)
        };
        let mut due: Vec<&Hold> = footprint
            .wallets()
            .filter(is_due)
            .flat_map(|id| self.open_holds_of(id))
            .filter(|hold| hold.expires_at <= at)
            .collect();
        due.sort_by_key(|hold| (hold.expires_at, hold.id));
        due.dedup_by_key(|hold| hold.id);
        due
    }

    /// Whether the wallet's row has to be written with more than a command changes as a rule.
    pub fn is_rewritten(&self, id: &WalletId) -> bool {
        self.rewritten.contains(id)
    }

    /// The time of a command: now, but never before the last event of one of its wallets.
    pub fn at(&self, footprint: &Footprint<'_>) -> DateTime<Utc> {
        let wallets = footprint.wallets().filter_map(|id| self.wallet(id));
        wallets.map(|wallet| wallet.updated_at).fold(self.now, DateTime::max)
    }

    /// Takes an event in: opens its wallet, or copies into it the state that the event left; and does to
    /// its hold what it did.
    pub fn apply(&mut self, event: &Event) {
        let (id, at) = (&event.wallet_id, event.created_at);
        if let Some(wallet) = Wallet::opened(id.clone(), &event.body, at) {
            self.wallets.insert(id.clone(), wallet);
        } else if let Some(wallet) = self.wallets.get_mut(id) {
            wallet.apply(event.version, &event.body, at);
        }
        let feature = match event.body.facts {
            Facts::Limits(_) => Features::OWN_OVERDRAFT,
            Facts::Metadata => Features::NOT_REBUILDABLE,
            _ => return self.apply_to_hold(event),
        };
        if let Some(wallet) = self.wallets.get_mut(id) {
            wallet.upkeep.features = wallet.upkeep.features.with(feature);
            self.rewritten.insert(id.clone());
        }
    }

    fn apply_to_hold(&mut self, event: &Event) {
        let Some(hold_id) = event.body.facts.hold_id() else { return };
        let was_open = match self.holds.get_mut(&hold_id) {
            Some(hold) => {
                let was_open = hold.is_open();
                hold.apply(event);
                was_open
            }
            None => false,
        };
        if let Some(hold) = Hold::placed(event) {
            self.holds.insert(hold_id, hold);
        }
        let Some(hold) = self.holds.get(&hold_id) else { return };
        let open = self.open_holds.entry(event.wallet_id.clone()).or_default();
        match (was_open, hold.is_open()) {
            (false, true) => *open += 1,
            (true, false) => *open -= 1,
            _ => {}
        }
        self.reschedule(&event.wallet_id);
    }

    /// Says anew when something of the wallet falls due, as far as its holds are known. Where not all of
    /// them are, only an earlier time than before can be told: a later one may be too late.
    fn reschedule(&mut self, id: &WalletId) {
        let known = self.open_holds_of(id).map(|hold| hold.expires_at).min();
        let Some(wallet) = self.wallets.get_mut(id) else { return };
        let before = wallet.upkeep.next_due_at;
        let others = match self.next_due.get(id) {
            Some(next) => *next,
            None => before,
        };
        let next = match (known, others) {
            (Some(known), Some(others)) => Some(known.min(others)),
            (known, others) => known.or(others),
        };
        if next != before {
            wallet.upkeep.next_due_at = next;
            self.rewritten.insert(id.clone());
        }
    }

    /// A wallet with what belongs to it, to be put back.
    pub fn standing(&self, id: &WalletId) -> Standing {
        Standing {
            id: id.clone(),
            wallet: self.wallets.get(id).cloned(),
            holds: self.holds.values().filter(|hold| hold.wallet_id == *id).cloned().collect(),
            open_holds: self.open_holds.get(id).copied(),
            is_rewritten: self.rewritten.contains(id),
        }
    }

    /// Puts a wallet back as it was, or takes it out where it was not there.
    pub fn restore(&mut self, standing: Standing) {
        let Standing { id, wallet, holds, open_holds, is_rewritten } = standing;
        match wallet {
            Some(wallet) => self.wallets.insert(id.clone(), wallet),
            None => self.wallets.remove(&id),
        };
        self.holds.retain(|_, hold| hold.wallet_id != id);
        self.holds.extend(holds.into_iter().map(|hold| (hold.id, hold)));
        match open_holds {
            Some(open) => self.open_holds.insert(id.clone(), open),
            None => self.open_holds.remove(&id),
        };
        match is_rewritten {
            true => self.rewritten.insert(id),
            false => self.rewritten.remove(&id),
        };
    }

    /// Hands a wallet over.
    pub fn take(&mut self, id: &WalletId) -> Option<Wallet> {
        self.wallets.remove(id)
    }
}
