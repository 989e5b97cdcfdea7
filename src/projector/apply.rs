//! Chunks of many partitions into tables: effect and checkpoint in one transaction.
//!
//! Order of locks, in every instance: partitions in order, then wallets in order. A chunk whose
//! partition stands elsewhere than it expects is left out and its feed set to where to go on. An
//! error that stays is narrowed down ([`narrow`]), so that only the guilty wallet is parked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::Job;
use super::chunk::{Chunk, EventRef, Feed, dead_letter, of_another, unknown};
use super::narrow::{Reason, give_up, narrow};
use super::project::{AtHand, Known, Projected, Targets, project};
use crate::event_cache::EventCache;
use crate::store::checkpoints::{Advance, Checkpoint, version_of};
use crate::store::dead_letters::{DeadLetter, Source, letter};
use crate::store::recorded::{Claim, Recorded, Unreadable};
use crate::store::{self, Blame, Connection};
use crate::wallet::{Event, TenantId, WalletId};

/// Events in one transaction, at most. A longer gap is healed in several.
pub const EVENTS_MAX: i64 = 5000;
/// Events that could not be read, none before them: after so many it is not the events.
const UNREAD_MAX: usize = 10;

/// What became of the chunks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Chunks that were left out, and where their feed stands instead.
    pub stale: Vec<(Feed, i32, i64)>,
    /// Events applied, healed ones among them.
    pub applied: u64,
    /// Events that no record in hand named.
    pub healed: u64,
    /// Records of versions that were applied before.
    pub duplicates: u64,
    /// Records of parked wallets.
    pub parked: u64,
    pub dead_letters: u64,
    /// Partitions that wait for a newer build, and for what: nothing of their chunks is applied.
    pub waiting: BTreeMap<i32, String>,
}

impl Outcome {
    /// Counts what another part of the same step did.
    pub fn add(&mut self, other: &Self) {
        self.applied += other.applied;
        self.healed += other.healed;
        self.duplicates += other.duplicates;
        self.parked += other.parked;
        self.dead_letters += other.dead_letters;
    }

    /// The same with partitions that were left out: their feeds go on where they were.
    fn beside(mut self, waiting: BTreeMap<i32, String>, chunks: &[Chunk]) -> Self {
        let left_out = chunks.iter().filter(|chunk| waiting.contains_key(&chunk.partition));
        self.stale.extend(left_out.map(|chunk| (chunk.feed, chunk.partition, chunk.expected)));
        self.waiting = waiting;
        self
    }
}

/// Applies chunks. Nothing of them is applied where this fails, or all of some wallets': in any
/// case a feed may hand in the same again.
pub async fn apply(
    connection: &mut Connection,
    job: &Job,
    chunks: &mut [Chunk],
) -> store::Result<Outcome> {
    look_up(connection, job, chunks).await?;
    match together(connection, job, chunks).await {
        Err(error) if error.blame() == Blame::Lasting => {
            tracing::warn!(projector = job.kind.name(), %error, "applying apart");
            in_parts(connection, job, chunks, Reason::Lasting).await
        }
        other => other,
    }
}

/// The same where the error before was one that should have passed, and has not: as if it stayed.
pub async fn apply_apart(
    connection: &mut Connection,
    job: &Job,
    chunks: &mut [Chunk],
) -> store::Result<Outcome> {
    // Nothing checks here whether the server is the one that committed what was kept.
    let job = &Job { event_cache: EventCache::default(), ..job.clone() };
    look_up(connection, job, chunks).await?;
    in_parts(connection, job, chunks, Reason::Passing).await
}

