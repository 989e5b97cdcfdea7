//! Which events were found in `events` a moment ago: a record that names one of them need not be looked up,
//! and where its version is applied already, the event itself is never read again.
//!
//! What the feed from Postgres has brought comes once more from Kafka, seconds or minutes later. Kept as a
//! number for each claim (wallet, version, id and partition) under keys of this process, so that no record can
//! be made to look like one. It counts on the session that read it: a new one may be another server's.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crate::store::recorded::Claim;

/// Of one generation; there are two, some 5 MB at most.
const CLAIMS_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub struct Seen {
    keys: RandomState,
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl Seen {
    /// The event is in the books as the claim says.
    pub fn insert(&mut self, claim: &Claim<'_>) {
        if self.young.len() >= CLAIMS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(self.keys.hash_one(claim));
    }

    pub fn contains(&self, claim: &Claim<'_>) -> bool {
        let number = self.keys.hash_one(claim);
        self.young.contains(&number) || self.old.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::wallet::{TenantId, WalletId};

    #[test]
    fn all_of_a_claim_counts_and_the_oldest_are_given_up() {
        let wallet = (TenantId::default_tenant(), WalletId::stored("w"));
        let other = (TenantId::stored("t"), WalletId::stored("w"));
        let mut seen = Seen::default();
        seen.insert(&(&wallet, 1, Uuid::nil(), 3));
        assert!(seen.contains(&(&wallet, 1, Uuid::nil(), 3)));
        assert!(!seen.contains(&(&other, 1, Uuid::nil(), 3)));
        assert!(!seen.contains(&(&wallet, 2, Uuid::nil(), 3)));
        assert!(!seen.contains(&(&wallet, 1, Uuid::max(), 3)));
        assert!(!seen.contains(&(&wallet, 1, Uuid::nil(), 4)));
        for version in 2..=i64::try_from(2 * CLAIMS_MAX).unwrap() {
            seen.insert(&(&wallet, version, Uuid::nil(), 3));
        }
        assert!(seen.contains(&(&wallet, 1, Uuid::nil(), 3)), "two generations are kept");
        seen.insert(&(&wallet, 0, Uuid::nil(), 3));
        assert!(!seen.contains(&(&wallet, 1, Uuid::nil(), 3)));
    }
}
