//! The consumer groups' offsets as Kafka has them, beside the positions that they are a copy of: commits,
//! noted before they are sent, and resets, which move a position back. Every write is fenced by the
//! committer's lease.

use super::leases::Leased;
use super::{Pool, Result};

/// Names the projector whose positions are committed, and the owner of the lease that does it.
#[derive(Debug, Clone)]
pub struct Committer {
    pub leased: Leased,
    pub projector: &'static str,
    pub owner: String,
    pub epoch: i64,
}

/// A partition's position, and its last commit.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Position {
    pub partition: i32,
    pub next_offset: i64,
    /// What Kafka had before the last commit.
    pub written: Option<i64>,
    /// The last commit, which may not have arrived; none before the first.
    pub sent: Option<i64>,
    /// Earlier commits without a known answer, which may still arrive; none is older than some minutes.
    pub unanswered: Option<Vec<i64>>,
}

/// A commit to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetCommit {
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

/// The resets of one projector, for operators.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Resets {
    pub projector: String,
    pub honoured: i64,
    pub refused: i64,
}

/// Where the projector stands, in partition order.
pub async fn positions(
    pool: &Pool,
    tenant: &str,
    projector: &str,
    topic: &str,
) -> Result<Vec<Position>> {
    Ok(sqlx::query_as(
        "select partition, c.next_offset, g.written, g.sent, \
             case when g.unanswered_at > clock_timestamp() - interval '10 minutes' \
                 then g.unanswered end as unanswered \
         from projector_checkpoints c \
         left join group_offsets g using (tenant_id, projector, topic, partition) \
         where tenant_id = $1 and projector = $2 and topic = $3 order by partition",
    )
    .bind(tenant)
    .bind(projector)
    .bind(topic)
    .fetch_all(pool)
    .await?)
}

/// Notes commits before they are sent; `in_doubt`: those before them may not have been answered. False:
/// the lease is another's by now, and nothing may be sent.
pub async fn record_intent(
    pool: &Pool,
    by: &Committer,
    commits: &[OffsetCommit],
    in_doubt: bool,
) -> Result<bool> {
    let noted = sqlx::query(
        "insert into group_offsets as g \
             (tenant_id, projector, topic, partition, written, sent) \
         select $1, $2, $3, partition, written, sent \
         from unnest($4::int[], $5::bigint[], $6::bigint[]) commits(partition, written, sent) \
         where exists (select from partition_leases where tenant_id = $1 and role = $7 \
             and topic = $3 and partition = 0 and owner = $8 and epoch = $9) \
         order by partition \
         on conflict on constraint group_offsets_pkey do update \
             set written = excluded.written, sent = excluded.sent, \
                 unanswered = case when $10 then (g.sent || g.unanswered)[:16] \
                     else g.unanswered end, \
                 unanswered_at = case when $10 then clock_timestamp() else g.unanswered_at end",
    )
    .bind(&by.leased.tenant)
    .bind(by.projector)
    .bind(&by.leased.topic)
    .bind(commits.iter().map(|commit| commit.partition).collect::<Vec<_>>())
    .bind(commits.iter().map(|commit| commit.written).collect::<Vec<_>>())
    .bind(commits.iter().map(|commit| commit.sent).collect::<Vec<_>>())
    .bind(by.leased.role)
    .bind(&by.owner)
    .bind(by.epoch)
    .bind(in_doubt)
    .execute(pool)
    .await?;
    Ok(usize::try_from(noted.rows_affected()).ok() == Some(commits.len()))
}

/// Moves a partition's position back to `offset`, unless that is beyond it, and notes what was done.
/// None: the lease is another's by now, or there is no such partition.
pub async fn reset(
    pool: &Pool,
    by: &Committer,
    partition: i32,
    offset: i64,
) -> Result<Option<Reset>> {
    // A projection that runs has the row locked: it moves first, or finds its position moved.
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

/// Counts the resets of each projector.
pub async fn resets(pool: &Pool) -> Result<Vec<Resets>> {
    Ok(sqlx::query_as(
        "select projector, count(*) filter (where honoured) as honoured, \
             count(*) filter (where not honoured) as refused \
         from consumer_resets group by projector",
    )
    .fetch_all(pool)
    .await?)
}
