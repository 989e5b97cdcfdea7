//! One stretch of some wallets' events into the tables of one projection or of several, inside the caller's
//! transaction.
//!
//! Reads from `events` whatever lies between a wallet's last applied version and its target, once for all
//! projections, so a gap in a feed heals by itself and a record read twice does nothing. A wallet whose next
//! event cannot be read or written stays where it is and is parked by the projection that it harms; the
//! others go on.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Job, report};
use crate::store::checkpoints::{Advance, Move, Reached, Standing, version_of};
use crate::store::parked::Cause;
use crate::store::projected::Versions;
use crate::store::recorded::{Range, Recorded, Unreadable};
use crate::store::{self, Connection};
use crate::wallet::{Event, WalletKey};

/// The version that each wallet is to be brought to.
pub type Targets = BTreeMap<WalletKey, i64>;

/// Events that are at hand already, by wallet and version.
pub type Known<'a> = HashMap<(&'a WalletKey, i64), &'a Recorded>;

/// What one projection is to reach.
#[derive(Debug, Clone, Copy)]
pub struct Goal<'a> {
    pub job: &'a Job,
    pub targets: &'a Targets,
    /// Where its checkpoints go once all targets of all goals are reached.
    pub moves: &'a [Advance],
    /// A wallet with an event of a newer build is not parked: its partition waits.
    pub newer_waits: bool,
}

/// What a stretch did.
#[derive(Debug, Default)]
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
    /// All targets are reached, save by parked wallets; where there are several goals, all of theirs.
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

/// One goal's wallets as they are locked, and what is to be applied of them now.
struct Stretch {
    before: Standing,
    parked: HashSet<WalletKey>,
    ranges: Vec<Range>,
    complete: bool,
}

/// The events of some ranges that can be applied, each wallet's up to its first that cannot.
struct Readable {
    events: Vec<Event>,
    refused: Vec<Unreadable>,
}

/// Applies at most `budget` events to one projection, parking whom it must. Neither begins nor commits.
pub async fn project(
    connection: &mut Connection,
    goal: Goal<'_>,
    budget: i64,
) -> store::Result<Projected> {
    let mut projected = project_all(connection, &[goal], &Known::new(), budget).await?;
    Ok(projected.pop().unwrap_or_default())
}

