//! One role's share of a topic's partitions, among the instances over one database.
//!
//! | what | when |
//! |---|---|
//! | renew, take what is free up to the share | every 3/10 of the lease, and as soon as an instance comes or goes |
//! | give up what is above the share | once the worker has it no longer in hand |
//! | give up everything | when the worker has ended |
//!
//! Renewals run beside the work ([`Leases::beside`]), in the same task: a long round does not let
//! leases run out. The worker asks what is [`assigned`](Leases::assigned) to it before each round.
//! Whether a lease still stands by the own clock is asked where a stale owner could do harm that no
//! epoch fences off ([`Leases::stands`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::instance::Instance;
use crate::store::leases::{self, Lease, LeaseState, Leased, Member};
use crate::store::{self, Pool};

/// Everything is given up within this time; where Postgres is slow to take that, it runs out.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// Between two attempts to renew: several fit into the shortest lease.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The leases of one role. A clone is the same leases, with a wait of its own for changes.
#[derive(Debug, Clone)]
pub struct Leases {
    shared: Arc<Shared>,
    changes: watch::Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    instance: Arc<Instance>,
    state: Mutex<State>,
    /// Held during a renewal: a worker that has to know now does not send a second one.
    renewing: tokio::sync::Mutex<()>,
    /// Fired where the next renewal became due earlier.
    hurried: Notify,
    changed: watch::Sender<()>,
}

/// What is known of the leases, pure but for the time that is passed in.
#[derive(Debug)]
struct State {
    leased: Leased,
    lease: Duration,
    /// The table has rows for so many partitions.
    opened: i32,
    due: Instant,
    until: Instant,
    /// As of the last renewal, without the surplus; none before the first.
    assigned: Option<BTreeMap<i32, Lease>>,
    /// Above the share, and renewed all the same until the worker has it no longer in hand.
    surplus: BTreeSet<i32>,
    /// Of the surplus, what the worker is done with.
    finished: BTreeSet<i32>,
}

/// One renewal as it is sent.
#[derive(Debug)]
struct Renewal {
    leased: Leased,
    /// The rows of the partitions may be missing.
    opens: bool,
    /// Given up before the rest is renewed.
    released: Vec<i32>,
    sent: Instant,
}

impl Leases {
    /// Nothing is leased before [`beside`](Self::beside) or [`renew`](Self::renew), nor while
    /// `leased` has no partitions: then their number is not known yet.
    pub fn new(pool: Pool, instance: Arc<Instance>, leased: Leased) -> Self {
        let state = State::new(leased, instance.lease(), Instant::now());
        let (changed, changes) = watch::channel(());
        let shared = Shared {
            pool,
            instance,
            state: Mutex::new(state),
            renewing: tokio::sync::Mutex::default(),
            hurried: Notify::new(),
            changed,
        };
        Self { shared: Arc::new(shared), changes }
    }

