//! Where a projection stands in its partitions: what is applied, and what of that is noted in Postgres.
//!
//! While load runs a place is noted five times a second, not with each round: what was applied since is
//! applied again after a crash, which the wallets' versions make no difference of. A place is noted with a
//! round, where few were a moment ago, or else by itself soon, and before a partition is given up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::chunk::{Chunk, Feed};
use crate::store::checkpoints::{Advance, Checkpoint};

/// Between two notes of one place, while many follow each other; of few, this many come at once.
const NOTE_INTERVAL: Duration = Duration::from_millis(200);
const NOTES_AT_ONCE: u32 = 5;

/// The two places of a partition; none: not known, and not moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    pub next_offset: Option<i64>,
    pub feed_xid: Option<i64>,
}

/// One partition.
#[derive(Debug, Clone, Copy, Default)]
struct Stand {
    noted: Place,
    applied: Place,
    /// Until when its notes are enough, [`NOTE_INTERVAL`] for each.
    noted_for: Option<Instant>,
}

/// One projection's places, by partition.
#[derive(Debug, Clone, Default)]
pub struct Places(BTreeMap<i32, Stand>);

impl Places {
    /// Of a stretch that has to be where it begins, and is noted with what is applied of it.
    pub fn of(chunks: &[Chunk]) -> Self {
        let mut places = Self::default();
        for chunk in chunks {
            let stand = places.0.entry(chunk.partition).or_default();
            *stand.noted.feed(chunk.feed) = Some(chunk.expected);
            stand.applied = stand.noted;
        }
        places
    }

    /// Goes on from what is noted.
    pub fn begin(&mut self, checkpoint: &Checkpoint) {
        let noted = Place::of(checkpoint);
        self.0.insert(checkpoint.partition, Stand { noted, applied: noted, noted_for: None });
    }

    /// Only these partitions are projected here.
    pub fn keep(&mut self, partitions: &BTreeSet<i32>) {
        self.0.retain(|partition, _| partitions.contains(partition));
    }

    pub fn has(&self, partition: i32) -> bool {
        self.0.contains_key(&partition)
    }

    /// What is applied, by partition.
    pub fn applied(&self) -> impl Iterator<Item = (i32, Place)> + '_ {
        self.0.iter().map(|(partition, stand)| (*partition, stand.applied))
    }

    /// What is noted, by partition.
    pub fn noted(&self) -> impl Iterator<Item = (i32, Place)> + '_ {
        self.0.iter().map(|(partition, stand)| (*partition, stand.noted))
    }

    /// The topic goes on at this offset, which may lie before or behind, and that is noted.
    pub fn jump(&mut self, partition: i32, next_offset: i64) {
        if let Some(stand) = self.0.get_mut(&partition) {
            (stand.noted.next_offset, stand.applied.next_offset) =
                (Some(next_offset), Some(next_offset));
        }
    }

    /// Whether the checkpoint is where this projector has noted it: no operator and no other owner has
    /// moved it.
    pub fn stands(&self, checkpoints: &HashMap<i32, Checkpoint>, partition: i32) -> bool {
        let Some(stand) = self.0.get(&partition) else { return false };
        let found = checkpoints.get(&partition).map(Place::of);
        let found = found.unwrap_or(Place { next_offset: Some(0), feed_xid: Some(0) });
        let is = |noted: Option<i64>, found| noted.is_none() || noted == found;
        is(stand.noted.next_offset, found.next_offset) && is(stand.noted.feed_xid, found.feed_xid)
    }

    /// How the checkpoints are to move with these chunks: one move for each partition, whichever feeds move
    /// it, where it is time to note it.
    pub fn moves(&self, chunks: &[&Chunk], now: Instant) -> Vec<Advance> {
        let partitions: BTreeSet<i32> = chunks.iter().map(|chunk| chunk.partition).collect();
        let stand = |partition| Some((partition, self.0.get(&partition)?));
        let due = partitions.into_iter().filter_map(stand).filter(|(_, stand)| stand.is_due(now));
        let moved = due.filter_map(|(partition, stand)| {
            let mut to = *stand;
            to.pass(chunks.iter().filter(|chunk| chunk.partition == partition));
            to.advance(partition)
        });
        moved.collect()
    }

    /// Takes in what became of chunks: they are applied, and these moves are noted.
    pub fn pass(&mut self, chunks: &[&Chunk], moves: &[Advance], now: Instant) {
        for (partition, stand) in &mut self.0 {
            stand.pass(chunks.iter().filter(|chunk| chunk.partition == *partition));
        }
        self.note(moves, now);
    }

    /// These moves are noted.
    pub fn note(&mut self, moves: &[Advance], now: Instant) {
        for to in moves {
            let Some(stand) = self.0.get_mut(&to.partition) else { continue };
            stand.noted_for = Some(stand.noted_for.unwrap_or(now).max(now) + NOTE_INTERVAL);
            let noted = &mut stand.noted;
            noted.next_offset = to.next_offset.map(|(_, to)| to).or(noted.next_offset);
            noted.feed_xid = to.feed_xid.map(|(_, to)| to).or(noted.feed_xid);
        }
    }

    /// What is applied and not noted yet, as of `now`; all of it where that is none.
    pub fn unnoted(&self, now: Option<Instant>) -> Vec<Advance> {
        let is_due = |stand: &Stand| now.is_none_or(|now| stand.is_due(now));
        let due = self.0.iter().filter(|(_, stand)| is_due(stand));
        due.filter_map(|(partition, stand)| stand.advance(*partition)).collect()
    }

    /// When something is to be noted, whatever happens.
    pub fn due(&self) -> Option<Instant> {
        let open = self.0.values().filter(|stand| stand.noted != stand.applied);
        open.map(|stand| stand.due().unwrap_or_else(Instant::now)).min()
    }
}