/// The same for several projections, in the order of the list: the wallets of one are locked before those
/// of the next, in every instance.
pub async fn project_all(
    connection: &mut Connection,
    goals: &[Goal<'_>],
    known: &Known<'_>,
    budget: i64,
) -> store::Result<Vec<Projected>> {
    let mut stretches = Vec::with_capacity(goals.len());
    for goal in goals {
        stretches.push(stretch(connection, goal, budget).await?);
    }
    let complete = stretches.iter().all(|stretch| stretch.complete);
    let mut moves = Vec::new();
    if complete {
        for goal in goals {
            moves.extend(goal.moves.iter().map(|to| (goal.job.kind.name(), *to)));
        }
    }
    let readable = readable_each(connection, &stretches, known).await?;
    let mut projected = Vec::with_capacity(goals.len());
    for (at, (goal, stretch)) in goals.iter().zip(stretches).enumerate() {
        let Stretch { before, mut parked, ranges, .. } = stretch;
        let mut done = Applied::default();
        if let Some(readable) = readable.get(at).or(readable.first()).filter(|_| !ranges.is_empty())
        {
            done = write(connection, goal.job, readable, &before, &mut moves).await?;
        }
        let waits = |found: &Unreadable| found.newer && goal.newer_waits;
        let (newer, refused) = done.refused.into_iter().partition(waits);
        park_refused(connection, goal.job, refused, &mut parked).await?;
        let (applied, written) = (done.applied, done.written);
        projected.push(Projected { before, applied, written, parked, newer, complete });
    }
    if let (Some(goal), false) = (goals.first(), moves.is_empty()) {
        store::checkpoints::note(connection, &goal.job.subscription, &[], &moves).await?;
    }
    Ok(projected)
}

/// Locks a goal's wallets, and sees what they lack.
async fn stretch(
    connection: &mut Connection,
    goal: &Goal<'_>,
    budget: i64,
) -> store::Result<Stretch> {
    let (of, table) = (&goal.job.subscription, &goal.job.kind.table);
    if goal.targets.is_empty() {
        let (before, parked) = (Standing::new(), HashSet::new());
        return Ok(Stretch { before, parked, ranges: Vec::new(), complete: true });
    }
    let wallets: Vec<&WalletKey> = goal.targets.keys().collect();
    let before = store::checkpoints::unparked_lock(connection, of, table, &wallets).await?;
    // A statement after the locks: it sees who was parked or released while they were waited for.
    let parked = store::parked::parked_of(connection, of, &wallets).await?;
    let (ranges, complete) = ranges(goal.targets, &before, &parked, budget);
    Ok(Stretch { before, parked, ranges, complete })
}

async fn park_refused(
    connection: &mut Connection,
    job: &Job,
    refused: Vec<Unreadable>,
    parked: &mut HashSet<WalletKey>,
) -> store::Result<()> {
    for found in refused {
        let (wallet, version, text) = (&found.wallet, found.version, &found.cause);
        report::parked(job, wallet, version, found.kind(), text);
        let cause = Cause { text, newer: found.newer };
        store::parked::park(connection, &job.subscription, wallet, version, cause).await?;
        parked.insert(found.wallet);
    }
    Ok(())
}

/// Applies these ranges of wallets whose versions `before` are locked. Neither begins nor commits, and parks
/// no wallet.
pub async fn apply_ranges(
    connection: &mut Connection,
    job: &Job,
    ranges: &[Range],
    before: &Standing,
) -> store::Result<Applied> {
    if ranges.is_empty() {
        return Ok(Applied::default());
    }
    let found = read(connection, ranges, &Known::new()).await?;
    write(connection, job, &readable(ranges, found), before, &mut Vec::new()).await
}

/// Writes what can be applied, and notes it together with the moves, which are taken along.
async fn write(
    connection: &mut Connection,
    job: &Job,
    readable: &Readable,
    before: &Standing,
    moves: &mut Vec<Move>,
) -> store::Result<Applied> {
    let written = (job.kind.write)(connection, &readable.events, before).await?;
    let mut refused = readable.refused.clone();
    for (wallet, cause) in &written.refused {
        let version = version_of(before, wallet) + 1;
        refused.retain(|found| found.wallet != *wallet);
        let (wallet, cause) = (wallet.clone(), (*cause).to_owned());
        refused.push(Unreadable { wallet, version, cause, newer: false });
    }
    let is_written = |event: &&Event| {
        written
            .refused
            .iter()
            .all(|((tenant, wallet), _)| event.tenant != *tenant || event.wallet_id != *wallet)
    };
    let events = || readable.events.iter().filter(is_written);
    let reached: BTreeMap<WalletKey, i64> =
        events().map(|event| (event.wallet(), event.version)).collect();
    if job.kind.table.versions == Versions::Apart && !reached.is_empty() {
        let added =
            |wallet| written.totals.as_ref().map(|of| of.get(wallet).copied().unwrap_or_default());
        let note = |(wallet, version): (_, &i64)| {
            let totals = added(wallet);
            Reached { wallet, version: *version, totals }
        };
        let noted: Vec<_> = reached.iter().map(note).collect();
        store::checkpoints::note(connection, &job.subscription, &noted, moves).await?;
        moves.clear();
    }
    let applied = u64::try_from(events().count()).unwrap_or(0);
    Ok(Applied { applied, written: written.wallets, reached, refused })
}

/// What can be applied of each stretch, from one reading of the events: one answer for all of them where
/// they want the same.
async fn readable_each(
    connection: &mut Connection,
    stretches: &[Stretch],
    known: &Known<'_>,
) -> store::Result<Vec<Readable>> {
    let Some(first) = stretches.first() else { return Ok(Vec::new()) };
    if stretches.iter().all(|stretch| stretch.ranges == first.ranges) {
        let found = read(connection, &first.ranges, known).await?;
        return Ok(vec![readable(&first.ranges, found)]);
    }
    let found = read(connection, &joint(stretches), known).await?;
    let each = stretches.iter().map(|stretch| {
        let ranges: HashMap<&WalletKey, &Range> =
            stretch.ranges.iter().map(|range| (&range.wallet, range)).collect();
        let is_wanted = |found: &&Recorded| {
            let (wallet, version) = place(found);
            ranges.get(&wallet).is_some_and(|of| (of.after + 1..=of.up_to).contains(&version))
        };
        readable(&stretch.ranges, found.iter().filter(is_wanted).cloned().collect())
    });
    Ok(each.collect())
}

/// What any of the stretches wants, in wallet order.
fn joint(stretches: &[Stretch]) -> Vec<Range> {
    let mut all: BTreeMap<&WalletKey, Range> = BTreeMap::new();
    for range in stretches.iter().flat_map(|stretch| &stretch.ranges) {
        let known = all.entry(&range.wallet).or_insert_with(|| range.clone());
        known.after = range.after.min(known.after);
        known.up_to = range.up_to.max(known.up_to);
    }
    all.into_values().collect()
}

fn place(found: &Recorded) -> (WalletKey, i64) {
    match found {
        Ok(event) => (event.wallet(), event.version),
        Err(unreadable) => (unreadable.wallet.clone(), unreadable.version),
    }
}

/// The events of the ranges, each wallet's in order: those at hand, and what lies between them.
async fn read(
    connection: &mut Connection,
    ranges: &[Range],
    known: &Known<'_>,
) -> store::Result<Vec<Recorded>> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for range in ranges {
        let at_hand: Option<Vec<&Recorded>> = (range.after + 1..=range.up_to)
            .map(|version| known.get(&(&range.wallet, version)).copied())
            .collect();
        match at_hand {
            Some(events) => found.extend(events.into_iter().cloned()),
            None => missing.push(range.clone()),
        }
    }
    if !missing.is_empty() {
        let read = store::recorded::recorded(connection, &missing).await?;
        report::read(read.len());
        found.extend(read);
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

/// A version that is missing from the books counts as one that cannot be applied.
fn readable(ranges: &[Range], found: Vec<Recorded>) -> Readable {
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
    Readable { events, refused }
}

fn objection(event: &Event, next: &HashMap<WalletKey, i64>) -> Option<String> {
    let expected = next.get(&event.wallet()).copied().unwrap_or(event.version);
    (event.version != expected).then(|| format!("version {expected} is missing in events"))
}
