//! The copy of the projectors' places that Kafka has under their groups' names: what was copied, and
//! resets, which move a place back. Every write is fenced by the lease of whoever copies.

use super::leases::Leased;
use super::{Pool, Result};

/// Whose places are copied, by which owner of the lease.
#[derive(Debug, Clone)]
pub struct Copier {
    pub leased: Leased,
    pub projector: &'static str,
    pub owner: String,
    pub epoch: i64,
}

/// A partition's place, and its last copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Place {
    pub partition: i32,
    pub next_offset: i64,
    /// The copy before the last one; none before the second.
    pub written: Option<i64>,
    /// The last copy, which may not have arrived; none before the first.
    pub sent: Option<i64>,
}

/// A copy to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    pub partition: i32,
    /// What Kafka has by now.
    pub written: Option<i64>,
    pub sent: i64,
}

/// What came of a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Reset {
    pub from_offset: i64,
    /// Not beyond the checkpoint, which has moved there.
    pub honoured: bool,
}

/// The resets of one projector, for people.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Resets {
    pub projector: String,
    pub honoured: i64,
    pub refused: i64,
}

/// Where the projector stands, in partition order.
pub async fn places(pool: &Pool, tenant: &str, projector: &str, topic: &str) -> Result<Vec<Place>> {
    Ok(sqlx::query_as(
        "select partition, c.next_offset, g.written, g.sent from projector_checkpoints c \
         left join group_offsets g using (tenant_id, projector, topic, partition) \
         where tenant_id = $1 and projector = $2 and topic = $3 order by partition",
    )
    .bind(tenant)
    .bind(projector)
    .bind(topic)
    .fetch_all(pool)
    .await?)
}

/// Notes copies before they are sent. False: the lease is another's by now, and nothing may be sent.
pub async fn intend(pool: &Pool, by: &Copier, copies: &[Copy]) -> Result<bool> {
    let noted = sqlx::query(
        "insert into group_offsets (tenant_id, projector, topic, partition, written, sent) \
         select $1, $2, $3, partition, written, sent \
         from unnest($4::int[], $5::bigint[], $6::bigint[]) copies(partition, written, sent) \
         where exists (select from partition_leases where tenant_id = $1 and role = $7 \
             and topic = $3 and partition = 0 and owner = $8 and epoch = $9) \
         order by partition \
         on conflict on constraint group_offsets_pkey do update \
             set written = excluded.written, sent = excluded.sent",
    )
    .bind(&by.leased.tenant)
    .bind(by.projector)
    .bind(&by.leased.topic)
    .bind(copies.iter().map(|copy| copy.partition).collect::<Vec<_>>())
    .bind(copies.iter().map(|copy| copy.written).collect::<Vec<_>>())
    .bind(copies.iter().map(|copy| copy.sent).collect::<Vec<_>>())
    .bind(by.leased.role)
    .bind(&by.owner)
    .bind(by.epoch)
    .execute(pool)
    .await?;
    Ok(usize::try_from(noted.rows_affected()).ok() == Some(copies.len()))
}

/// Moves a partition's place back to `offset`, unless that is beyond it, and notes what was done.
/// None: the lease is another's by now, or there is no such partition.
pub async fn reset(pool: &Pool, by: &Copier, partition: i32, offset: i64) -> Result<Option<Reset>> {
    // A projection that runs has the place locked: it moves first, or finds its place moved.
    Ok(sqlx::query_as(
        "with stood as materialized ( \
             select next_offset from projector_checkpoints \
             where tenant_id = $1 and projector = $2 and topic = $3 and partition = $4 \
               and exists (select from partition_leases where tenant_id = $1 and role = $6 \
                   and topic = $3 and partition = 0 and owner = $7 and epoch = $8) \
             for no key update), \
         moved as ( \
             update projector_checkpoints c \
             set next_offset = $5, updated_at = clock_timestamp() from stood \
             where c.tenant_id = $1 and c.projector = $2 and c.topic = $3 and c.partition = $4 \
               and stood.next_offset > $5), \
         known as ( \
             insert into group_offsets (tenant_id, projector, topic, partition, written, sent) \
             select $1, $2, $3, $4, $5, $5 from stood \
             on conflict on constraint group_offsets_pkey do update \
                 set written = excluded.written, sent = excluded.sent) \
         insert into consumer_resets \
             (tenant_id, projector, topic, partition, from_offset, to_offset, honoured) \
         select $1, $2, $3, $4, stood.next_offset, $5, $5 <= stood.next_offset from stood \
         returning from_offset, honoured",
    )
    .bind(&by.leased.tenant)
    .bind(by.projector)
    .bind(&by.leased.topic)
    .bind(partition)
    .bind(offset)
    .bind(by.leased.role)
    .bind(&by.owner)
    .bind(by.epoch)
    .fetch_optional(pool)
    .await?)
}

/// How many resets each projector has met.
pub async fn resets(pool: &Pool) -> Result<Vec<Resets>> {
    Ok(sqlx::query_as(
        "select projector, count(*) filter (where honoured) as honoured, \
             count(*) filter (where not honoured) as refused \
         from consumer_resets group by projector",
    )
    .fetch_all(pool)
    .await?)
}
