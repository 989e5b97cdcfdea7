//! Who works on a partition: owner, epoch and expiry by the database's clock. Whoever acquires a
//! partition raises its epoch, and with it fences off every write of the owner before.

use std::time::Duration;

use super::{Pool, Result};

/// A silent owner keeps a partition for so long.
pub const LEASE: Duration = Duration::from_secs(10);

/// What partitions are leased for: `role` is `publisher` or a projector's name.
#[derive(Debug, Clone)]
pub struct Leased {
    pub tenant: String,
    pub role: &'static str,
    pub topic: String,
}

/// A partition that its owner may work on while the epoch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Lease {
    pub partition: i32,
    pub epoch: i64,
    /// The last offset known to hold a record of ours; none before the first.
    pub last_offset: Option<i64>,
}

/// Takes `partitions`, from whoever has them: one instance owns them all for now.
pub async fn acquire(
    pool: &Pool,
    leased: &Leased,
    partitions: &[i32],
    owner: &str,
) -> Result<Vec<Lease>> {
    let lease = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
    Ok(sqlx::query_as(
        "insert into partition_leases as held \
             (tenant_id, role, topic, partition, owner, epoch, expires_at) \
         select $1, $2, $3, partition, $5, 1, clock_timestamp() + $6 * interval '1 ms' \
         from unnest($4::integer[]) as wanted(partition) order by partition \
         on conflict on constraint partition_leases_pkey do update set \
             owner = excluded.owner, epoch = held.epoch + 1, expires_at = excluded.expires_at, \
             updated_at = clock_timestamp() \
         returning partition, epoch, last_offset",
    )
    .bind(&leased.tenant)
    .bind(leased.role)
    .bind(&leased.topic)
    .bind(partitions)
    .bind(owner)
    .bind(lease)
    .fetch_all(pool)
    .await?)
}
