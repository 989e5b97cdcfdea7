//! One projection of a projector: what is its own, whether it works by itself or together with others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::apply::{Part, Passed};
use super::chunk::Chunk;
use super::mend::Mend;
use super::places::{Place, Places};
use super::postgres_feed::Lag;
use super::{Job, Projection, Wiring};
use crate::background::leases::Leases;
use crate::status::Status;
use crate::store::checkpoints::{Advance, Subscription};
use crate::store::feed::Follower;
use crate::store::leases::Leased;
use crate::store::{self, Blame, Connection};

pub(super) struct Member {
    pub kind: &'static Projection,
    pub commits: Arc<Notify>,
    pub applied: Arc<Notify>,
    pub status: Status,
    /// Its name as a consumer group.
    pub group: String,
    pub leases: Leases,
    /// Known once the topic's number of partitions is.
    pub job: Option<Job>,
    /// Places of another cluster are being given up; the feed from Postgres rests.
    pub mend: Option<Mend>,
    /// Where it stands in the partitions that the feeds read for it.
    pub places: Places,
    /// As of the last look; none before the first renewal.
    pub assigned: Option<BTreeSet<i32>>,
    pub failures: Failures,
    /// Something of it alone is due, or under way: it works by itself.
    pub is_apart: bool,
}

/// Steps that failed, while what they were to apply is not known to be applied.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// In a row, with a conflict or a time-out.
    pub passing: u32,
    pub last_at: Option<Instant>,
    pub count: u32,
}

impl Member {
    pub fn new(wiring: &Wiring) -> Self {
        let kind = wiring.kind;
        let leased = Leased {
            tenant: store::PIPELINE.to_owned(),
            role: kind.name(),
            topic: wiring.topic.clone(),
            // Known once the topic is.
            partitions: 0,
        };
        Self {
            kind,
            commits: Arc::clone(&wiring.commits),
            applied: Arc::clone(&wiring.applied),
            status: wiring.status.clone(),
            group: format!("{}{}", wiring.consumer.group_prefix, kind.name()),
            leases: Leases::new(wiring.pool.clone(), Arc::clone(&wiring.instance), leased),
            job: None,
            mend: None,
            places: Places::default(),
            assigned: None,
            failures: Failures::default(),
            is_apart: true,
        }
    }

    /// Its part in a transaction; none before it is loaded.
    pub fn part(&self) -> Option<Part<'_>> {
        Some(Part { job: self.job.as_ref()?, places: &self.places })
    }

    pub fn follower(&self) -> Follower {
        Follower { projector: self.kind.name(), table: self.kind.table }
    }

    /// Finds out where it stands.
    pub async fn load(
        &mut self,
        connection: &mut Connection,
        wiring: &Wiring,
        partitions: i32,
    ) -> store::Result<()> {
        let projector = self.kind.name();
        let subscription = Subscription { projector, topic: wiring.topic.clone() };
        self.mend = Mend::begun(connection, &subscription, partitions).await?;
        self.report_mending(self.mend.is_some());
        if self.assigned.is_none() {
            store::parked::hurry_newer(connection, &subscription).await?;
        }
        self.leases.set_partitions(partitions);
        let deployment = store::topics::deployment(connection).await?;
        let (kind, event_cache) = (self.kind, wiring.event_cache.clone());
        self.job = Some(Job { kind, subscription, partitions, deployment, event_cache });
        Ok(())
    }

    /// The partitions to project. Nothing is in hand between two steps: what goes is complete.
    pub fn look_at_leases(&mut self) -> BTreeSet<i32> {
        let assigned = self.leases.assigned(&BTreeSet::new());
        let partitions: BTreeSet<i32> =
            assigned.iter().flat_map(|leases| leases.keys().copied()).collect();
        match &self.assigned {
            None => self.report_assigned(partitions.len()),
            Some(before) if *before != partitions => self.report_rebalance(partitions.len()),
            Some(_) => {}
        }
        self.assigned = Some(partitions.clone());
        partitions
    }

    /// Takes in what became of the chunks.
    pub fn pass(&mut self, chunks: &[Chunk], passed: &Passed, now: Instant) {
        let is_current = |chunk: &&Chunk| {
            let partition = chunk.partition;
            passed.elsewhere.iter().all(|place| place.partition != partition)
                && !passed.outcome.waiting.contains_key(&partition)
        };
        let current: Vec<&Chunk> = chunks.iter().filter(is_current).collect();
        self.places.pass(&current, &passed.moves, now);
        for checkpoint in &passed.elsewhere {
            self.places.begin(checkpoint);
        }
    }

    /// Notes what is applied: what is due by `now`, or all of it. False: another has moved a place
    /// meanwhile.
    pub async fn note_places(
        &mut self,
        connection: &mut Connection,
        now: Option<Instant>,
    ) -> store::Result<bool> {
        let (moves, Some(job)) = (self.places.unnoted(now), &self.job) else { return Ok(true) };
        if moves.is_empty() {
            return Ok(true);
        }
        store::checkpoints::begin(connection).await?;
        let noted = store::checkpoints::advance(connection, &job.subscription, &moves).await;
        let noted = store::answered(connection, noted).await?;
        let is_noted = |to: &Advance| noted.contains(&to.partition);
        self.places.note(&moves, Instant::now());
        Ok(moves.iter().all(is_noted))
    }

    /// Whether it works well, and only what all projections have is before it.
    pub fn may_meet(&self) -> bool {
        let knows = self.job.is_some() && self.assigned.is_some() && self.mend.is_none();
        knows && self.failures.count == 0 && !self.is_apart
    }

    /// What is applied, by partition.
    pub fn stand(&self) -> BTreeMap<i32, Place> {
        self.places.applied().collect()
    }
}

impl Failures {
    pub fn add(&mut self, error: &store::Error) {
        let passes = error.blame() == Blame::Passing;
        self.passing = if passes { self.passing.saturating_add(1) } else { 0 };
        self.last_at = Some(Instant::now());
        self.count = self.count.saturating_add(1);
    }

    /// Whether there were some, and all events are applied that are older than the last.
    pub fn are_over(&self, lag: &Lag) -> bool {
        let Some(since) = self.last_at.map(|at| at.elapsed()) else { return false };
        lag.values().all(|(pending, age)| *pending == 0 || *age < since)
    }
}
