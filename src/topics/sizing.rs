//! How many partitions a topic should begin with, pure: from messages a second, keys and consumers.

use serde::Serialize;
use utoipa::ToSchema;

use crate::kafka::topics::KeyStrategy;

/// What one partition surely carries to a consumer that writes every record to a database. More is
/// possible; a topic that was made too small is harder to mend than one that is too large.
const RATE_OF_ONE: u64 = 1000;
/// For growth: partitions are easily given and hardly ever taken back.
const GROWTH: u64 = 2;
/// Every partition costs each broker files and each client memory.
const MOST: u64 = 1000;

/// What the topic has to carry.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Messages a second at the peak.
    pub rate: u64,
    /// Different keys among them.
    pub keys: u64,
    /// Consumers of one group that are to share the work.
    pub consumers: u64,
    pub key: KeyStrategy,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Recommendation {
    #[schema(minimum = 1)]
    pub partitions: u64,
    /// How that came about.
    pub reasons: Vec<String>,
}

/// Enough for the rate with room to grow, the same number for each consumer, no more than there are
/// keys to fill them.
pub fn recommend(load: &Load) -> Recommendation {
    let Load { rate, keys, consumers, key } = *load;
    let (rate, keys, consumers) = (rate.max(1), keys.max(1), consumers.max(1));
    let carried = rate.saturating_mul(GROWTH).div_ceil(RATE_OF_ONE);
    let mut reasons = vec![format!(
        "{rate} messages a second, {GROWTH} times that for growth, at {RATE_OF_ONE} a partition: \
         {carried}"
    )];
    let shared = carried.max(consumers).div_ceil(consumers).saturating_mul(consumers);
    if shared != carried {
        reasons.push(format!("the same number for each of {consumers} consumers: {shared}"));
    }
    let mut partitions = shared;
    if key != KeyStrategy::Random && keys < partitions {
        partitions = keys;
        reasons.push(format!(
            "keyed by {}, only {keys} partitions can have records: {keys}",
            key.as_str()
        ));
    }
    if partitions > MOST {
        partitions = MOST;
        reasons.push(format!("more than {MOST} cost more than they bring: {MOST}"));
    }
    if key == KeyStrategy::Random {
        reasons.push("with random keys records have no order: never for wallet events".to_owned());
    }
    Recommendation { partitions, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(rate: u64, keys: u64, consumers: u64, key: KeyStrategy) -> u64 {
        recommend(&Load { rate, keys, consumers, key }).partitions
    }

    #[test]
    fn the_rate_the_consumers_and_the_keys_all_count() {
        use KeyStrategy::{Random, Tenant, Wallet};
        assert_eq!(partitions(5000, 100_000, 1, Wallet), 10);
        assert_eq!(partitions(5000, 100_000, 4, Wallet), 12, "three for each");
        assert_eq!(partitions(10, 100_000, 6, Wallet), 6, "none is idle");
        assert_eq!(partitions(5000, 3, 4, Tenant), 3, "no more than keys");
        assert_eq!(partitions(5000, 3, 4, Random), 12);
        assert_eq!(partitions(0, 0, 0, Wallet), 1);
        assert_eq!(partitions(u64::MAX, u64::MAX, 1, Wallet), 1000);
    }
}
