//! One stage's partitions: a reader at work on each that this instance has. Starts and ends readers;
//! knows nothing of commands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::partition::Worker;
use crate::background::leases::Leases;
use crate::backoff::Backoff;
use crate::status::PartitionStatus;
use crate::store::checkpoints::{self, Subscription};
use crate::store::leases::Leased;
use crate::store::{self, group_offsets};

/// Between two looks at where the partitions stand in Postgres: an operator may have moved one back.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// After a look that failed.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Where each reader stands.
pub(super) type Places = Arc<Mutex<BTreeMap<i32, PartitionStatus>>>;

/// A panic cannot leave the map half changed.
pub(super) fn lock(places: &Places) -> MutexGuard<'_, BTreeMap<i32, PartitionStatus>> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Consumer {
    shared: Arc<Shared>,
    stage: usize,
    leases: Leases,
    places: Places,
    workers: FuturesUnordered<BoxFuture<'static, i32>>,
    /// What ends each of them.
    running: BTreeMap<i32, CancellationToken>,
    /// As of the last look; none before the first renewal.
    assigned: Option<BTreeSet<i32>>,
    /// Fired where a reader has ended: another may begin, or its partition is given up.
    ended: Arc<Notify>,
}

/// Looks at where the partitions stand: its own state travels through each look.
struct Watch {
    shared: Arc<Shared>,
    stage: usize,
    leases: Leases,
    places: Places,
    ended: Arc<Notify>,
    /// Postgres has a place for so many partitions.
    opened: i32,
    backoff: Backoff,
}

/// What a look found.
struct Positions {
    /// Where the partitions stand in Postgres.
    stored: BTreeMap<i32, i64>,
    /// Where their readers had stood before that was read.
    before: BTreeMap<i32, i64>,
}

/// Consumes one stage until it is stopped; what is in hand then is finished.
pub(super) async fn run(shared: &Arc<Shared>, stage: usize, stop: CancellationToken) {
    let parts = &shared.parts;
    let instance = Arc::clone(&parts.instance);
    let leases = Leases::new(parts.pool.clone(), instance, shared.leased(stage));
    let consumer = Consumer {
        shared: Arc::clone(shared),
        stage,
        leases: leases.clone(),
        places: Places::default(),
        workers: FuturesUnordered::new(),
        running: BTreeMap::new(),
        assigned: None,
        ended: Arc::default(),
    };
    leases.beside(Box::pin(consumer.work(stop))).await;
}

impl Consumer {
    async fn work(mut self, stop: CancellationToken) {
        let watch = Watch {
            shared: Arc::clone(&self.shared),
            stage: self.stage,
            leases: self.leases.clone(),
            places: Arc::clone(&self.places),
            ended: Arc::clone(&self.ended),
            opened: 0,
            backoff: Backoff::new(PAUSE, PAUSE_MAX),
        };
        let mut looking = Box::pin(watch.look());
        loop {
            // Readers are polled while a look waits for Postgres: they may have its connections.
            tokio::select! {
                () = stop.cancelled() => break,
                Some(partition) = self.workers.next(), if !self.workers.is_empty() => {
                    self.running.remove(&partition);
                    self.ended.notify_one();
                }
                (watch, seen) = &mut looking => {
                    match seen {
                        Ok(seen) => self.follow(&seen),
                        Err(error) => self.shared.report_error(&format!("Postgres: {error}")),
                    }
                    looking.set(watch.look());
                }
            }
        }
        self.running.values().for_each(CancellationToken::cancel);
        while self.workers.next().await.is_some() {}
    }

    /// Starts and ends readers as the leases say.
    fn follow(&mut self, seen: &Positions) {
        let in_hand = self.running.keys().copied().collect();
        let Some(assigned) = self.leases.assigned(&in_hand) else { return };
        let assigned: BTreeSet<i32> = assigned.into_keys().collect();
        for (partition, token) in &self.running {
            let place = seen.stored.get(partition).zip(seen.before.get(partition));
            // Its own place moved in Postgres before it did here: a lower one is a reset.
            let is_moved_back = place.is_some_and(|(stored, before)| stored < before);
            if !assigned.contains(partition) || is_moved_back {
                token.cancel();
            }
        }
        for partition in assigned.difference(&in_hand) {
            if let Some(place) = seen.stored.get(partition) {
                self.start(*partition, *place);
            }
        }
        lock(&self.places).retain(|partition, _| assigned.contains(partition));
        match &self.assigned {
            None => self.shared.report_assigned(self.stage, assigned.len()),
            Some(before) if *before != assigned => {
                self.shared.report_rebalance(self.stage, assigned.len());
            }
            Some(_) => {}
        }
        self.assigned = Some(assigned);
        self.shared.report_places(self.stage, &lock(&self.places));
    }

    fn start(&mut self, partition: i32, place: i64) {
        // A place of an earlier reader must not look as if it had been moved back from there.
        let start = PartitionStatus { next_offset: place, high_watermark: place, oldest: None };
        lock(&self.places).insert(partition, start);
        let token = CancellationToken::new();
        let worker = Worker {
            shared: Arc::clone(&self.shared),
            stage: self.stage,
            partition,
            places: Arc::clone(&self.places),
            stop: token.clone(),
        };
        self.running.insert(partition, token);
        self.workers.push(Box::pin(worker.run(place)));
    }
}

impl Watch {
    /// Waits until there may be something to see, and looks.
    async fn look(mut self) -> (Self, store::Result<Positions>) {
        // The first look makes the rows that there is something to lease for.
        if self.opened > 0 {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.leases.changed() => {}
                () = self.ended.notified() => {}
            }
        }
        let seen = store::bounded(store::SILENT, self.read()).await;
        match &seen {
            Ok(_) => self.backoff.reset(),
            Err(error) => {
                let role = self.shared.subscription(self.stage).projector;
                tracing::warn!(role, %error, "places not read");
                sleep(self.backoff.fail()).await;
            }
        }
        (self, seen)
    }

    async fn read(&mut self) -> store::Result<Positions> {
        let (shared, of) = (&self.shared, self.shared.subscription(self.stage));
        let partitions = shared.partitions(self.stage);
        if self.opened != partitions {
            let mut connection = store::acquire(&shared.parts.pool).await?;
            checkpoints::load(&mut connection, &of, partitions).await?;
            self.leases.set_partitions(partitions);
            self.opened = partitions;
        }
        let before = lock(&self.places).iter().map(|(n, place)| (*n, place.next_offset)).collect();
        let (pool, tenant) = (&shared.parts.pool, store::PIPELINE);
        let places = group_offsets::positions(pool, tenant, of.projector, &of.topic).await?;
        let stored = places.iter().map(|place| (place.partition, place.next_offset)).collect();
        Ok(Positions { stored, before })
    }
}

impl Shared {
    fn leased(&self, stage: usize) -> Leased {
        let Subscription { projector, topic } = self.subscription(stage);
        // Known to the leases with the first look.
        Leased { tenant: store::PIPELINE.to_owned(), role: projector, topic, partitions: 0 }
    }

    fn partitions(&self, stage: usize) -> i32 {
        self.stages.get(stage).map_or(0, |stage| stage.topic.partitions())
    }

    /// Whose places a stage's are.
    pub(super) fn subscription(&self, stage: usize) -> Subscription {
        let stage = self.stages.get(stage);
        Subscription {
            projector: stage.map_or("", |stage| stage.role),
            topic: stage.map(|stage| stage.topic.name.clone()).unwrap_or_default(),
        }
    }
}
