//! One stage's partitions: which of them this instance has, and a reader at work on each. Starts and
//! ends readers; knows nothing of commands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::partition::Worker;
use crate::instance::Term;
use crate::status::PartitionStatus;
use crate::store::checkpoints::{self, Subscription};
use crate::store::leases::{self, Leased, Standing};
use crate::store::{self, group_offsets};

/// At the end the partitions are given up; where Postgres is slow to take that, they run out.
const LEAVE: Duration = Duration::from_secs(2);
/// After a renewal that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Where each reader stands.
pub(super) type Places = Arc<Mutex<BTreeMap<i32, PartitionStatus>>>;

/// A panic cannot leave the map half changed.
pub(super) fn lock(places: &Places) -> MutexGuard<'_, BTreeMap<i32, PartitionStatus>> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Consumer {
    shared: Arc<Shared>,
    stage: usize,
    places: Places,
    workers: FuturesUnordered<BoxFuture<'static, i32>>,
    /// What ends each of them.
    running: BTreeMap<i32, CancellationToken>,
    /// Above the share, and its reader has ended: to be given up with the next renewal.
    surplus: BTreeSet<i32>,
    /// As of the last renewal; none before the first.
    assigned: Option<BTreeSet<i32>>,
    /// Ends the wait for the next renewal.
    hurry: Arc<Notify>,
}

/// The leases' own state: it travels through each renewal.
struct Leasing {
    term: Term,
    /// For how many partitions the rows are there.
    opened: i32,
}

/// What a renewal found.
struct Renewed {
    standing: Standing,
    /// Where the partitions stand in Postgres.
    stored: BTreeMap<i32, i64>,
    /// Where their readers had stood before that was read.
    before: BTreeMap<i32, i64>,
}

type Renewal = BoxFuture<'static, (Leasing, store::Result<Renewed>)>;

/// Consumes one stage until told to stop; what is in hand then is finished.
pub(super) async fn run(shared: &Arc<Shared>, stage: usize, stop: CancellationToken) {
    let mut consumer = Consumer {
        shared: Arc::clone(shared),
        stage,
        places: Places::default(),
        workers: FuturesUnordered::new(),
        running: BTreeMap::new(),
        surplus: BTreeSet::new(),
        assigned: None,
        hurry: Arc::default(),
    };
    let term = shared.parts.instance.term();
    let mut renewal = consumer.renewal(Leasing { term, opened: 0 });
    loop {
        // Readers are polled while a renewal waits for Postgres: they may have its connections.
        tokio::select! {
            () = stop.cancelled() => break,
            Some(partition) = consumer.workers.next(), if !consumer.workers.is_empty() => {
                consumer.running.remove(&partition);
                consumer.hurry.notify_one();
            }
            (leasing, renewed) = &mut renewal => {
                match renewed {
                    Ok(renewed) => consumer.follow(renewed),
                    Err(error) => {
                        tracing::warn!(role = consumer.role(), %error, "leases not renewed");
                        consumer.shared.report_error(&format!("Postgres: {error}"));
                    }
                }
                renewal = consumer.renewal(leasing);
            }
        }
    }
    drop(renewal);
    consumer.running.values().for_each(CancellationToken::cancel);
    while consumer.workers.next().await.is_some() {}
    drop(consumer);
    leave(shared, stage).await;
}