impl Place {
    fn of(checkpoint: &Checkpoint) -> Self {
        let Checkpoint { next_offset, feed_xid, .. } = *checkpoint;
        Self { next_offset: Some(next_offset), feed_xid: Some(feed_xid) }
    }

    fn feed(&mut self, feed: Feed) -> &mut Option<i64> {
        match feed {
            Feed::Kafka => &mut self.next_offset,
            Feed::Postgres => &mut self.feed_xid,
        }
    }
}

impl Stand {
    /// None: at any time.
    fn due(&self) -> Option<Instant> {
        self.noted_for.and_then(|until| until.checked_sub(NOTE_INTERVAL * (NOTES_AT_ONCE - 1)))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due().is_none_or(|due| now >= due)
    }

    fn pass<'a>(&mut self, chunks: impl Iterator<Item = &'a &'a Chunk>) {
        for chunk in chunks {
            let place = self.applied.feed(chunk.feed);
            *place = Some(chunk.next).max(*place);
        }
    }

    fn advance(&self, partition: i32) -> Option<Advance> {
        let pair = |from: Option<i64>, to| from.zip(to).filter(|(from, to)| from != to);
        let next_offset = pair(self.noted.next_offset, self.applied.next_offset);
        let feed_xid = pair(self.noted.feed_xid, self.applied.feed_xid);
        let moves = next_offset.is_some() || feed_xid.is_some();
        moves.then_some(Advance { partition, next_offset, feed_xid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(feed: Feed, expected: i64, next: i64) -> Chunk {
        let (records, dead) = (Vec::new(), Vec::new());
        Chunk { feed, partition: 3, expected, next, records, dead, server: None, foreign: None }
    }

    fn at(next_offset: i64, feed_xid: i64) -> Checkpoint {
        Checkpoint { partition: 3, next_offset, feed_xid, server: 0 }
    }

    #[test]
    fn a_place_is_noted_at_once_and_under_load_five_times_a_second() {
        let mut places = Places::default();
        places.begin(&at(10, 100));
        let (begun, mut noted) = (Instant::now(), Vec::new());
        for round in 0..100 {
            let now = begun + Duration::from_millis(10) * round;
            let from = 10 + i64::from(round);
            let chunks = [chunk(Feed::Kafka, from, from + 1)];
            let chunks: Vec<&Chunk> = chunks.iter().collect();
            let moves = places.moves(&chunks, now);
            places.pass(&chunks, &moves, now);
            noted.extend(moves.into_iter().map(|to| to.next_offset));
        }
        let at_once = [(10, 11), (11, 12), (12, 13), (13, 14), (14, 15)];
        let later = [(15, 31), (31, 51), (51, 71), (71, 91)];
        assert_eq!(
            noted,
            [&at_once[..], &later[..]].concat().into_iter().map(Some).collect::<Vec<_>>()
        );
        let now = begun + Duration::from_millis(995);
        assert_eq!(places.unnoted(Some(now)), []);
        assert_eq!(places.due(), Some(begun + Duration::from_secs(1)));
        let left = places.unnoted(None);
        let rest = Advance { partition: 3, next_offset: Some((91, 110)), feed_xid: None };
        assert_eq!(left, [rest]);
        places.note(&left, now);
        assert_eq!((places.due(), places.unnoted(None)), (None, Vec::new()));
    }

    #[test]
    fn both_feeds_are_one_move_and_a_place_that_another_moved_is_seen() {
        let mut places = Places::default();
        places.begin(&at(10, 100));
        let chunks = [chunk(Feed::Kafka, 10, 12), chunk(Feed::Postgres, 100, 107)];
        let chunks: Vec<&Chunk> = chunks.iter().collect();
        let moves = places.moves(&chunks, Instant::now());
        let both =
            Advance { partition: 3, next_offset: Some((10, 12)), feed_xid: Some((100, 107)) };
        assert_eq!(moves, [both]);
        let found = |checkpoint: Checkpoint| HashMap::from([(3, checkpoint)]);
        assert!(places.stands(&found(at(10, 100)), 3));
        assert!(!places.stands(&found(at(9, 100)), 3));
        assert!(!places.stands(&found(at(10, 101)), 3));
        assert!(!places.stands(&found(at(10, 100)), 4));
        places.pass(&chunks, &moves, Instant::now());
        assert!(places.stands(&found(at(12, 107)), 3));
    }

    #[test]
    fn a_projection_that_is_ahead_of_a_chunk_does_not_go_back() {
        let mut places = Places::default();
        places.begin(&at(20, 100));
        let chunks = [chunk(Feed::Kafka, 10, 15)];
        let chunks: Vec<&Chunk> = chunks.iter().collect();
        assert_eq!(places.moves(&chunks, Instant::now()), []);
        places.pass(&chunks, &[], Instant::now());
        assert_eq!(places.due(), None);
    }
}
