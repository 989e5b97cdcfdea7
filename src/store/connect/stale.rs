//! When a session last turned out to be stale. Those that were opened before then most likely are so,
//! too, and are not kept.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

static STALE_SEEN_AT: Mutex<Option<Instant>> = Mutex::new(None);

/// A session was stale just now.
pub(in super::super) fn note() {
    *STALE_SEEN_AT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// Whether a session of this age is to be suspected.
pub(super) fn is_suspect(age: Duration) -> bool {
    let last = *STALE_SEEN_AT.lock().unwrap_or_else(PoisonError::into_inner);
    last.is_some_and(|last| last.elapsed() < age)
}