/// First the events, apart; then the checkpoints, with what little is left.
async fn in_parts(
    connection: &mut Connection,
    job: &Job,
    chunks: &[Chunk],
    reason: Reason,
) -> store::Result<Outcome> {
    let all: Vec<&Chunk> = chunks.iter().collect();
    let partitions: BTreeSet<i32> = chunks.iter().map(|chunk| chunk.partition).collect();
    let partitions: Vec<i32> = partitions.into_iter().collect();
    let apart = narrow(connection, job, targets(&all), &partitions, reason).await?;
    let mut outcome = together(connection, job, chunks).await?;
    outcome.applied += apart;
    outcome.duplicates = outcome.duplicates.saturating_sub(apart);
    Ok(outcome)
}

/// Looks up the events that records name, and turns records that name no event of this service into
/// dead letters. Outside the transaction: events are never changed, and none is in the topic before it
/// is committed.
async fn look_up(
    connection: &mut Connection,
    job: &Job,
    chunks: &mut [Chunk],
) -> store::Result<()> {
    let claims: Vec<_> = chunks
        .iter()
        .filter(|chunk| chunk.feed == Feed::Kafka)
        .flat_map(|chunk| chunk.records.iter().map(move |seen| (chunk.partition, seen)))
        .map(|(partition, seen)| (&seen.wallet, seen.version, seen.event_id, partition))
        .collect();
    if claims.is_empty() {
        return Ok(());
    }
    let (server, named) = named(connection, job, &claims).await?;
    let mut named = named.into_iter();
    for chunk in chunks.iter_mut().filter(|chunk| chunk.feed == Feed::Kafka) {
        chunk.server = server;
        for mut seen in std::mem::take(&mut chunk.records) {
            let event = named.next().flatten();
            if event.is_some() {
                chunk.records.push(EventRef { record: None, event, ..seen });
                continue;
            }
            let other = seen.record.as_ref().and_then(|r| of_another(job.deployment, r));
            if other.is_some() {
                // A dead letter would ask an operator to look into what is no mistake of the record's.
                chunk.foreign = other;
                continue;
            }
            let (class, message) = unknown(&seen);
            let record = seen.record.take();
            let letter = record.map(|r| dead_letter(chunk.partition, r, class, message));
            chunk.dead.extend(letter);
        }
    }
    Ok(())
}

/// Returns for each claim the event, if there is one: from the cache, else as Postgres has it. And the
/// server that the cached ones were committed on, where there are some.
async fn named(
    connection: &mut Connection,
    job: &Job,
    claims: &[Claim<'_>],
) -> store::Result<(Option<i64>, Vec<Option<Recorded>>)> {
    let (server, kept) =
        job.event_cache.get(claims.iter().map(|(_, _, id, partition)| (*id, *partition)));
    let is_it = |event: &Event, ((tenant, wallet), version, _, _): &Claim<'_>| {
        event.tenant == *tenant && event.wallet_id == *wallet && event.version == *version
    };
    let kept = kept.into_iter().zip(claims);
    let mut named: Vec<Option<Recorded>> =
        kept.map(|(event, claim)| event.filter(|event| is_it(event, claim)).map(Ok)).collect();
    let absent = named.iter().zip(claims).filter(|(event, _)| event.is_none());
    let absent: Vec<Claim<'_>> = absent.map(|(_, claim)| *claim).collect();
    let server = server.filter(|_| absent.len() < claims.len());
    if !absent.is_empty() {
        let found = match store::recorded::named(connection, &absent).await {
            Err(error) if error.blame() == Blame::Lasting => singly(connection, &absent).await?,
            found => found?,
        };
        let places = named.iter_mut().filter(|event| event.is_none());
        places.zip(found).for_each(|(place, event)| *place = event);
    }
    Ok((server, named))
}

