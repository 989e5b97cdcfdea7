//! The events that this instance committed a moment ago, so that its projectors need not read them
//! again.
//!
//! A shorter way to what `events` says, and no promise: events are inserted after COMMIT, the oldest
//! goes first, and a projector that misses reads from Postgres.
//!
//! An event counts on the server that committed it. A standby that was promoted may lack the last
//! commits of the server before, so the cache holds events of one server only, known by the time at
//! which its postmaster began; the first event of another one empties it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::wallet::Event;

/// A second of a busy service.
const EVENTS_MAX: usize = 10_000;
/// An event with more than this from its caller is read again: what is kept stays below some 20 MB.
const CALLER_BYTES_MAX: usize = 1024;

/// Shared by the lanes, which insert, and the projectors, which get. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct EventCache(Arc<Mutex<Cached>>);

#[derive(Debug, Default)]
struct Cached {
    /// The server that committed them, as [`crate::store::commands::BatchStart`] has it.
    server: Option<i64>,
    events: HashMap<Uuid, Event>,
    order: VecDeque<Uuid>,
}

impl EventCache {
    /// Inserts events that `server` has committed, but those that are large.
    pub fn insert(&self, server: i64, events: impl IntoIterator<Item = Event>) {
        let mut kept = self.lock();
        if kept.server != Some(server) {
            *kept = Cached { server: Some(server), ..Cached::default() };
        }
        let small = |event: &Event| event.body.caller_bytes() <= CALLER_BYTES_MAX;
        for event in events.into_iter().filter(small) {
            kept.order.push_back(event.event_id);
            kept.events.insert(event.event_id, event);
            if kept.order.len() > EVENTS_MAX
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.events.remove(&oldest);
            }
        }
    }

    /// For each (event id, partition) the event, where it is kept; and the server that has them all.
    pub fn get(
        &self,
        named: impl Iterator<Item = (Uuid, i32)>,
    ) -> (Option<i64>, Vec<Option<Event>>) {
        let kept = self.lock();
        let of = |(id, partition): (Uuid, i32)| {
            let event = kept.events.get(&id)?;
            (event.partition == partition).then(|| event.clone())
        };
        (kept.server, named.map(of).collect())
    }

    /// Empties the cache: its events are of another server than the one in use.
    pub fn forget(&self) {
        *self.lock() = Cached::default();
    }

    // A panic while the lock was held leaves whole events behind.
    fn lock(&self) -> MutexGuard<'_, Cached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;
    use crate::wallet::{EventBody, TenantId, WalletId};

    fn event(number: u128) -> Event {
        event_of(number, "")
    }

    /// In partition 3.
    fn event_of(number: u128, reason: &str) -> Event {
        let change = json!({
            "transactionId": Uuid::nil(), "previousBalance": "0.00", "newBalance": "1.00",
            "changeAmount": "1.00", "changeType": "CREDIT", "currency": "USD", "reason": reason,
        });
        Event {
            tenant: TenantId::default_tenant(),
            wallet_id: WalletId::stored("w"),
            version: 1,
            event_id: Uuid::from_u128(number),
            transaction_id: Uuid::nil(),
            partition: 3,
            created_at: DateTime::default(),
            origin: Arc::default(),
            body: EventBody::from_data("WalletCredited", 1, &change.to_string()).unwrap(),
        }
    }

    #[test]
    fn what_is_kept_is_found_in_its_partition_and_the_oldest_goes_first() {
        let cache = EventCache::default();
        cache.insert(1, [event(1), event(2)]);
        let found = |id: u128, partition| {
            cache.get([(Uuid::from_u128(id), partition)].into_iter()).1.remove(0)
        };
        assert_eq!(found(1, 3).map(|event| event.event_id), Some(Uuid::from_u128(1)));
        assert!(found(1, 4).is_none(), "a record of another partition names another event");
        assert!(found(9, 3).is_none());
        let many = u128::try_from(EVENTS_MAX).unwrap();
        cache.insert(1, (3..many + 2).map(event));
        assert!(found(1, 3).is_none());
        assert!(found(2, 3).is_some());
        assert_eq!(cache.lock().events.len(), EVENTS_MAX);
    }

    #[test]
    fn what_callers_made_large_is_not_kept() {
        let cache = EventCache::default();
        let large = "x".repeat(CALLER_BYTES_MAX + 1);
        cache.insert(1, [event_of(1, &large), event_of(2, &large[1..])]);
        let (_, found) = cache.get([1, 2].map(|id| (Uuid::from_u128(id), 3)).into_iter());
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn what_another_server_committed_is_given_up() {
        let cache = EventCache::default();
        let found = |id: u128| {
            let (server, found) = cache.get([(Uuid::from_u128(id), 3)].into_iter());
            (server, found[0].is_some())
        };
        cache.insert(1, [event(1)]);
        assert_eq!(found(1), (Some(1), true));
        cache.insert(2, [event(2)]);
        assert_eq!((found(1), found(2)), ((Some(2), false), (Some(2), true)));
        cache.forget();
        assert_eq!(found(2), (None, false));
    }
}
