//! One stretch of some wallets' events into tables, inside the caller's transaction.
//!
//! Reads from `events` whatever lies between a wallet's last applied version and its target, so a
//! gap in a feed heals by itself and a record read twice does nothing. A wallet whose next event
//! cannot be read or written stays where it is and is parked; the others go on.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Job, report};
use crate::store::checkpoints::{Advance, Reached, Standing, version_of};
use crate::store::parked::Cause;
use crate::store::projected::Versions;
use crate::store::recorded::{Range, Recorded, Unreadable};
use crate::store::{self, Connection};
use crate::wallet::{Event, WalletKey};

/// The version that each wallet is to be brought to.
pub type Targets = BTreeMap<WalletKey, i64>;

/// Events that are at hand already, by wallet and version.
pub type Known<'a> = HashMap<(&'a WalletKey, i64), &'a Recorded>;

/// What comes with the targets.
#[derive(Debug, Default, Clone, Copy)]
pub struct AtHand<'a> {
    pub events: Option<&'a Known<'a>>,
    /// Where checkpoints go once all targets are reached.
    pub moves: &'a [Advance],
    /// A wallet with an event of a newer build is not parked: its partition waits.
    pub newer_waits: bool,
}

/// What a stretch did.
#[derive(Debug)]
pub struct Projected {
    /// Each wallet as it stood before; absent where it was never seen, and some that are parked.
    pub before: Standing,
    pub applied: u64,
    /// Wallets of which rows were written.
    pub written: usize,
    /// Wallets that were parked already and those that were parked now.
    pub parked: HashSet<WalletKey>,
    /// Events of a newer build: their wallets stay before them, and their partitions have to wait.
    pub newer: Vec<Unreadable>,
    /// All targets are reached, save by parked wallets.
    pub complete: bool,
}

/// What was applied of some wallets, whether or not they are parked.
#[derive(Debug, Default)]
pub struct Applied {
    pub applied: u64,
    /// Wallets of which rows were written.
    pub written: usize,
    /// Each wallet's version now, where it has moved.
    pub reached: BTreeMap<WalletKey, i64>,
    /// The first event of each wallet that could not be applied.
    pub refused: Vec<Unreadable>,
}

/// Applies at most `budget` events, parking whom it must. Neither begins nor commits.
pub async fn project(
    connection: &mut Connection,
    job: &Job,
    targets: &Targets,
    at_hand: &AtHand<'_>,
    budget: i64,
) -> store::Result<Projected> {
    let of = &job.subscription;
    let wallets: Vec<&WalletKey> = targets.keys().collect();
    let before =
        store::checkpoints::unparked_lock(connection, of, &job.kind.table, &wallets).await?;
    // A statement after the locks: it sees who was parked or released while they were waited for.
    let mut parked = store::parked::parked_of(connection, of, &wallets).await?;
    let (ranges, complete) = ranges(targets, &before, &parked, budget);
    let moves = if complete { at_hand.moves } else { &[] };
    let at_hand = AtHand { moves, ..*at_hand };
    let done = apply_ranges(connection, job, &ranges, &at_hand, &before).await?;
    let mut newer = Vec::new();
    for found in done.refused {
        if found.newer && at_hand.newer_waits {
            newer.push(found);
            continue;
        }
        let (wallet, version, text) = (&found.wallet, found.version, &found.cause);
        report::parked(job, wallet, version, found.kind(), text);
        let cause = Cause { text, newer: found.newer };
        store::parked::park(connection, of, wallet, version, cause).await?;
        parked.insert(found.wallet);
    }
    let (applied, written) = (done.applied, done.written);
    Ok(Projected { before, applied, written, parked, newer, complete })
}