/// One by one: an event whose row cannot be read is one that cannot be applied. Where none can be, it is
/// not the rows.
async fn singly(
    connection: &mut Connection,
    claims: &[Claim<'_>],
) -> store::Result<Vec<Option<Recorded>>> {
    // Of no event at all: fails where it would for each.
    let no_wallet = (TenantId::stored(""), WalletId::stored(""));
    store::recorded::named(connection, &[(&no_wallet, 0, Uuid::nil(), 0)]).await?;
    let (mut found, mut read) = (Vec::with_capacity(claims.len()), false);
    for claim in claims {
        match store::recorded::named(connection, &[*claim]).await {
            Ok(named) => {
                read = true;
                found.extend(named);
            }
            Err(error) if error.blame() == Blame::Lasting => {
                if !read && found.len() >= UNREAD_MAX {
                    return Err(error);
                }
                let (wallet, version, _, _) = *claim;
                let (wallet, cause) = (wallet.clone(), error.told());
                found.push(Some(Err(Unreadable { wallet, version, cause, newer: false })));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// All chunks in one transaction, or in several where a gap is longer than one should be. A partition with an
/// event of a newer build is left out: another build has to take it from there.
async fn together(
    connection: &mut Connection,
    job: &Job,
    chunks: &[Chunk],
) -> store::Result<Outcome> {
    let mut tally: Option<Tally> = None;
    let mut waiting = BTreeMap::new();
    loop {
        let goes_on = |chunk: &&Chunk| !waiting.contains_key(&chunk.partition);
        let current: Vec<&Chunk> = chunks.iter().filter(goes_on).collect();
        store::checkpoints::begin(connection).await?;
        match pass(connection, job, &current, &mut tally).await {
            Ok(Pass::Done(outcome)) => {
                store::commit(connection).await?;
                return Ok(outcome.beside(waiting, chunks));
            }
            Ok(Pass::More) => store::commit(connection).await?,
            Ok(Pass::Newer(found)) => {
                give_up(connection).await;
                waiting.extend(found);
            }
            Err(error) => {
                give_up(connection).await;
                return Err(error);
            }
        }
    }
}

/// How a transaction ended.
enum Pass {
    Done(Outcome),
    /// There is more to apply before the checkpoints may move.
    More,
    /// Nothing of it counts: these partitions have events of a newer build.
    Newer(BTreeMap<i32, String>),
}

/// What the first transaction found, before anything was applied.
struct Tally {
    outcome: Outcome,
    /// Events that records in hand name and that were not applied before.
    fresh: u64,
}

/// One transaction's worth.
async fn pass(
    connection: &mut Connection,
    job: &Job,
    chunks: &[&Chunk],
    tally: &mut Option<Tally>,
) -> store::Result<Pass> {
    let of = &job.subscription;
    let stands = lock(connection, job, chunks).await?;
    if is_of_another(&stands, chunks) {
        job.event_cache.forget();
        return Err(store::Error::another_server());
    }
    let (current, stale): (Vec<&Chunk>, Vec<&Chunk>) =
        chunks.iter().copied().partition(|chunk| place(&stands, chunk) == chunk.expected);
    let targets = targets(&current);
    let moves = advances(&current);
    let at_hand = AtHand { events: Some(&known(&current)), moves: &moves, newer_waits: true };
    let projected = project(connection, job, &targets, &at_hand, EVENTS_MAX).await?;
    if !projected.newer.is_empty() {
        return Ok(Pass::Newer(waiting(&current, &projected.newer)));
    }
    let tally = tally.get_or_insert_with(|| Tally::of(&current, &projected));
    tally.outcome.applied += projected.applied;
    if !projected.complete {
        return Ok(Pass::More);
    }
    let mut outcome = tally.outcome.clone();
    outcome.healed = outcome.applied.saturating_sub(tally.fresh);
    outcome.stale =
        stale.iter().map(|chunk| (chunk.feed, chunk.partition, place(&stands, chunk))).collect();
    let letters: Vec<&DeadLetter> = current.iter().flat_map(|chunk| &chunk.dead).collect();
    if !letters.is_empty() {
        let source = Source::Events;
        let inserted = store::dead_letters::insert(connection, of, source, &letters).await?;
        // Should the commit fail, they are reported again.
        letter::tell(source, &of.topic, &inserted.news);
        outcome.dead_letters = inserted.met;
    }
    Ok(Pass::Done(outcome))
}

/// The partitions of these events, each with the first of them.
fn waiting(chunks: &[&Chunk], newer: &[Unreadable]) -> BTreeMap<i32, String> {
    let mut waiting = BTreeMap::new();
    for chunk in chunks {
        let is_of = |event: &&Unreadable| chunk.records.iter().any(|r| r.wallet == event.wallet);
        if let Some(event) = newer.iter().find(is_of) {
            let Unreadable { wallet: (tenant, wallet), version, cause, .. } = event;
            let text = format!("{cause} (wallet {wallet} of {tenant}, version {version})");
            waiting.entry(chunk.partition).or_insert(text);
        }
    }
    waiting
}

/// Takes the chunks' partitions, in order, for the running transaction.
async fn lock(
    connection: &mut Connection,
    job: &Job,
    chunks: &[&Chunk],
) -> store::Result<HashMap<i32, Checkpoint>> {
    let partitions: BTreeSet<i32> = chunks.iter().map(|chunk| chunk.partition).collect();
    let partitions: Vec<i32> = partitions.into_iter().collect();
    let found = store::checkpoints::lock(connection, &job.subscription, &partitions).await?;
    Ok(found.into_iter().map(|checkpoint| (checkpoint.partition, checkpoint)).collect())
}

/// Whether events were kept of commits on another server than the one that the transaction runs on: it
/// may lack them.
fn is_of_another(stands: &HashMap<i32, Checkpoint>, chunks: &[&Chunk]) -> bool {
    let here = stands.values().next().map(|checkpoint| checkpoint.server);
    chunks.iter().any(|chunk| chunk.server.is_some() && chunk.server != here)
}

/// Where a chunk's feed stands by now.
fn place(stands: &HashMap<i32, Checkpoint>, chunk: &Chunk) -> i64 {
    let checkpoint = stands.get(&chunk.partition);
    match chunk.feed {
        Feed::Kafka => checkpoint.map_or(0, |c| c.next_offset),
        Feed::Postgres => checkpoint.map_or(0, |c| c.feed_xid),
    }
}

/// One move for each partition, whichever feeds move it: of two for one row Postgres would take one.
fn advances(chunks: &[&Chunk]) -> Vec<Advance> {
    let mut moves: BTreeMap<i32, Advance> = BTreeMap::new();
    for to in chunks.iter().filter_map(|chunk| chunk.advance()) {
        let known = moves.entry(to.partition).or_insert(to);
        known.next_offset = to.next_offset.or(known.next_offset);
        known.feed_xid = to.feed_xid.or(known.feed_xid);
    }
    moves.into_values().collect()
}

fn known<'a>(chunks: &[&'a Chunk]) -> Known<'a> {
    let all = chunks.iter().flat_map(|chunk| &chunk.records);
    all.filter_map(|seen| Some(((&seen.wallet, seen.version), seen.event.as_ref()?))).collect()
}

fn targets(chunks: &[&Chunk]) -> Targets {
    let mut targets = Targets::new();
    for seen in chunks.iter().flat_map(|chunk| &chunk.records) {
        let target = targets.entry(seen.wallet.clone()).or_insert(seen.version);
        *target = seen.version.max(*target);
    }
    targets
}

impl Tally {
    fn of(chunks: &[&Chunk], projected: &Projected) -> Self {
        let mut outcome = Outcome::default();
        let mut fresh = HashSet::new();
        for seen in chunks.iter().flat_map(|chunk| &chunk.records) {
            let before = version_of(&projected.before, &seen.wallet);
            if seen.version <= before || !fresh.insert((&seen.wallet, seen.version)) {
                outcome.duplicates += 1;
            } else if projected.parked.contains(&seen.wallet) {
                outcome.parked += 1;
                fresh.remove(&(&seen.wallet, seen.version));
            }
        }
        Self { outcome, fresh: u64::try_from(fresh.len()).unwrap_or(0) }
    }
}
