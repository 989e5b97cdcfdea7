//! The second feed: events straight from Postgres.
//!
//! It walks the instance's partitions on every tick. While the Kafka feed is in step it only looks, and moves
//! its cursor past what is applied; an event that is not applied 2 s after it happened makes it
//! take the partition over until the Kafka feed has caught up. Without Kafka it is all there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Projection;
use super::chunk::{Chunk, EventRef, Feed};
use crate::store::feed::{Follower, Start, Walk};
use crate::store::{self, Connection};

/// An event older than this and not applied: the other feed is behind.
const BEHIND: Duration = Duration::from_secs(2);
/// Between two walks while feeding: the net under the wake-up at commit.
const TICK_ACTIVE: Duration = Duration::from_millis(200);
/// Between two walks while only looking.
const TICK_IDLE: Duration = Duration::from_secs(1);
/// Events of the outbox looked at per partition and round, and the rest of the last batch.
const MARK_ROWS_MAX: i64 = 500;

/// What the feed may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// There is no other feed.
    Sole,
    /// Takes over while the Kafka feed is behind.
    Standby,
    /// Looks, and never feeds.
    Watch,
}

#[derive(Debug)]
pub struct PostgresFeed {
    role: Role,
    limit: i64,
    /// Whether outbox rows are marked processed here, for want of a publisher.
    marks: bool,
    due: Instant,
    /// Partitions that were taken over.
    active: BTreeSet<i32>,
    /// How far each partition was seen above running transactions.
    ahead: BTreeMap<i32, i64>,
    /// Cursors that a running transaction holds: where, and since when.
    standing: BTreeMap<i32, (i64, Instant)>,
    /// The outbox's batch that the next round of settling begins behind, by partition.
    marked_to: BTreeMap<i32, i64>,
    marks_due: Instant,
}

/// By partition: events that are not applied, and the age of the oldest.
pub type Lag = BTreeMap<i32, (u32, Duration)>;

/// What is looked at: for whom, and from where on.
#[derive(Debug)]
pub struct Look<'a> {
    pub topic: &'a str,
    pub followers: &'a [Follower],
    /// Of the partitions that are projected here.
    pub from: Vec<Start>,
}

/// What a walk brought.
#[derive(Debug, Default)]
pub struct Found {
    pub chunks: Vec<Chunk>,
    /// Of each follower, by partition: events that are not applied, and the age of the oldest.
    pub lags: Vec<Lag>,
    /// For how long a transaction has kept some cursor below what is applied.
    pub held: Duration,
    /// Some cursor is of another cluster.
    pub foreign: bool,
}

impl PostgresFeed {
    pub fn new(role: Role, limit: i64, marks: bool) -> Self {
        let now = Instant::now();
        Self {
            role,
            limit,
            marks,
            due: now,
            active: BTreeSet::new(),
            ahead: BTreeMap::new(),
            standing: BTreeMap::new(),
            marked_to: BTreeMap::new(),
            marks_due: now,
        }
    }

    /// When the next walk is due, whatever happens.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Whether a commit is worth a walk at once.
    pub fn is_active(&self) -> bool {
        self.role == Role::Sole || !self.active.is_empty()
    }

    /// Walks at the next step.
    pub fn hurry(&mut self) {
        self.due = Instant::now();
    }

    /// What was handed out may not be applied: walks again from the cursors.
    pub fn forget(&mut self) {
        self.ahead.clear();
        self.hurry();
    }

    /// Only these partitions are this instance's.
    pub fn keep(&mut self, held: &BTreeSet<i32>) {
        self.active.retain(|partition| held.contains(partition));
        self.ahead.retain(|partition, _| held.contains(partition));
        self.standing.retain(|partition, _| held.contains(partition));
        self.marked_to.retain(|partition, _| held.contains(partition));
        self.hurry();
    }

    /// Walks no sooner than an idle tick from now.
    pub fn later(&mut self) {
        self.due = Instant::now() + TICK_IDLE;
    }

    /// Walks, if it is time to. `in_step` are the partitions whose Kafka feed had read its topic to the end
    /// a moment ago.
    pub async fn read(
        &mut self,
        connection: &mut Connection,
        mut look: Look<'_>,
        in_step: &BTreeSet<i32>,
    ) -> store::Result<Found> {
        let lags = look.followers.iter().map(|_| Lag::new()).collect();
        let mut found = Found { lags, ..Found::default() };
        if Instant::now() < self.due {
            return Ok(found);
        }
        let mut more = false;
        for from in &mut look.from {
            from.ahead = self.ahead.get(&from.partition).copied().unwrap_or(0);
        }
        store::begin(connection).await?;
        store::feed::steady(connection).await?;
        let Look { topic, followers, from } = look;
        let walks = store::feed::walk(connection, topic, followers, &from, self.limit).await?;
        store::commit(connection).await?;
        for walk in walks {
            for (lag, behind) in found.lags.iter_mut().zip(&walk.behind) {
                let events = u32::try_from(behind.events).unwrap_or(u32::MAX);
                lag.insert(walk.partition, (events, millis(behind.lag_ms)));
            }
            let feeds = self.feeds(&walk, millis(walk.lag_ms), in_step.contains(&walk.partition));
            let passes = feeds || walk.pending.is_empty();
            if passes {
                let ahead = self.ahead.entry(walk.partition).or_default();
                *ahead = walk.seen_to.max(*ahead);
                more |= walk.more;
            }
            let next = if feeds { walk.end } else { walk.applied_up_to };
            found.foreign |= walk.foreign;
            found.held = found.held.max(self.held_for(walk.partition, next));
            if next > walk.from || (feeds && !walk.pending.is_empty()) {
                found.chunks.push(chunk(walk, next, feeds));
            }
        }
        let tick = match (more, self.is_active()) {
            (true, _) => Duration::ZERO,
            (false, true) => TICK_ACTIVE,
            (false, false) => TICK_IDLE,
        };
        self.due = Instant::now() + tick;
        Ok(found)
    }

