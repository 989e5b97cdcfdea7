//! This process among several over one database: its name, and whether others live.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use crate::store::leases::{LeaseState, Member};

/// This process among the instances: shared by publisher, projectors and all tasks that signal others.
#[derive(Debug)]
pub struct Instance {
    owner: String,
    /// Random: the key of the advisory lock that shows that this process lives.
    key: i64,
    lease: Duration,
    /// The listening session is there, and holds the lock.
    listening: AtomicBool,
    peers: AtomicBool,
    changes: watch::Sender<()>,
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
            peers: AtomicBool::new(false),
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
    pub fn has_peers(&self) -> bool {
        self.peers.load(Ordering::Relaxed)
    }

    /// Leases have moved somewhere: every role looks at once.
    pub fn wake_all(&self) {
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

    /// What a renewal found.
    pub fn note(&self, lease_state: &LeaseState) {
        self.peers.store(lease_state.others > 0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_shows_its_lock_only_while_it_listens() {
        let instance = Instance::new(Duration::from_secs(10));
        assert_eq!(instance.member().session, None);
        instance.set_listening(true);
        assert_eq!(instance.member().session, Some(instance.key()));
        assert_ne!(Instance::new(Duration::from_secs(10)).key(), instance.key());
    }
}