impl Consumer {
    fn role(&self) -> &'static str {
        self.shared.stages.get(self.stage).map_or("", |stage| stage.role)
    }

    /// Waits until the leases are due, gives up what is to be given up, and renews the rest.
    fn renewal(&self, mut leasing: Leasing) -> Renewal {
        let (shared, stage) = (Arc::clone(&self.shared), self.stage);
        let (hurry, places) = (Arc::clone(&self.hurry), Arc::clone(&self.places));
        let surplus: Vec<i32> = self.surplus.iter().copied().collect();
        Box::pin(async move {
            tokio::select! {
                () = sleep_until(leasing.term.due()) => {}
                () = leasing.term.moved() => {}
                () = hurry.notified() => {}
            }
            let begun = Instant::now();
            let before = lock(&places).iter().map(|(n, place)| (*n, place.next_offset)).collect();
            let renewing = renew(&shared, stage, leasing.opened, &surplus, before);
            let renewed = store::bounded(store::SILENT, renewing).await;
            match &renewed {
                Ok((_, opened)) => {
                    leasing.opened = *opened;
                    leasing.term.renewed(begun);
                }
                Err(_) => {
                    sleep(PAUSE).await;
                    leasing.term.hurry();
                }
            }
            (leasing, renewed.map(|(renewed, _)| renewed))
        })
    }

    /// Starts and ends readers as the leases say.
    fn follow(&mut self, renewed: Renewed) {
        let Renewed { standing, stored, before } = renewed;
        self.shared.parts.instance.note(&standing);
        let mut held: Vec<i32> = standing.leases.iter().map(|lease| lease.partition).collect();
        let above = held.split_off(standing.share.min(held.len()));
        self.surplus = above.into_iter().filter(|n| !self.running.contains_key(n)).collect();
        let held: BTreeSet<i32> = held.into_iter().collect();
        for (partition, token) in &self.running {
            let place = stored.get(partition).zip(before.get(partition));
            // Its own place moved in Postgres before it did here: a lower one is a reset.
            let is_moved_back = place.is_some_and(|(stored, before)| stored < before);
            if !held.contains(partition) || is_moved_back {
                token.cancel();
            }
        }
        let idle: Vec<i32> =
            held.iter().copied().filter(|n| !self.running.contains_key(n)).collect();
        for partition in idle {
            let Some(place) = stored.get(&partition) else { continue };
            // A place of an earlier reader must not look as if it had been moved back from there.
            let start =
                PartitionStatus { next_offset: *place, high_watermark: *place, oldest: None };
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
            self.workers.push(Box::pin(worker.run(*place)));
        }
        lock(&self.places).retain(|partition, _| held.contains(partition));
        if !self.surplus.is_empty() {
            self.hurry.notify_one();
        }
        match &self.assigned {
            None => self.shared.report_assigned(self.stage, held.len()),
            Some(before) if *before != held => {
                self.shared.report_rebalance(self.stage, held.len());
            }
            Some(_) => {}
        }
        self.assigned = Some(held);
        self.shared.report_places(self.stage, &lock(&self.places));
    }
}

/// Tells the others that this instance stops.
async fn leave(shared: &Shared, stage: usize) {
    let leased = shared.leased(stage);
    let leaving = async {
        let mut connection = store::acquire(&shared.parts.pool).await?;
        leases::leave(&mut connection, &leased, shared.parts.instance.owner()).await
    };
    if !matches!(timeout(LEAVE, leaving).await, Ok(Ok(()))) {
        tracing::warn!(role = leased.role, "leases not given up: they run out");
    }
}

/// One renewal, and for how many partitions the rows are there by now.
async fn renew(
    shared: &Shared,
    stage: usize,
    opened: i32,
    surplus: &[i32],
    before: BTreeMap<i32, i64>,
) -> store::Result<(Renewed, i32)> {
    let (leased, of) = (shared.leased(stage), shared.subscription(stage));
    let instance = &shared.parts.instance;
    let mut connection = store::acquire(&shared.parts.pool).await?;
    if opened != leased.partitions {
        leases::open(&mut connection, &leased).await?;
        checkpoints::load(&mut connection, &of, leased.partitions).await?;
    }
    if !surplus.is_empty() {
        leases::release(&mut connection, &leased, instance.owner(), surplus).await?;
    }
    let standing = leases::renew(&mut connection, &leased, &instance.member()).await?;
    drop(connection);
    let (pool, tenant) = (&shared.parts.pool, &leased.tenant);
    let places = group_offsets::positions(pool, tenant, of.projector, &of.topic).await?;
    let stored = places.iter().map(|place| (place.partition, place.next_offset)).collect();
    Ok((Renewed { standing, stored, before }, leased.partitions))
}

impl Shared {
    fn leased(&self, stage: usize) -> Leased {
        let Subscription { tenant, projector, topic } = self.subscription(stage);
        let partitions = self.stages.get(stage).map_or(0, |stage| stage.topic.partitions());
        Leased { tenant: tenant.as_str().to_owned(), role: projector, topic, partitions }
    }

    /// Whose places a stage's are.
    pub(super) fn subscription(&self, stage: usize) -> Subscription {
        let stage = self.stages.get(stage);
        Subscription {
            tenant: self.parts.tenant.clone(),
            projector: stage.map_or("", |stage| stage.role),
            topic: stage.map(|stage| stage.topic.name.clone()).unwrap_or_default(),
        }
    }
}
