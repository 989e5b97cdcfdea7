//! All projectors of an instance: together where they can be, each by itself where one of them has to be.
//!
//! | they work | while |
//! |---|---|
//! | together | all stand near each other and well: one reader, one transaction for the effects and places of all |
//! | each by itself | one fails, has wallets to release, is rebuilt or mended, was set back, or is far behind the others |
//!
//! Together is only the shorter way. Whatever does not go smoothly ends it, before anything of it is committed,
//! and is then met by each projection for itself: no error, lock or poison of one projection is another's for longer
//! than one attempt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::member::Member;
use super::places::Place;
use super::{Projector, Wiring};
use crate::background::leases::Leases;
use crate::backoff::Backoff;

/// Projections are near each other up to this many records and this many transactions: what the one that is ahead
/// has to read again.
const NEAR_RECORDS: u64 = 10_000;
const NEAR_TRANSACTIONS: u64 = 10_000;
/// For so long each works by itself at least, doubled while they do not stay together.
const APART_FIRST: Duration = Duration::from_secs(1);
const APART_MAX: Duration = Duration::from_secs(30);

/// The projectors of one instance.
pub struct Projectors {
    each: Vec<Projector>,
    meeting: Arc<Meeting>,
}

/// Where projectors that work by themselves say where they stand.
#[derive(Debug, Default)]
pub(super) struct Meeting(Mutex<Seats>);

#[derive(Debug, Default)]
struct Seats {
    /// None: it has to go on by itself.
    stands: Vec<Option<BTreeMap<i32, Place>>>,
    /// Not before this moment.
    opens: Option<Instant>,
    /// Cancelled once all can work together.
    met: CancellationToken,
}

/// One projector's.
pub(super) struct Seat {
    meeting: Arc<Meeting>,
    number: usize,
}

impl Projectors {
    /// In the order of the list of projections, in every instance.
    pub fn new(wirings: impl IntoIterator<Item = Wiring>) -> Self {
        let mut each: Vec<Projector> = wirings.into_iter().map(Projector::new).collect();
        let meeting = Arc::new(Meeting::default());
        for (number, projector) in each.iter_mut().enumerate() {
            projector.seat = Some(Seat { meeting: Arc::clone(&meeting), number });
        }
        meeting.lock().stands = each.iter().map(|_| None).collect();
        Self { each, meeting }
    }

    /// Works until it is stopped; a transaction that runs by then is finished.
    pub async fn run(mut self, token: CancellationToken) {
        let leases = self.members().map(|member| member.leases.clone()).collect();
        self.members().for_each(|member| member.report_running(true));
        leased(leases, Box::pin(self.work(&token))).await;
        self.members().for_each(|member| member.report_running(false));
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.each.iter().flat_map(|projector| &projector.members)
    }

    async fn work(&mut self, token: &CancellationToken) {
        let mut pause = Backoff::new(APART_FIRST, APART_MAX);
        while !token.is_cancelled() {
            self.apart(token).await;
            if token.is_cancelled() {
                break;
            }
            let begun = Instant::now();
            self.together(token).await;
            if begun.elapsed() > APART_MAX {
                pause.reset();
            }
            self.meeting.adjourn(pause.fail());
        }
    }

    /// Each by itself, until they can work together.
    async fn apart(&mut self, token: &CancellationToken) {
        let met = token.child_token();
        self.meeting.open(met.clone());
        join_all(self.each.iter_mut().map(|projector| Box::pin(projector.work(&met)))).await;
    }

    /// One for all, until one of them has to work by itself.
    async fn together(&mut self, token: &CancellationToken) {
        let Some(wiring) = self.each.first().map(|projector| projector.wiring.clone()) else {
            return;
        };
        tracing::debug!("projecting together");
        let members = self.each.iter_mut().flat_map(|projector| projector.members.drain(..));
        let members: Vec<Member> = members.collect();
        let mut joint = Projector::of(wiring, members);
        joint.work(token).await;
        tracing::debug!("projecting each by itself");
        for (projector, member) in self.each.iter_mut().zip(joint.members) {
            projector.members.push(member);
            // What makes it work by itself is looked at first.
            projector.maintenance_due = Instant::now();
        }
    }
}

