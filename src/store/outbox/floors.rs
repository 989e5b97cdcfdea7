//! Where looks at the outbox begin. Ids ascend, so below the lowest batch that waits all are processed, save
//! those of transactions that took an id and have not committed: each has locked the table from before it took its
//! ids, so that [`writers`] names it.

use crate::store::{PIPELINE, Pool, Result};

/// The ids from which on batches of a partition may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    pub partition: i32,
    /// Of batches that send events again: their ids are negative.
    pub again: i64,
    /// Of batches of commands.
    pub commands: i64,
}

impl Floor {
    /// Nothing is known: all batches that wait are looked for.
    pub fn none(partition: i32) -> Self {
        Self { partition, again: i64::MIN, commands: 0 }
    }
}

/// The lowest ids of a partition that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Lowest {
    pub partition: i32,
    pub again: Option<i64>,
    pub commands: Option<i64>,
}

/// Finds the lowest batches that wait, from the floors on.
pub async fn lowest(pool: &Pool, topic: &str, floors: &[Floor]) -> Result<Vec<Lowest>> {
    Ok(sqlx::query_as(
        "select floor.partition, \
             (select b.id from outbox_batches b where b.topic = $1 \
                and b.partition = floor.partition and b.processed_at is null \
                and b.id >= floor.again and b.id < 0 order by b.id, b.part limit 1) as again, \
             (select b.id from outbox_batches b where b.topic = $1 \
                and b.partition = floor.partition and b.processed_at is null \
                and b.id >= floor.commands order by b.id, b.part limit 1) as commands \
         from unnest($2::integer[], $3::bigint[], $4::bigint[]) \
             as floor(partition, again, commands)",
    )
    .bind(topic)
    .bind(floors.iter().map(|floor| floor.partition).collect::<Vec<_>>())
    .bind(floors.iter().map(|floor| floor.again).collect::<Vec<_>>())
    .bind(floors.iter().map(|floor| floor.commands).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?)
}

/// Names the transactions that may have written into the outbox and have not ended.
pub async fn writers(pool: &Pool) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "select distinct virtualtransaction from pg_locks \
         where locktype = 'relation' and relation = 'outbox_batches'::regclass \
           and database = (select oid from pg_database where datname = current_database()) \
           and mode = 'RowExclusiveLock' and granted and virtualtransaction is not null",
    )
    .fetch_all(pool)
    .await?)
}

/// Notes floors for those who count what waits.
pub async fn note(pool: &Pool, topic: &str, floors: &[Floor]) -> Result<()> {
    sqlx::query(
        "insert into outbox_floors as known (tenant_id, topic, partition, again, commands) \
         select $1, $2, floor.partition, floor.again, floor.commands \
         from unnest($3::integer[], $4::bigint[], $5::bigint[]) \
             as floor(partition, again, commands) order by floor.partition \
         on conflict on constraint outbox_floors_pkey do update set again = excluded.again, \
             commands = excluded.commands, noted_at = clock_timestamp()",
    )
    .bind(PIPELINE)
    .bind(topic)
    .bind(floors.iter().map(|floor| floor.partition).collect::<Vec<_>>())
    .bind(floors.iter().map(|floor| floor.again).collect::<Vec<_>>())
    .bind(floors.iter().map(|floor| floor.commands).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// The ranges of ids in which batches may wait, by topic and partition, as a table of a statement: those that
/// send events again come first.
macro_rules! ranges {
    () => {
        "(select t.name as topic, p.partition, r.from_id, r.to_id from topics t \
             cross join lateral generate_series(0, t.partitions - 1) p(partition) \
             left join outbox_floors f on f.tenant_id = t.tenant_id and f.topic = t.name \
                 and f.partition = p.partition \
             cross join lateral (values \
                 (coalesce(f.again, '-9223372036854775808'::bigint), -1::bigint), \
                 (coalesce(f.commands, 0), 9223372036854775807)) r(from_id, to_id) \
             where t.tenant_id = 'default' offset 0)"
    };
}
pub(in crate::store) use ranges;
