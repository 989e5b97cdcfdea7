//! Chunks of many partitions into tables: effect and checkpoint in one transaction, of one projection or of
//! several that read the same.
//!
//! Order of locks, in every instance: places in the order of projections and partitions, then each
//! projection's wallets in order. A chunk whose partition stands elsewhere than its projection has noted is
//! left out, and its feed set to where to go on. An error that stays is narrowed down ([`narrow`]), so that only
//! the guilty wallet is parked; several projections are taken apart for that first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tokio::time::Instant;

use super::Job;
use super::chunk::{Chunk, Feed};
use super::look_up::look_up;
use super::narrow::{Reason, give_up, narrow};
use super::places::Places;
use super::project::{Goal, Known, Projected, Targets, project_all};
use super::seen::Seen;
use crate::event_cache::EventCache;
use crate::store::checkpoints::{Advance, Checkpoint, version_of};
use crate::store::dead_letters::{DeadLetter, Source, letter};
use crate::store::recorded::Unreadable;
use crate::store::{self, Blame, Connection};

/// Events in one transaction, at most. A longer gap is healed in several.
pub const EVENTS_MAX: i64 = 5000;

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

/// One projection, and where it stands in the partitions that it projects here.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    pub job: &'a Job,
    pub places: &'a Places,
}

/// What became of the chunks for one projection.
#[derive(Debug, Default)]
pub struct Passed {
    pub outcome: Outcome,
    /// What is noted by now.
    pub moves: Vec<Advance>,
    /// Partitions that stand elsewhere, and where.
    pub elsewhere: Vec<Checkpoint>,
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
}

impl Passed {
    /// The same with partitions that were left out: their feeds go on where they were.
    fn beside(mut self, waiting: &BTreeMap<i32, String>, chunks: &[Chunk]) -> Self {
        let left_out = chunks.iter().filter(|chunk| waiting.contains_key(&chunk.partition));
        let left_out = left_out.map(|chunk| (chunk.feed, chunk.partition, chunk.expected));
        self.outcome.stale.extend(left_out);
        self.outcome.waiting.clone_from(waiting);
        self
    }
}

/// Applies chunks that begin at their checkpoints, and notes all of it. Nothing of them is applied where this
/// fails, or all of some wallets': in any case a feed may hand in the same again.
pub async fn apply(
    connection: &mut Connection,
    job: &Job,
    chunks: &mut [Chunk],
) -> store::Result<Outcome> {
    let places = Places::of(chunks);
    let part = Part { job, places: &places };
    Ok(apply_one(connection, &part, &mut Seen::default(), chunks).await?.outcome)
}

/// Applies chunks to one projection, from where it stands.
pub async fn apply_one(
    connection: &mut Connection,
    part: &Part<'_>,
    seen: &mut Seen,
    chunks: &mut [Chunk],
) -> store::Result<Passed> {
    look_up(connection, part.job, seen, chunks).await?;
    match together(connection, std::slice::from_ref(part), chunks).await {
        Err(error) if error.blame() == Blame::Lasting => {
            tracing::warn!(projector = part.job.kind.name(), %error, "applying apart");
            in_parts(connection, part, chunks, Reason::Lasting).await
        }
        other => Ok(other?.pop().unwrap_or_default()),
    }
}

/// The same where the error before was one that should have passed, and has not: as if it stayed.
pub async fn apply_apart(
    connection: &mut Connection,
    part: &Part<'_>,
    chunks: &mut [Chunk],
) -> store::Result<Passed> {
    // Nothing checks here whether the server is the one that committed what was kept.
    let job = &Job { event_cache: EventCache::default(), ..part.job.clone() };
    let part = &Part { job, ..*part };
    look_up(connection, job, &mut Seen::default(), chunks).await?;
    in_parts(connection, part, chunks, Reason::Passing).await
}