impl Projector {
    /// Says where it stands, should the others be near.
    pub(super) fn sit(&self) {
        if let (Some(seat), [member]) = (&self.seat, &self.members[..]) {
            seat.meeting.sit(seat.number, member.may_meet().then(|| member.stand()));
        }
    }

    /// It has to go on by itself.
    pub(super) fn rise(&self) {
        if let Some(seat) = &self.seat {
            seat.meeting.sit(seat.number, None);
        }
    }
}

impl Meeting {
    fn open(&self, met: CancellationToken) {
        let mut seats = self.lock();
        seats.met = met;
        seats.stands.iter_mut().for_each(|stand| *stand = None);
    }

    fn adjourn(&self, pause: Duration) {
        self.lock().opens = Some(Instant::now() + pause);
    }

    fn sit(&self, number: usize, stand: Option<BTreeMap<i32, Place>>) {
        let mut seats = self.lock();
        if let Some(seat) = seats.stands.get_mut(number) {
            *seat = stand;
        }
        let is_open = seats.opens.is_none_or(|at| Instant::now() >= at);
        let all: Option<Vec<_>> = seats.stands.iter().cloned().collect();
        if is_open && all.is_some_and(|all| all.len() > 1 && are_near(&all)) {
            seats.met.cancel();
        }
    }

    // No code that could panic runs while it is locked.
    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs work beside the renewals of leases, and gives all of them up once it has ended.
pub(super) async fn leased(leases: Vec<Leases>, work: BoxFuture<'_, ()>) {
    let mut work = work;
    for leases in leases {
        work = Box::pin(async move { leases.beside(work).await });
    }
    work.await;
}

/// Whether the places of all are near each other in each partition.
pub(super) fn are_near(stands: &[BTreeMap<i32, Place>]) -> bool {
    let near = |of: &[Option<i64>], most| {
        let (least, greatest) = (of.iter().flatten().min(), of.iter().flatten().max());
        least.zip(greatest).is_none_or(|(least, greatest)| least.abs_diff(*greatest) <= most)
    };
    stands.iter().flat_map(BTreeMap::keys).all(|partition| {
        let places: Vec<&Place> = stands.iter().filter_map(|stand| stand.get(partition)).collect();
        let offsets: Vec<_> = places.iter().map(|place| place.next_offset).collect();
        let transactions: Vec<_> = places.iter().map(|place| place.feed_xid).collect();
        near(&offsets, NEAR_RECORDS) && near(&transactions, NEAR_TRANSACTIONS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand(next_offset: i64, feed_xid: i64) -> BTreeMap<i32, Place> {
        BTreeMap::from([(3, Place { next_offset: Some(next_offset), feed_xid: Some(feed_xid) })])
    }

    #[test]
    fn they_meet_where_all_are_well_and_near_and_not_before_the_pause_is_over() {
        let meeting = Meeting::default();
        meeting.lock().stands = vec![None, None];
        let met = CancellationToken::new();
        meeting.open(met.clone());
        meeting.sit(0, Some(stand(5, 100)));
        assert!(!met.is_cancelled(), "the other one has not come");
        meeting.sit(1, Some(stand(50_000, 100)));
        assert!(!met.is_cancelled(), "it is far ahead");
        meeting.sit(1, Some(stand(9_000, 100_000)));
        assert!(!met.is_cancelled(), "it is far ahead in the feed from Postgres");
        meeting.sit(0, None);
        meeting.sit(1, Some(stand(6, 110)));
        assert!(!met.is_cancelled(), "the first one fails");
        meeting.adjourn(Duration::from_secs(60));
        meeting.sit(0, Some(stand(5, 100)));
        assert!(!met.is_cancelled(), "they have parted a moment ago");
        meeting.adjourn(Duration::ZERO);
        meeting.sit(0, Some(stand(5, 100)));
        assert!(met.is_cancelled());
    }

    #[test]
    fn only_partitions_that_both_have_are_compared() {
        let other = BTreeMap::from([(4, Place { next_offset: Some(0), feed_xid: Some(0) })]);
        assert!(are_near(&[stand(1_000_000, 1_000_000), other]));
        assert!(are_near(&[BTreeMap::new(), BTreeMap::new()]));
    }
}
