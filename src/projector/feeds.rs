//! The two feeds of a projector: what they read, what they bring, and where they go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::select_all;
use tokio::time::{Instant, sleep_until};

use super::apply::Outcome;
use super::chunk::{Chunk, Feed};
use super::kafka_feed::{Arrived, KafkaFeed};
use super::member::{Failures, Member};
use super::mend::Mend;
use super::places::{Place, Places};
use super::postgres_feed::Look;
use super::together::are_near;
use super::{Projector, Session};
use crate::store::checkpoints::Advance;
use crate::store::feed::{Follower, Start};
use crate::store::{self, Connection};
use crate::throttle::Round;

/// What a step has to do.
pub(super) struct Due {
    /// The partitions to project and for which members, where it is other than what the feeds read.
    moves_to: Option<BTreeMap<i32, i32>>,
    arrived: Vec<Arrived>,
    walks: bool,
    pub mends: bool,
    pub maintains: bool,
}

impl Projector {
    /// Waits until there may be something to do. May be dropped at any time.
    pub(super) async fn wait(&mut self) {
        if self.partitions.is_none() {
            return sleep_until(self.postgres.due()).await;
        }
        if self.members.iter().any(|member| member.mend.is_some()) {
            return;
        }
        let due = self.notes_due().map_or(self.maintenance_due, |at| at.min(self.maintenance_due));
        let (kafka, postgres, members) = (&mut self.kafka, &mut self.postgres, &mut self.members);
        let due = due.min(postgres.due());
        let arrival = async {
            match kafka {
                Some(kafka) => kafka.arrival().await,
                None => std::future::pending().await,
            }
        };
        // All members are woken by the same commits.
        let commits = members.first().map(|member| Arc::clone(&member.commits)).unwrap_or_default();
        let changes = members.iter_mut().map(|member| Box::pin(member.leases.changed()));
        tokio::select! {
            () = arrival => {}
            () = commits.notified(), if postgres.is_active() => postgres.hurry(),
            () = sleep_until(due) => {}
            _ = select_all(changes) => {}
        }
    }

    /// Rests after a round. What comes meanwhile is gathered: requests are sent and
    /// answered only while they are polled, and the next round is to find all partitions' answers.
    pub(super) async fn rest(&mut self, round: Round) {
        let gathering = async {
            match &mut self.kafka {
                Some(kafka) => kafka.gather().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wiring.throttle.rest(round) => {}
            () = gathering => {}
        }
    }

    /// What there is to do now; none: nothing.
    pub(super) fn due(&mut self) -> Option<Due> {
        let mut assigned = self.assigned();
        self.waits.retain(|_, until| *until > Instant::now());
        assigned.retain(|partition, _| !self.waits.contains_key(partition));
        let arrived = self.kafka.as_mut().map(|kafka| kafka.take()).unwrap_or_default();
        let now = Instant::now();
        let mut mends = self.members.iter().filter_map(|member| member.mend.as_ref()).peekable();
        let due = Due {
            moves_to: Some(assigned).filter(|assigned| *assigned != self.feeding),
            arrived,
            mends: mends.peek().is_some(),
            walks: now >= self.postgres.due() && !mends.any(Mend::is_foreign),
            maintains: now >= self.maintenance_due,
        };
        let notes = self.notes_due().is_some_and(|at| now >= at);
        let is_any = due.moves_to.is_some() || !due.arrived.is_empty() || due.walks || due.mends;
        (is_any || due.maintains || notes).then_some(due)
    }

    fn notes_due(&self) -> Option<Instant> {
        self.members.iter().filter_map(|member| member.places.due()).min()
    }

    /// The chunks to apply, of both feeds; none: the places are of another cluster.
    pub(super) async fn read(
        &mut self,
        session: &mut Session,
        due: Due,
    ) -> store::Result<Option<Vec<Chunk>>> {
        if let Some(assigned) = due.moves_to {
            self.follow(&mut session.connection, assigned).await?;
        }
        let mut chunks = self.sorted(&mut session.connection, due.arrived).await?;
        if due.walks {
            let in_step = self.kafka.as_ref().map(KafkaFeed::in_step).unwrap_or_default();
            let followers: Vec<Follower> = self.members.iter().map(Member::follower).collect();
            let from = self.from();
            let look = Look { topic: &self.wiring.topic, followers: &followers, from };
            let found = self.postgres.read(&mut session.connection, look, &in_step).await?;
            let all = 0..self.partitions.unwrap_or(0);
            let partitions = all.filter(|partition| !self.waits.contains_key(partition));
            for (member, lag) in self.members.iter_mut().zip(&found.lags) {
                member.report_lag(partitions.clone(), lag, found.held);
                if !found.foreign && member.failures.are_over(lag) {
                    let passing = member.failures.passing;
                    member.failures = Failures { passing, ..Failures::default() };
                    member.report_mended();
                }
            }
            if found.foreign {
                self.members.iter_mut().for_each(|member| member.is_apart = true);
                return Ok(None);
            }
            for chunk in &found.chunks {
                let claims = chunk.records.iter().map(|record| record.claim(chunk.partition));
                claims.for_each(|claim| session.seen.insert(&claim));
            }
            chunks.extend(found.chunks);
        }
        Ok(Some(chunks))
    }

    /// The partitions that each member is to project.
    fn assigned(&mut self) -> BTreeMap<i32, i32> {
        let mut assigned = BTreeMap::new();
        for (at, member) in self.members.iter_mut().enumerate() {
            for partition in member.look_at_leases() {
                *assigned.entry(partition).or_default() |= bit(at);
            }
        }
        assigned
    }

    /// From where the walk goes on, and for whom.
    fn from(&self) -> Vec<Start> {
        let lowest = self.lowest();
        let from = self.feeding.iter().map(|(partition, followers)| {
            let cursor = lowest.get(partition).and_then(|place| place.feed_xid).unwrap_or(0);
            Start { partition: *partition, cursor, ahead: 0, followers: *followers }
        });
        from.collect()
    }

    /// What all members that share a partition have applied of it. One that is further meets what it
    /// has applied as copies.
    fn lowest(&self) -> BTreeMap<i32, Place> {
        let mut lowest: BTreeMap<i32, Place> = BTreeMap::new();
        for (partition, place) in self.members.iter().flat_map(|member| member.places.applied()) {
            let known = lowest.entry(partition).or_insert(place);
            known.next_offset = place.next_offset.min(known.next_offset);
            known.feed_xid = place.feed_xid.min(known.feed_xid);
        }
        lowest
    }

    /// Has the feeds read these partitions and no others, each new one from its checkpoints.
    async fn follow(
        &mut self,
        connection: &mut Connection,
        assigned: BTreeMap<i32, i32>,
    ) -> store::Result<()> {
        let kept = assigned.iter().filter(|(number, of)| self.feeding.get(number) == Some(*of));
        let kept: BTreeSet<i32> = kept.map(|(partition, _)| *partition).collect();
        for (at, member) in self.members.iter_mut().enumerate() {
            member.note_places(connection, None).await?;
            member.places.keep(&kept);
            let Some(job) = &member.job else { continue };
            let (of, partitions) = (&job.subscription, job.partitions);
            for checkpoint in store::checkpoints::load(connection, of, partitions).await? {
                let shares =
                    assigned.get(&checkpoint.partition).is_some_and(|of| of & bit(at) != 0);
                if shares && !kept.contains(&checkpoint.partition) {
                    member.places.begin(&checkpoint);
                }
            }
        }
        let stands: Vec<_> = self.members.iter().map(Member::stand).collect();
        if !are_near(&stands) {
            self.members.iter_mut().for_each(|member| member.is_apart = true);
        }
        let lowest = self.lowest();
        if let Some(kafka) = &mut self.kafka {
            kafka.keep(&kept);
            let new = lowest.iter().filter(|(partition, _)| !kept.contains(partition));
            kafka.begin(new.map(|(partition, place)| (*partition, place.next_offset.unwrap_or(0))));
        }
        self.postgres.keep(&kept);
        self.feeding = assigned;
        Ok(())
    }

    /// Chunks to apply. Failures are noted, and an offset that is gone is replaced.
    async fn sorted(
        &mut self,
        connection: &mut Connection,
        arrived: Vec<Arrived>,
    ) -> store::Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        for arrival in arrived {
            match arrival {
                Arrived::Chunk(chunk) if !self.feeding.contains_key(&chunk.partition) => {}
                Arrived::Chunk(chunk) => chunks.push(chunk),
                Arrived::Failed { partition, error } => {
                    let error = format!("partition {partition}: {error}");
                    self.members.iter().for_each(|member| member.report_error(&error, true));
                }
                Arrived::OutOfRange { partition, expected, earliest } => {
                    self.skip(connection, partition, expected, earliest).await?;
                }
            }
        }
        Ok(chunks)
    }