    /// Runs `work` beside the renewals, and gives everything up once it has ended.
    pub async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let ended = CancellationToken::new();
        let working = async {
            let value = work.await;
            ended.cancel();
            value
        };
        let leasing = async {
            self.renew_until(&ended).await;
            self.leave().await
        };
        let late = async {
            ended.cancelled().await;
            sleep(LEAVE_MAX).await;
        };
        let leasing = async {
            tokio::select! {
                left = leasing => if let Err(error) = left {
                    tracing::warn!(role = self.role(), %error, "leases not given up: they run out");
                },
                () = late => {
                    tracing::warn!(role = self.role(), "leases not given up in time: they run out");
                }
            }
        };
        join(working, leasing).await.0
    }

    /// What this instance works on from now on; none before the first renewal. Of what is to be given
    /// up, all goes to other instances that the worker does not have `in_hand`.
    pub fn assigned(&self, in_hand: &BTreeSet<i32>) -> Option<BTreeMap<i32, Lease>> {
        let mut state = self.shared.state();
        if state.finish(in_hand, Instant::now()) {
            self.shared.hurried.notify_one();
        }
        state.assigned.clone()
    }

    /// Waits until something else is assigned. May be dropped at any time.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // Only without the leases themselves, which this is a clone of.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the leases stand by the own clock: after that, other instances may have them.
    pub fn stands(&self, now: Instant) -> bool {
        now < self.until()
    }

    /// Until when they do.
    pub fn until(&self) -> Instant {
        self.shared.state().until
    }

    /// Renews at once: something showed that the leases are not what they were.
    pub fn renew_now(&self) {
        self.shared.state().due = Instant::now();
        self.shared.hurried.notify_one();
    }

    /// Sets how many partitions the topic has, once that is known and whenever it grows.
    pub fn set_partitions(&self, partitions: i32) {
        let mut state = self.shared.state();
        if state.leased.partitions != partitions {
            state.leased.partitions = partitions;
            state.due = Instant::now();
            self.shared.hurried.notify_one();
        }
    }

    /// Renews if that is due: for a worker that has to know what is assigned before it goes on.
    pub async fn renew(&self) -> store::Result<()> {
        let _alone = self.shared.renewing.lock().await;
        let Some(renewal) = self.shared.state().renewal(Instant::now()) else { return Ok(()) };
        let member = self.shared.instance.member();
        let sending = Box::pin(send(&self.shared.pool, &renewal, &member));
        let lease_state = store::bounded(store::SILENT, sending).await?;
        self.shared.instance.note(&lease_state);
        let others = lease_state.others;
        let mut state = self.shared.state();
        let before = state.assigned.as_ref().map_or(0, BTreeMap::len);
        if state.renewed(renewal, lease_state) {
            let partitions = state.assigned.as_ref().map_or(0, BTreeMap::len);
            let role = state.leased.role;
            tracing::debug!(role, before, partitions, others, "assigned");
            self.shared.changed.send_replace(());
        }
        Ok(())
    }

    async fn renew_until(&self, ended: &CancellationToken) {
        let mut moved = self.shared.instance.changes();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while !ended.is_cancelled() {
            tokio::select! {
                () = ended.cancelled() => return,
                () = self.shared.due() => {}
                Ok(()) = moved.changed() => self.renew_now(),
            }
            let Err(error) = self.renew().await else {
                backoff.reset();
                continue;
            };
            let pause = backoff.fail();
            if backoff.failures() == 1 {
                tracing::warn!(role = self.role(), %error, "leases not renewed");
            } else {
                tracing::debug!(role = self.role(), %error, "leases not renewed");
            }
            let _ = ended.run_until_cancelled(sleep(pause)).await;
        }
    }

    async fn leave(&self) -> store::Result<()> {
        let (opened, leased) = {
            let state = self.shared.state();
            (state.opened, state.leased.clone())
        };
        if opened == 0 {
            return Ok(());
        }
        let mut connection = store::acquire(&self.shared.pool).await?;
        leases::leave(&mut connection, &leased, self.shared.instance.owner()).await
    }

    fn role(&self) -> &'static str {
        self.shared.state().leased.role
    }
}

/// One that failed half way is sent again as a whole: each of its statements may be repeated.
async fn send(pool: &Pool, renewal: &Renewal, member: &Member) -> store::Result<LeaseState> {
    let mut connection = store::acquire(pool).await?;
    if renewal.opens {
        leases::open(&mut connection, &renewal.leased).await?;
    }
    if !renewal.released.is_empty() {
        leases::release(&mut connection, &renewal.leased, &member.owner, &renewal.released).await?;
    }
    leases::renew(&mut connection, &renewal.leased, member).await
}

impl Shared {
    // No code that could panic runs while it is locked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the next renewal is due. May be dropped at any time.
    async fn due(&self) {
        loop {
            let due = self.state().due();
            tokio::select! {
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => return,
                () = self.hurried.notified() => {}
            }
        }
    }
}

impl State {
    fn new(leased: Leased, lease: Duration, now: Instant) -> Self {
        Self {
            leased,
            lease,
            opened: 0,
            due: now,
            until: now,
            assigned: None,
            surplus: BTreeSet::new(),
            finished: BTreeSet::new(),
        }
    }

    /// None: there is nothing to lease yet.
    fn due(&self) -> Option<Instant> {
        (self.leased.partitions > 0).then_some(self.due)
    }

    /// What to send now; none before it is due.
    fn renewal(&self, now: Instant) -> Option<Renewal> {
        self.due().filter(|due| *due <= now)?;
        Some(Renewal {
            opens: self.opened != self.leased.partitions,
            leased: self.leased.clone(),
            released: self.finished.iter().copied().collect(),
            sent: now,
        })
    }

