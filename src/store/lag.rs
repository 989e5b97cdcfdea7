//! How far projections are behind the events.

use std::time::Duration;

use super::{Pool, Result};

/// What one projector has yet to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectionLag {
    pub projector: String,
    pub events: i64,
    /// Age of the oldest event that is not applied.
    pub oldest: Duration,
}

/// The lag of each projector on a topic. Reads only what lies past the projector's place in the
/// feed from Postgres, which follows the tip while all is well. Events of parked wallets are
/// behind that place: they are shown as parked, not as lag.
pub async fn projection_lags(pool: &Pool, projectors: &[&str]) -> Result<Vec<ProjectionLag>> {
    let rows: Vec<(String, i64, Option<i64>)> = sqlx::query_as(
        "select n.projector, count(e.event_id), \
            (extract(epoch from clock_timestamp() - min(e.created_at)) * 1000)::bigint \
         from unnest($1::text[]) as n(projector) \
         left join lateral ( \
            select e.event_id, e.created_at from projector_checkpoints c \
            join events e on e.partition = c.partition and e.commit_xid >= c.feed_xid \
            left join projected_versions p on p.tenant_id = e.tenant_id \
                and p.projector = c.projector and p.wallet_id = e.wallet_id \
            where c.projector = n.projector and e.version > coalesce(p.version, 0) \
         ) e on true \
         group by n.projector",
    )
    .bind(projectors)
    .fetch_all(pool)
    .await?;
    let lag = |(projector, events, oldest): (String, i64, Option<i64>)| {
        let millis = oldest.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        ProjectionLag { projector, events, oldest: Duration::from_millis(millis) }
    };
    Ok(rows.into_iter().map(lag).collect())
}

/// What one projector has yet to apply in one partition.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PartitionLag {
    pub projector: String,
    pub partition: i32,
    pub events: i64,
    /// Age of the oldest event that is not applied.
    pub oldest_ms: i64,
}

/// The same as [`projection_lags`] by partition.
pub async fn partition_lags(pool: &Pool, projectors: &[&str]) -> Result<Vec<PartitionLag>> {
    Ok(sqlx::query_as(
        "select c.projector, c.partition, count(e.event_id) as events, \
            coalesce((extract(epoch from clock_timestamp() - min(e.created_at)) * 1000)::bigint, \
                0) as oldest_ms \
         from projector_checkpoints c \
         left join lateral ( \
            select e.event_id, e.created_at from events e \
            left join projected_versions p on p.tenant_id = e.tenant_id \
                and p.projector = c.projector and p.wallet_id = e.wallet_id \
            where e.partition = c.partition and e.commit_xid >= c.feed_xid \
              and e.version > coalesce(p.version, 0) \
         ) e on true \
         where c.projector = any($1) group by c.projector, c.partition",
    )
    .bind(projectors)
    .fetch_all(pool)
    .await?)
}

/// Whether Postgres answers.
pub async fn ping(pool: &Pool) -> Result<()> {
    sqlx::query("select 1").execute(pool).await?;
    Ok(())
}
