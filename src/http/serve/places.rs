//! How many connections may be open at once, and who goes when there is no room for another: as
//! with nginx, those that have waited for a request for longest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection::Pulse;

/// A client that is sent nothing for this long is not in the middle of anything: before, its
/// request may be on the way.
const RESTED: Duration = Duration::from_secs(1);
/// Who waits for a place looks so often whether a connection has rested by now.
const PAUSE: Duration = Duration::from_millis(50);
/// So many connections are closed at once, at most, and of those that may be closed one in eight.
const AT_ONCE: usize = 32;

pub(super) type Permit = OwnedSemaphorePermit;

/// The places of all connections.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Arc<Pulse>>>,
    next: AtomicU64,
    /// New connections that wait for a place.
    wanting: AtomicUsize,
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    _permit: Option<Permit>,
}

impl Places {
    pub fn new(most: usize) -> Arc<Self> {
        let shown = u32::try_from(most).unwrap_or(u32::MAX);
        metrics::gauge!("http_connections_max").set(f64::from(shown));
        metrics::gauge!("http_connections_open").set(0.0);
        Arc::new(Self {
            free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            open: Mutex::default(),
            next: AtomicU64::new(0),
            wanting: AtomicUsize::new(0),
        })
    }

    /// Waits for a permit for one more connection. Where none is left, an idle connection is closed to make
    /// room; where none is idle, the first that is answered. The semaphore is never closed.
    pub async fn permit(&self) -> Option<Permit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        let _wanting = Wanting::new(&self.wanting);
        loop {
            self.make_room();
            if let Ok(permit) = timeout(PAUSE, Arc::clone(&self.free).acquire_owned()).await {
                return permit.ok();
            }
        }
    }

    /// Whether a new connection waits for a place.
    pub fn are_wanted(&self) -> bool {
        self.wanting.load(Ordering::Relaxed) > 0
    }

    pub fn enter(self: &Arc<Self>, permit: Option<Permit>, pulse: &Arc<Pulse>) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, Arc::clone(pulse));
        metrics::gauge!("http_connections_open").increment(1.0);
        Place { places: Arc::clone(self), number, _permit: permit }
    }

    /// Asks those that have rested for longest to go.
    pub fn make_room(&self) {
        let mut rested: Vec<(Duration, Arc<Pulse>)> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let resting = open.values().filter_map(|pulse| Some((pulse.resting()?, pulse)));
            let rested = resting.filter(|(time, _)| *time >= RESTED);
            rested.map(|(time, pulse)| (time, Arc::clone(pulse))).collect()
        };
        let count = (rested.len() / 8).clamp(1, AT_ONCE);
        rested.sort_unstable_by_key(|(time, _)| std::cmp::Reverse(*time));
        rested.iter().take(count).for_each(|(_, pulse)| pulse.ask_to_go());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.number);
        metrics::gauge!("http_connections_open").decrement(1.0);
    }
}

/// Counts a connection that waits, until it is dropped.
struct Wanting<'a>(&'a AtomicUsize);

impl<'a> Wanting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
