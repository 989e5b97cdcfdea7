//! This process among several over one database: its name, whether others live, and the terms of
//! its leases by its own clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::store::leases::{Member, Standing};

/// Shared by publisher, projectors and whoever speaks with other instances.
#[derive(Debug)]
pub struct Instance {
    owner: String,
    /// Random: the key of the advisory lock that shows that this process lives.
    key: i64,
    lease: Duration,
    /// The listening session is there, and holds the lock.
    listening: AtomicBool,
    accompanied: AtomicBool,
    changes: watch::Sender<()>,
}

/// Until when one role's leases stand, and when they are to be renewed.
#[derive(Debug)]
pub struct Term {
    lease: Duration,
    due: Instant,
    until: Instant,
    changes: watch::Receiver<()>,
}

impl Instance {
    /// `lease`: for how long the others wait for this one when it falls silent.
    pub fn new(lease: Duration) -> Self {
        let id = Uuid::now_v7();
        Self {
            owner: id.to_string(),
            key: i64::from_be_bytes(id.as_u64_pair().1.to_be_bytes()),
            lease,
            listening: AtomicBool::new(false),
            accompanied: AtomicBool::new(false),
            changes: watch::Sender::new(()),
        }
    }

    pub fn owner(&self) -> &str {
        &self.owner
    }

    pub fn key(&self) -> i64 {
        self.key
    }

    /// As the others are to see it now.
    pub fn member(&self) -> Member {
        let listening = self.listening.load(Ordering::Relaxed);
        Member {
            owner: self.owner.clone(),
            session: listening.then_some(self.key),
            lease: self.lease,
        }
    }

    /// Whether the listening session is there.
    pub fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Ordering::Relaxed);
    }

    /// Whether other instances were alive at the last renewal.
    pub fn is_accompanied(&self) -> bool {
        self.accompanied.load(Ordering::Relaxed)
    }

    /// Leases have moved somewhere: every role looks at once.
    pub fn announce(&self) {
        self.changes.send_replace(());
    }

    /// For how long the others wait for this one when it falls silent.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Fires when leases have moved somewhere.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub fn term(&self) -> Term {
        let now = Instant::now();
        Term { lease: self.lease, due: now, until: now, changes: self.changes.subscribe() }
    }

    /// What a renewal found.
    pub fn note(&self, standing: &Standing) {
        self.accompanied.store(standing.others > 0, Ordering::Relaxed);
    }
}

impl Term {
    /// Renewed by a statement that was sent at `begun`: the database's clock read it later.
    pub fn renewed(&mut self, begun: Instant) {
        self.until = begun + self.lease;
        // Hurried while it was on its way: it knew nothing of that.
        if self.due <= begun {
            self.due = begun + self.lease * 3 / 10;
        }
    }

    /// Nothing may be sent on leases after this: others may have them.
    pub fn until(&self) -> Instant {
        self.until
    }

    pub fn stands(&self, now: Instant) -> bool {
        now < self.until
    }

    /// When the next renewal is to be sent.
    pub fn due(&self) -> Instant {
        self.due
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// Renews at the next occasion.
    pub fn hurry(&mut self) {
        self.due = Instant::now();
    }

    /// Waits until leases have moved elsewhere. May be dropped at any time.
    pub async fn moved(&mut self) {
        if self.changes.changed().await.is_err() {
            // The instance is gone, and nobody is left to say anything.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_term_is_due_well_before_it_ends_and_ends_by_the_own_clock() {
        let instance = Instance::new(Duration::from_secs(10));
        let mut term = instance.term();
        let begun = Instant::now();
        assert!(term.is_due(begun) && !term.stands(begun), "nothing stands before a renewal");
        term.renewed(begun);
        assert!(!term.is_due(begun + Duration::from_millis(2999)));
        assert!(term.is_due(begun + Duration::from_secs(3)));
        assert!(term.stands(begun + Duration::from_millis(9999)));
        assert!(!term.stands(begun + Duration::from_secs(10)), "counted from the sending");
        term.hurry();
        term.renewed(begun);
        assert!(term.is_due(Instant::now()), "a hurry during a renewal is kept");
        instance.announce();
        tokio::time::timeout(Duration::from_secs(30), term.moved()).await.unwrap();
    }

    #[test]
    fn a_member_shows_its_lock_only_while_it_listens() {
        let instance = Instance::new(Duration::from_secs(10));
        assert_eq!(instance.member().session, None);
        instance.set_listening(true);
        assert_eq!(instance.member().session, Some(instance.key()));
        assert_ne!(Instance::new(Duration::from_secs(10)).key(), instance.key());
    }
}