/// Applies these ranges of wallets whose versions `before` are locked, and makes the moves. Neither
/// begins nor commits, and parks no wallet.
pub async fn apply_ranges(
    connection: &mut Connection,
    job: &Job,
    ranges: &[Range],
    at_hand: &AtHand<'_>,
    before: &Standing,
) -> store::Result<Applied> {
    let of = &job.subscription;
    if ranges.is_empty() {
        if !at_hand.moves.is_empty() {
            store::checkpoints::advance(connection, of, at_hand.moves).await?;
        }
        return Ok(Applied::default());
    }
    let found = read(connection, ranges, at_hand.events).await?;
    let (mut events, mut refused) = readable(ranges, found);
    let written = (job.kind.write)(connection, &events, before).await?;
    for (wallet, cause) in written.refused {
        let version = version_of(before, &wallet) + 1;
        events.retain(|event| event.wallet() != wallet);
        refused.retain(|found| found.wallet != wallet);
        let cause = cause.to_owned();
        refused.push(Unreadable { wallet, version, cause, newer: false });
    }
    let reached: BTreeMap<WalletKey, i64> =
        events.iter().map(|event| (event.wallet(), event.version)).collect();
    let noted = if job.kind.table.versions == Versions::Apart { reached.len() } else { 0 };
    if noted > 0 || !at_hand.moves.is_empty() {
        let added =
            |wallet| written.totals.as_ref().map(|of| of.get(wallet).copied().unwrap_or_default());
        let note = |(wallet, version): (_, &i64)| {
            let totals = added(wallet);
            Reached { wallet, version: *version, totals }
        };
        let noted: Vec<_> = reached.iter().take(noted).map(note).collect();
        store::checkpoints::note(connection, of, &noted, at_hand.moves).await?;
    }
    let applied = u64::try_from(events.len()).unwrap_or(0);
    Ok(Applied { applied, written: written.wallets, reached, refused })
}

/// The events of the ranges, each wallet's in order: those at hand, and what lies between them.
async fn read(
    connection: &mut Connection,
    ranges: &[Range],
    known: Option<&Known<'_>>,
) -> store::Result<Vec<Recorded>> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for range in ranges {
        let at_hand: Option<Vec<&Recorded>> = (range.after + 1..=range.up_to)
            .map(|version| known?.get(&(&range.wallet, version)).copied())
            .collect();
        match at_hand {
            Some(events) => found.extend(events.into_iter().cloned()),
            None => missing.push(range.clone()),
        }
    }
    if !missing.is_empty() {
        found.extend(store::recorded::recorded(connection, &missing).await?);
    }
    Ok(found)
}

/// What to read within the budget, in wallet order; false where the budget cut it.
pub fn ranges(
    targets: &Targets,
    before: &Standing,
    parked: &HashSet<WalletKey>,
    budget: i64,
) -> (Vec<Range>, bool) {
    let mut left = budget;
    let mut ranges = Vec::new();
    for (wallet, target) in targets.iter().filter(|(wallet, _)| !parked.contains(*wallet)) {
        let after = version_of(before, wallet);
        let missing = target - after;
        if missing <= 0 {
            continue;
        }
        if left == 0 {
            return (ranges, false);
        }
        let take = missing.min(left);
        left -= take;
        ranges.push(Range { wallet: wallet.clone(), after, up_to: after + take });
        if take < missing {
            return (ranges, false);
        }
    }
    (ranges, true)
}

/// The events that can be applied, each wallet's up to its first that cannot. A version that is
/// missing from the books counts as one that cannot.
fn readable(ranges: &[Range], found: Vec<Recorded>) -> (Vec<Event>, Vec<Unreadable>) {
    let mut next: HashMap<WalletKey, i64> =
        ranges.iter().map(|range| (range.wallet.clone(), range.after + 1)).collect();
    let mut stopped: HashSet<WalletKey> = HashSet::new();
    let mut events = Vec::with_capacity(found.len());
    let mut refused = Vec::new();
    for event in found {
        let event = event.and_then(|event| match objection(&event, &next) {
            None => Ok(event),
            Some(cause) => Err(Unreadable {
                version: next.get(&event.wallet()).copied().unwrap_or(event.version),
                wallet: event.wallet(),
                cause,
                newer: false,
            }),
        });
        match event {
            Ok(event) if !stopped.contains(&event.wallet()) => {
                next.insert(event.wallet(), event.version + 1);
                events.push(event);
            }
            Ok(_) => {}
            Err(unreadable) => {
                if stopped.insert(unreadable.wallet.clone()) {
                    refused.push(unreadable);
                }
            }
        }
    }
    for range in ranges.iter().filter(|range| !stopped.contains(&range.wallet)) {
        let version = next.get(&range.wallet).copied().unwrap_or(0);
        if version <= range.up_to {
            let cause = format!("version {version} is missing in events");
            let wallet = range.wallet.clone();
            refused.push(Unreadable { wallet, version, cause, newer: false });
        }
    }
    (events, refused)
}

fn objection(event: &Event, next: &HashMap<WalletKey, i64>) -> Option<String> {
    let expected = next.get(&event.wallet()).copied().unwrap_or(event.version);
    (event.version != expected).then(|| format!("version {expected} is missing in events"))
}