    /// Takes in what a renewal found; whether something else is assigned now.
    fn renewed(&mut self, renewal: Renewal, lease_state: LeaseState) -> bool {
        self.opened = renewal.leased.partitions;
        // The database's clock read the statement later than it was sent.
        self.until = renewal.sent + self.lease;
        if self.due <= renewal.sent {
            self.due = renewal.sent + self.lease * 3 / 10;
        }
        let mut leases = lease_state.leases;
        let above = leases.split_off(lease_state.share.min(leases.len()));
        self.surplus = above.iter().map(|lease| lease.partition).collect();
        self.finished.retain(|partition| self.surplus.contains(partition));
        let epochs = |of: &BTreeMap<i32, Lease>| -> BTreeMap<i32, i64> {
            of.iter().map(|(partition, lease)| (*partition, lease.epoch)).collect()
        };
        let assigned = leases.into_iter().map(|lease| (lease.partition, lease)).collect();
        let is_news = self.assigned.as_ref().map(epochs) != Some(epochs(&assigned));
        self.assigned = Some(assigned);
        is_news || self.surplus.len() > self.finished.len()
    }

    /// Notes what of the surplus the worker does not have in hand; whether that is worth a renewal.
    fn finish(&mut self, in_hand: &BTreeSet<i32>, now: Instant) -> bool {
        let finished: BTreeSet<i32> = self.surplus.difference(in_hand).copied().collect();
        let is_more = finished.len() > self.finished.len();
        if is_more {
            self.due = now;
        }
        self.finished = finished;
        is_more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn state(now: Instant, partitions: i32) -> State {
        let (tenant, topic) = ("default".to_owned(), "events".to_owned());
        State::new(Leased { tenant, role: "test", topic, partitions }, LEASE, now)
    }

    fn lease_state(share: usize, partitions: impl IntoIterator<Item = (i32, i64)>) -> LeaseState {
        let lease = |(partition, epoch)| Lease { partition, epoch, last_offset: None };
        let leases = partitions.into_iter().map(lease).collect();
        LeaseState { others: u32::from(share < 4), share, leases }
    }

    fn assigned(state: &State) -> Vec<i32> {
        state.assigned.iter().flatten().map(|(partition, _)| *partition).collect()
    }

    #[test]
    fn nothing_is_sent_before_it_is_due_or_before_there_are_partitions() {
        let now = Instant::now();
        assert!(state(now, 0).renewal(now).is_none());
        let mut state = state(now, 4);
        let first = state.renewal(now).unwrap();
        assert!(first.opens);
        assert!(state.renewed(first, lease_state(4, (0..4).map(|n| (n, 1)))));
        assert_eq!(assigned(&state), [0, 1, 2, 3]);
        assert_eq!(state.until, now + LEASE, "counted from the sending");
        assert!(state.renewal(now + Duration::from_millis(2999)).is_none());
        let next = state.renewal(now + Duration::from_secs(3)).unwrap();
        assert!(!next.opens);
        assert!(!state.renewed(next, lease_state(4, (0..4).map(|n| (n, 1)))), "nothing is new");
    }

    #[test]
    fn a_renewal_that_was_asked_for_while_one_was_on_its_way_follows_it() {
        let now = Instant::now();
        let mut state = state(now, 4);
        let first = state.renewal(now).unwrap();
        state.due = now + Duration::from_millis(1);
        state.renewed(first, lease_state(4, [(0, 1)]));
        assert!(state.renewal(now + Duration::from_millis(1)).is_some());
    }

    #[test]
    fn what_is_above_the_share_goes_once_it_is_not_in_hand() {
        let now = Instant::now();
        let mut state = state(now, 4);
        let all = || lease_state(2, (0..4).map(|n| (n, 1)));
        let renewal = state.renewal(now).unwrap();
        assert!(state.renewed(renewal, all()));
        assert_eq!(assigned(&state), [0, 1]);
        assert!(state.finish(&BTreeSet::from([3]), now));
        let renewal = state.renewal(now).unwrap();
        assert_eq!(renewal.released, [2]);
        // It failed: the next one says the same.
        assert_eq!(state.renewal(now).unwrap().released, [2]);
        assert!(state.renewed(renewal, lease_state(2, [(0, 1), (1, 1), (3, 1)])));
        assert!(state.renewal(now).is_none());
        assert!(!state.finish(&BTreeSet::from([3]), now), "still in hand");
        assert!(state.finish(&BTreeSet::new(), now));
        assert_eq!(state.renewal(now).unwrap().released, [3]);
    }

    #[test]
    fn a_partition_that_was_lost_and_taken_again_is_news() {
        let now = Instant::now();
        let mut state = state(now, 4);
        let renewal = state.renewal(now).unwrap();
        state.renewed(renewal, lease_state(4, [(0, 1)]));
        state.due = now;
        let renewal = state.renewal(now).unwrap();
        assert!(state.renewed(renewal, lease_state(4, [(0, 3)])));
    }
}
