//! The two feeds of a projector: what they read, what they bring, and where they go on.

use std::collections::BTreeSet;

use tokio::time::{Instant, sleep_until};

use super::apply::Outcome;
use super::chunk::{Chunk, Feed};
use super::kafka_feed::{Arrived, KafkaFeed};
use super::mend::Mend;
use super::{Failures, Job, Projector};
use crate::store::checkpoints::Advance;
use crate::store::{self, Connection};
use crate::throttle::Round;

/// What a step has to do.
pub(super) struct Due {
    /// The partitions to project, where they are others than the feeds read.
    moves_to: Option<BTreeSet<i32>>,
    arrived: Vec<Arrived>,
    walks: bool,
    pub mends: bool,
    pub maintains: bool,
}

impl Projector {
    /// Waits until there may be something to do. May be dropped at any time.
    pub(super) async fn wait(&mut self) {
        if self.job.is_none() {
            return sleep_until(self.postgres.due()).await;
        }
        if self.mend.is_some() {
            return;
        }
        let (kafka, postgres) = (&mut self.kafka, &mut self.postgres);
        let arrival = async {
            match kafka {
                Some(kafka) => kafka.arrival().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = arrival => {}
            () = self.wiring.commits.notified(), if postgres.is_active() => postgres.hurry(),
            () = sleep_until(postgres.due().min(self.maintenance_due)) => {}
            () = self.leases.changed() => {}
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
        assigned.retain(|partition| !self.waits.contains_key(partition));
        let arrived = self.kafka.as_mut().map(|kafka| kafka.take()).unwrap_or_default();
        let now = Instant::now();
        let rests = self.mend.as_ref().is_some_and(Mend::is_foreign);
        let due = Due {
            moves_to: Some(assigned).filter(|assigned| *assigned != self.feeding),
            arrived,
            walks: !rests && now >= self.postgres.due(),
            mends: self.mend.is_some(),
            maintains: now >= self.maintenance_due,
        };
        let is_any = due.moves_to.is_some() || !due.arrived.is_empty() || due.walks || due.mends;
        (is_any || due.maintains).then_some(due)
    }

    /// The chunks to apply, of both feeds; none: the places are of another cluster.
    pub(super) async fn read(
        &mut self,
        connection: &mut Connection,
        job: &Job,
        due: Due,
    ) -> store::Result<Option<Vec<Chunk>>> {
        if let Some(assigned) = due.moves_to {
            self.follow(connection, job, assigned).await?;
        }
        let mut chunks = self.sorted(job, connection, due.arrived).await?;
        if due.walks {
            let in_step = self.kafka.as_ref().map(KafkaFeed::in_step).unwrap_or_default();
            let found = self.postgres.read(connection, job, &self.feeding, &in_step).await?;
            self.report_lag(job, &found);
            if found.foreign {
                return Ok(None);
            }
            if self.failures.are_over(&found) {
                self.failures = Failures { passing: self.failures.passing, ..Failures::default() };
                self.report_mended();
            }
            chunks.extend(found.chunks);
        }
        Ok(Some(chunks))
    }

    /// The partitions to project. Nothing is in hand between two steps: what goes is complete.
    fn assigned(&mut self) -> BTreeSet<i32> {
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

    /// Has the feeds read these partitions and no others, each new one from its checkpoint.
    async fn follow(
        &mut self,
        connection: &mut Connection,
        job: &Job,
        assigned: BTreeSet<i32>,
    ) -> store::Result<()> {
        if let Some(kafka) = &mut self.kafka {
            let places = store::checkpoints::load(connection, &job.subscription, job.partitions);
            let is_new = |n: &i32| assigned.contains(n) && !self.feeding.contains(n);
            kafka.keep(&assigned);
            kafka.begin(places.await?.iter().filter(|place| is_new(&place.partition)));
        }
        self.postgres.keep(&assigned);
        self.feeding = assigned;
        Ok(())
    }

    /// Chunks to apply. Failures are noted, and an offset that is gone is replaced.
    async fn sorted(
        &mut self,
        job: &Job,
        connection: &mut Connection,
        arrived: Vec<Arrived>,
    ) -> store::Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        for arrival in arrived {
            match arrival {
                Arrived::Chunk(chunk) if !self.feeding.contains(&chunk.partition) => {}
                Arrived::Chunk(chunk) => chunks.push(chunk),
                Arrived::Failed { partition, error } => {
                    self.report_error(&format!("partition {partition}: {error}"), true);
                }
                Arrived::OutOfRange { partition, expected, earliest } => {
                    let error = format!(
                        "partition {partition}: offset {expected} is not in the topic, going on \
                         at {earliest}; what is missing there is read from events"
                    );
                    tracing::error!(projector = job.kind.name(), "{error}");
                    self.report_error(&error, false);
                    let pair = Some((expected, earliest));
                    let to = Advance { partition, next_offset: pair, feed_xid: None };
                    store::checkpoints::advance(connection, &job.subscription, &[to]).await?;
                    if let Some(kafka) = &mut self.kafka {
                        // Should another instance have moved it first, the next chunk will tell.
                        kafka.resume(partition, earliest);
                    }
                }
            }
        }
        Ok(chunks)
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
        self.job = None;
        self.kafka = None;
        self.mend = None;
        self.postgres.forget();
    }
}