    /// Goes on at the earliest offset that is in the topic.
    async fn skip(
        &mut self,
        connection: &mut Connection,
        partition: i32,
        expected: i64,
        earliest: i64,
    ) -> store::Result<()> {
        let error = format!(
            "partition {partition}: offset {expected} is not in the topic, going on at {earliest}; what \
             is missing there is read from events"
        );
        for member in self.members.iter_mut().filter(|member| member.places.has(partition)) {
            tracing::error!(projector = member.kind.name(), "{error}");
            member.report_error(&error, false);
            let Some(job) = &member.job else { continue };
            let noted = member.places.noted().find(|(number, _)| *number == partition);
            let from = noted.and_then(|(_, place)| place.next_offset);
            let next_offset = from.map(|from| (from, earliest));
            let to = Advance { partition, next_offset, feed_xid: None };
            store::checkpoints::advance(connection, &job.subscription, &[to]).await?;
            // Should another instance have moved it first, the next chunk will tell.
            member.places.jump(partition, earliest);
        }
        if let Some(kafka) = &mut self.kafka {
            kafka.resume(partition, earliest);
        }
        Ok(())
    }

    /// Lets the feeds go on, from where the checkpoints are now.
    pub(super) fn resume(&mut self, chunks: &[Chunk], outcome: &Outcome) {
        if outcome.stale.iter().any(|(feed, _, _)| *feed == Feed::Postgres) {
            self.postgres.forget();
        }
        let Some(kafka) = &mut self.kafka else { return };
        for chunk in chunks.iter().filter(|chunk| chunk.feed == Feed::Kafka) {
            let moved = outcome
                .stale
                .iter()
                .find(|(feed, partition, _)| *feed == Feed::Kafka && *partition == chunk.partition);
            kafka.resume(chunk.partition, moved.map_or(chunk.next, |(_, _, place)| *place));
        }
    }

    /// After an error nothing in memory is worth keeping: Postgres knows where everything stands.
    pub(super) fn forget(&mut self) {
        self.feeding.clear();
        self.partitions = None;
        self.kafka = None;
        for member in &mut self.members {
            (member.job, member.mend) = (None, None);
            member.places = Places::default();
        }
        self.postgres.forget();
    }
}

/// A member's bit among those of a projector.
fn bit(at: usize) -> i32 {
    1 << at
}