/// Applies chunks to several projections in one transaction: each event is read once. Where this fails,
/// nothing is applied, and each of them may succeed by itself.
pub async fn apply_all(
    connection: &mut Connection,
    parts: &[Part<'_>],
    seen: &mut Seen,
    chunks: &mut [Chunk],
) -> store::Result<Vec<Passed>> {
    if let Some(part) = parts.first() {
        look_up(connection, part.job, seen, chunks).await?;
    }
    together(connection, parts, chunks).await
}

/// First the events, apart; then the checkpoints, with what little is left.
async fn in_parts(
    connection: &mut Connection,
    part: &Part<'_>,
    chunks: &[Chunk],
    reason: Reason,
) -> store::Result<Passed> {
    let all: Vec<&Chunk> = chunks.iter().collect();
    let partitions: BTreeSet<i32> = chunks.iter().map(|chunk| chunk.partition).collect();
    let partitions: Vec<i32> = partitions.into_iter().collect();
    let apart = narrow(connection, part.job, targets(&all), &partitions, reason).await?;
    let passed = together(connection, std::slice::from_ref(part), chunks).await?.pop();
    let mut passed = passed.unwrap_or_default();
    passed.outcome.applied += apart;
    passed.outcome.duplicates = passed.outcome.duplicates.saturating_sub(apart);
    Ok(passed)
}

/// All chunks in one transaction, or in several where a gap is longer than one should be. A partition with an
/// event of a newer build is left out: another build has to take it from there.
async fn together(
    connection: &mut Connection,
    parts: &[Part<'_>],
    chunks: &[Chunk],
) -> store::Result<Vec<Passed>> {
    let mut tallies: Vec<Tally> = Vec::new();
    let mut waiting = BTreeMap::new();
    loop {
        let goes_on = |chunk: &&Chunk| !waiting.contains_key(&chunk.partition);
        let current: Vec<&Chunk> = chunks.iter().filter(goes_on).collect();
        match parts {
            [_] => store::checkpoints::begin(connection).await?,
            _ => store::checkpoints::begin_together(connection).await?,
        }
        match pass(connection, parts, &current, &mut tallies).await {
            Ok(Pass::Done(passed)) => {
                store::commit(connection).await?;
                let passed = passed.into_iter().map(|passed| passed.beside(&waiting, chunks));
                return Ok(passed.collect());
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
    Done(Vec<Passed>),
    /// There is more to apply before the checkpoints may move.
    More,
    /// Nothing of it counts: these partitions have events of a newer build.
    Newer(BTreeMap<i32, String>),
}

/// What the first transaction found, before anything was applied.
#[derive(Default)]
struct Tally {
    outcome: Outcome,
    /// Events that records in hand name and that were not applied before.
    fresh: u64,
}

/// One part's share of the chunks.
struct Share<'a> {
    current: Vec<&'a Chunk>,
    stale: Vec<&'a Chunk>,
    stands: HashMap<i32, Checkpoint>,
    targets: Targets,
    moves: Vec<Advance>,
}

/// One transaction's worth.
async fn pass(
    connection: &mut Connection,
    parts: &[Part<'_>],
    chunks: &[&Chunk],
    tallies: &mut Vec<Tally>,
) -> store::Result<Pass> {
    let stands = lock(connection, parts, chunks).await?;
    if let Some(part) = parts.first().filter(|_| is_of_another(&stands, chunks)) {
        part.job.event_cache.forget();
        return Err(store::Error::another_server());
    }
    let now = Instant::now();
    let shares: Vec<Share<'_>> =
        parts.iter().zip(stands).map(|(part, stands)| share(part, stands, chunks, now)).collect();
    let goals = parts.iter().zip(&shares).map(|(part, share)| Goal {
        job: part.job,
        targets: &share.targets,
        moves: &share.moves,
        newer_waits: true,
    });
    let goals: Vec<Goal<'_>> = goals.collect();
    let projected = project_all(connection, &goals, &known(chunks), EVENTS_MAX).await?;
    let newer: Vec<&Unreadable> = projected.iter().flat_map(|of| &of.newer).collect();
    if !newer.is_empty() {
        return Ok(Pass::Newer(waiting(chunks, &newer)));
    }
    let is_first = tallies.is_empty();
    for (at, (share, projected)) in shares.iter().zip(&projected).enumerate() {
        if is_first {
            tallies.push(Tally::of(&share.current, projected));
        }
        if let Some(tally) = tallies.get_mut(at) {
            tally.outcome.applied += projected.applied;
        }
    }
    if projected.iter().any(|projected| !projected.complete) {
        return Ok(Pass::More);
    }
    let mut passed = Vec::with_capacity(parts.len());
    for ((part, share), tally) in parts.iter().zip(shares).zip(&*tallies) {
        passed.push(finish(connection, part.job, share, tally).await?);
    }
    Ok(Pass::Done(passed))
}

/// The partitions of these events, each with the first of them.
fn waiting(chunks: &[&Chunk], newer: &[&Unreadable]) -> BTreeMap<i32, String> {
    let mut waiting = BTreeMap::new();
    for chunk in chunks {
        let is_of = |event: &&&Unreadable| chunk.records.iter().any(|r| r.wallet == event.wallet);
        if let Some(event) = newer.iter().find(is_of) {
            let Unreadable { wallet: (tenant, wallet), version, cause, .. } = event;
            let text = format!("{cause} (wallet {wallet} of {tenant}, version {version})");
            waiting.entry(chunk.partition).or_insert(text);
        }
    }
    waiting
}

/// Sorts the chunks of a part's partitions into those that go on from where it has noted it is, and others.
fn share<'a>(
    part: &Part<'_>,
    stands: HashMap<i32, Checkpoint>,
    chunks: &[&'a Chunk],
    now: Instant,
) -> Share<'a> {
    let own = chunks.iter().copied().filter(|chunk| part.places.has(chunk.partition));
    let (current, stale): (Vec<&Chunk>, Vec<&Chunk>) =
        own.partition(|chunk| part.places.stands(&stands, chunk.partition));
    let (targets, moves) = (targets(&current), part.places.moves(&current, now));
    Share { current, stale, stands, targets, moves }
}

/// What became of a part's share, with its dead letters kept.
async fn finish(
    connection: &mut Connection,
    job: &Job,
    share: Share<'_>,
    tally: &Tally,
) -> store::Result<Passed> {
    let Share { current, stale, stands, moves, .. } = share;
    let mut outcome = tally.outcome.clone();
    outcome.healed = outcome.applied.saturating_sub(tally.fresh);
    outcome.stale = stale.iter().map(|of| (of.feed, of.partition, place(&stands, of))).collect();
    let elsewhere = stale.iter().filter_map(|of| stands.get(&of.partition).copied()).collect();
    let letters: Vec<&DeadLetter> = current.iter().flat_map(|chunk| &chunk.dead).collect();
    if !letters.is_empty() {
        let (source, of) = (Source::Events, &job.subscription);
        let inserted = store::dead_letters::insert(connection, of, source, &letters).await?;
        // Should the commit fail, they are reported again.
        letter::tell(source, &of.topic, &inserted.news);
        outcome.dead_letters = inserted.met;
    }
    Ok(Passed { outcome, moves, elsewhere })
}

/// Takes the places of the parts in the chunks' partitions, in order, for the running transaction.
async fn lock(
    connection: &mut Connection,
    parts: &[Part<'_>],
    chunks: &[&Chunk],
) -> store::Result<Vec<HashMap<i32, Checkpoint>>> {
    let Some(topic) = parts.first().map(|part| &part.job.subscription.topic) else {
        return Ok(Vec::new());
    };
    let partitions: BTreeSet<i32> = chunks.iter().map(|chunk| chunk.partition).collect();
    let places = parts.iter().flat_map(|part| {
        let own = partitions.iter().filter(|partition| part.places.has(**partition));
        own.map(|partition| (part.job.kind.name(), *partition))
    });
    let places: Vec<(&str, i32)> = places.collect();
    let found = store::checkpoints::lock(connection, topic, &places).await?;
    let of = |part: &Part<'_>| {
        let own = found.iter().filter(|(projector, _)| projector == part.job.kind.name());
        own.map(|(_, checkpoint)| (checkpoint.partition, *checkpoint)).collect()
    };
    Ok(parts.iter().map(of).collect())
}

/// Whether events were kept of commits on another server than the one that the transaction runs on: it
/// may lack them.
fn is_of_another(stands: &[HashMap<i32, Checkpoint>], chunks: &[&Chunk]) -> bool {
    let here = stands.iter().flat_map(HashMap::values).next().map(|checkpoint| checkpoint.server);
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

fn known<'a>(chunks: &[&'a Chunk]) -> Known<'a> {
    let all = chunks.iter().flat_map(|chunk| &chunk.records);
    all.filter_map(|record| Some(((&record.wallet, record.version), record.event.as_ref()?)))
        .collect()
}

fn targets(chunks: &[&Chunk]) -> Targets {
    let mut targets = Targets::new();
    for record in chunks.iter().flat_map(|chunk| &chunk.records) {
        let target = targets.entry(record.wallet.clone()).or_insert(record.version);
        *target = record.version.max(*target);
    }
    targets
}

impl Tally {
    fn of(chunks: &[&Chunk], projected: &Projected) -> Self {
        let mut outcome = Outcome::default();
        let mut fresh = HashSet::new();
        for record in chunks.iter().flat_map(|chunk| &chunk.records) {
            let before = version_of(&projected.before, &record.wallet);
            if record.version <= before || !fresh.insert((&record.wallet, record.version)) {
                outcome.duplicates += 1;
            } else if projected.parked.contains(&record.wallet) {
                outcome.parked += 1;
                fresh.remove(&(&record.wallet, record.version));
            }
        }
        Self { outcome, fresh: u64::try_from(fresh.len()).unwrap_or(0) }
    }
}