    /// For how long a partition's cursor has stood where it is, below what was seen to be applied.
    fn held_for(&mut self, partition: i32, cursor: i64) -> Duration {
        if self.ahead.get(&partition).is_none_or(|ahead| *ahead <= cursor) {
            self.standing.remove(&partition);
            return Duration::ZERO;
        }
        let now = Instant::now();
        let (at, since) = self.standing.entry(partition).or_insert((cursor, now));
        if *at != cursor {
            (*at, *since) = (cursor, now);
        }
        since.elapsed()
    }

    /// Whether the partition is fed from here now.
    fn feeds(&mut self, walk: &Walk, lag: Duration, in_step: bool) -> bool {
        match self.role {
            Role::Sole => return true,
            Role::Watch => return false,
            Role::Standby => {}
        }
        let outbox_age = millis(walk.outbox_age_ms);
        if lag > BEHIND {
            let is_first = self.active.is_empty();
            if self.active.insert(walk.partition) && is_first {
                tracing::warn!(partition = walk.partition, ?lag, "feeding from Postgres");
            }
        } else if in_step
            && outbox_age < BEHIND
            && self.active.remove(&walk.partition)
            && self.active.is_empty()
        {
            tracing::info!("the Kafka feed is in step again");
        }
        self.active.contains(&walk.partition)
    }

    /// Without Kafka: marks outbox rows that all projectors have applied.
    pub async fn mark_processed(
        &mut self,
        connection: &mut Connection,
        topic: &str,
        held: impl Iterator<Item = i32>,
    ) -> store::Result<()> {
        if !self.marks || Instant::now() < self.marks_due {
            return Ok(());
        }
        self.marks_due = Instant::now() + TICK_ACTIVE;
        let after = held.map(|partition| {
            (partition, self.marked_to.get(&partition).copied().unwrap_or(i64::MIN))
        });
        let after: Vec<(i32, i64)> = after.collect();
        let all = Projection::ALL.map(Projection::name);
        store::begin(connection).await?;
        store::feed::steady(connection).await?;
        let done =
            store::feed::mark_processed(connection, topic, &all, &after, MARK_ROWS_MAX).await?;
        store::commit(connection).await?;
        for mark in done {
            // At the end of the set the next round begins again: what was passed over may be applied.
            self.marked_to.insert(mark.partition, mark.last_id.unwrap_or(i64::MIN));
            if mark.marked >= MARK_ROWS_MAX {
                self.marks_due = Instant::now();
            }
        }
        Ok(())
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn chunk(walk: Walk, next: i64, feeds: bool) -> Chunk {
    let pending = if feeds { walk.pending } else { Vec::new() };
    let seen = |(wallet, version, event_id)| EventRef {
        wallet,
        version,
        event_id,
        record: None,
        event: None,
    };
    Chunk {
        feed: Feed::Postgres,
        partition: walk.partition,
        expected: walk.from,
        next,
        records: pending.into_iter().map(seen).collect(),
        dead: Vec::new(),
        server: None,
        foreign: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(lag_ms: i64, outbox_age_ms: i64) -> Walk {
        Walk {
            partition: 3,
            from: 0,
            end: 0,
            applied_up_to: 0,
            seen_to: 0,
            more: false,
            foreign: false,
            pending: Vec::new(),
            lag_ms,
            behind: Vec::new(),
            outbox_age_ms,
        }
    }

    #[test]
    fn a_partition_is_taken_over_when_behind_and_given_back_when_in_step() {
        let mut feed = PostgresFeed::new(Role::Standby, 500, false);
        let mut feeds = |lag: u64, outbox_age: i64, in_step: bool| {
            feed.feeds(&walk(0, outbox_age), Duration::from_millis(lag), in_step)
        };
        assert!(!feeds(1900, 9000, false), "young events are the other feed's");
        assert!(feeds(2100, 0, true));
        assert!(feeds(0, 0, false), "the topic is not read to its end");
        assert!(feeds(0, 2100, true), "events are waiting for the topic");
        assert!(!feeds(0, 100, true));
        assert!(!feeds(100, 0, true));
    }

    #[test]
    fn a_feed_that_may_only_look_never_feeds_and_a_sole_one_always_does() {
        let late = Duration::from_secs(60);
        assert!(!PostgresFeed::new(Role::Watch, 500, false).feeds(&walk(0, 0), late, false));
        assert!(PostgresFeed::new(Role::Sole, 500, false).feeds(&walk(0, 0), late, true));
    }
}
