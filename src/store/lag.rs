//! How far projections are behind the events: what lies past their places in the feed from Postgres.
//!
//! At most [`WINDOW`] events are looked at from a partition's place on, and as many before its newest: the
//! question costs the same at any size. Where that is not all of them, the numbers say "at least".

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Connection, Pool, Result, clusters};

/// Events of a partition that are looked at, from either end.
const WINDOW: i64 = 150;
/// Events between the two ends that are counted, at most.
const BETWEEN: i64 = 5000;

/// What one projector has yet to apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProjectionLag {
    pub projector: String,
    pub events: i64,
    /// There may be more than these.
    pub more: bool,
    /// Age of the oldest event that is not applied.
    pub oldest: Duration,
    /// Why neither is known; none: both are.
    pub unknown: Option<Unknown>,
}

/// Why a lag is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unknown {
    /// The places hold numbers of another cluster, or of a version that did not note whose they are.
    Foreign,
    /// The newest events are not applied, and the oldest after the place are: what lies between was not
    /// looked at.
    Between,
}

impl Unknown {
    /// Says it in words for operators.
    pub fn text(self) -> &'static str {
        match self {
            Self::Foreign => {
                "its places are of another Postgres cluster, or do not say: a running service mends them"
            }
            Self::Between => {
                "too many events lie behind its place, which a running transaction holds back"
            }
        }
    }
}

/// What one projector has yet to apply in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    pub projector: String,
    pub partition: i32,
    pub events: i64,
    pub more: bool,
    /// Age of the oldest event that is not applied.
    pub oldest_ms: i64,
    pub unknown: Option<Unknown>,
}

#[derive(sqlx::FromRow)]
struct LagRow {
    projector: String,
    partition: i32,
    foreign: bool,
    /// From the place on: how many were looked at, how many of them are not applied, the oldest's age.
    looked: i64,
    pending: i64,
    oldest_ms: Option<i64>,
    /// The same before the newest, where there are more.
    looked_back: i64,
    pending_back: i64,
    oldest_back_ms: Option<i64>,
    /// What lies between, where neither end has an event that is applied.
    between: i64,
}

/// The lag of each projector by partition, or an error after `limit`. Events of parked wallets are shown as
/// parked, not as lag. Not for a transaction.
pub async fn lags(
    connection: &mut Connection,
    projectors: &[&str],
    limit: Duration,
) -> Result<Vec<PartitionLag>> {
    let cluster = clusters::identify(connection).await?;
    super::ask(connection, limit).await?;
    let asked = async {
        super::feed::steady(connection).await?;
        ask(connection, projectors, cluster).await
    };
    let asked = asked.await;
    let rows = super::answered(connection, asked).await?;
    Ok(rows.into_iter().map(LagRow::lag).collect())
}

/// Shaped so that plans made while tables were small walk the feed's index, too. An event is applied or
/// not whatever the topic that it was read from: where a partition has places in topics of former names,
/// the one that is furthest counts.
async fn ask(
    connection: &mut Connection,
    projectors: &[&str],
    cluster: Option<i64>,
) -> Result<Vec<LagRow>> {
    macro_rules! window {
        ($more:literal, $order:literal) => {
            concat!(
                "(select count(*) as looked, count(*) filter (where s.pending) as pending, \
                     min(s.created_at) filter (where s.pending) as oldest, \
                     min(s.xid) as first, max(s.xid) as last \
                 from (select e.xid, e.created_at, e.version > coalesce((select v.version \
                         from projected_versions v where v.tenant_id = e.tenant_id \
                           and v.projector = c.projector and v.wallet_id = e.wallet_id), 0) \
                       and not exists (select from parked_wallets p \
                         where p.tenant_id = e.tenant_id and p.projector = c.projector \
                           and p.wallet_id = e.wallet_id) as pending \
                     from (select e.commit_xid as xid, e.tenant_id, e.wallet_id, e.version, \
                             e.created_at \
                         from events e where e.partition = c.partition \
                           and e.commit_xid < t.next and ",
                $more,
                " order by e.commit_xid ",
                $order,
                " limit $3) e offset 0) s)"
            )
        };
    }
    let statement = concat!(
        "select c.projector, c.partition, c.\"foreign\", \
             f.looked, f.pending, b.looked as looked_back, b.pending as pending_back, \
             (extract(epoch from clock_timestamp() - f.oldest) * 1000)::bigint as oldest_ms, \
             (extract(epoch from clock_timestamp() - b.oldest) * 1000)::bigint as oldest_back_ms, \
             m.between \
         from (select pg_snapshot_xmax(pg_current_snapshot()) as next offset 0) t \
         cross join lateral (select distinct on (projector, partition) projector, partition, \
                 feed_xid, feed_xid > t.next or ($2::bigint is not null \
                     and cluster is distinct from $2 \
                     and (cluster is not null or feed_xid <> '0'::xid8)) as \"foreign\" \
             from projector_checkpoints where projector = any($1) \
             order by projector, partition, \"foreign\", feed_xid desc) c cross join lateral ",
        window!("e.commit_xid >= c.feed_xid", ""),
        " f cross join lateral ",
        window!("f.looked = $3 and e.commit_xid > f.last", "desc"),
        " b cross join lateral (select count(*) as between from (select from events e \
             where e.partition = c.partition and e.commit_xid > f.last and e.commit_xid < b.first \
               and f.pending = $3 and b.pending = $3 order by e.commit_xid limit $4) e) m \
         order by c.projector, c.partition",
    );
    Ok(sqlx::query_as(statement)
        .bind(projectors)
        .bind(cluster)
        .bind(WINDOW)
        .bind(BETWEEN)
        .fetch_all(connection)
        .await?)
}

impl LagRow {
    fn lag(self) -> PartitionLag {
        let none = self.pending + self.pending_back == 0;
        // Looked at whole, or in step as far as both ends show.
        let whole = self.looked < WINDOW || self.looked_back < WINDOW || none;
        let unknown = match self.pending {
            _ if self.foreign => Some(Unknown::Foreign),
            0 if !whole && self.pending_back == WINDOW => Some(Unknown::Between),
            _ => None,
        };
        let oldest = self.oldest_ms.or(self.oldest_back_ms).unwrap_or(0).max(0);
        PartitionLag {
            projector: self.projector,
            partition: self.partition,
            events: self.pending + self.pending_back + self.between,
            more: !whole && !(1..BETWEEN).contains(&self.between),
            oldest_ms: oldest,
            unknown,
        }
    }
}

/// By projector, from all of its partitions.
pub fn by_projector(lags: &[PartitionLag], projectors: &[&str]) -> Vec<ProjectionLag> {
    let empty = |name: &&str| {
        let projector = (*name).to_owned();
        (projector.clone(), ProjectionLag { projector, ..ProjectionLag::default() })
    };
    let mut all: BTreeMap<String, ProjectionLag> = projectors.iter().map(empty).collect();
    for lag in lags {
        let Some(sum) = all.get_mut(&lag.projector) else { continue };
        sum.events += lag.events;
        sum.more |= lag.more;
        let oldest = Duration::from_millis(u64::try_from(lag.oldest_ms).unwrap_or(0));
        sum.oldest = sum.oldest.max(oldest);
        sum.unknown = sum.unknown.min(lag.unknown).or(sum.unknown).or(lag.unknown);
    }
    all.into_values().collect()
}

/// The lag of each projector.
pub async fn projection_lags(
    pool: &Pool,
    projectors: &[&str],
    limit: Duration,
) -> Result<Vec<ProjectionLag>> {
    let mut connection = super::acquire(pool).await?;
    let lags = lags(&mut connection, projectors, limit).await?;
    Ok(by_projector(&lags, projectors))
}

/// Whether Postgres answers.
pub async fn ping(pool: &Pool) -> Result<()> {
    sqlx::query("select 1").execute(pool).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(looked: i64, pending: i64, looked_back: i64, pending_back: i64) -> LagRow {
        LagRow {
            projector: "p".to_owned(),
            partition: 0,
            foreign: false,
            looked,
            pending,
            oldest_ms: (pending > 0).then_some(7000),
            looked_back,
            pending_back,
            oldest_back_ms: (pending_back > 0).then_some(5000),
            between: 0,
        }
    }

    #[test]
    fn what_was_not_looked_at_is_never_taken_for_nothing() {
        let full = WINDOW;
        let seen = |row: LagRow| {
            let lag = row.lag();
            (lag.events, lag.more, lag.oldest_ms, lag.unknown)
        };
        assert_eq!(seen(row(0, 0, 0, 0)), (0, false, 0, None));
        assert_eq!(seen(row(9, 4, 0, 0)), (4, false, 7000, None));
        assert_eq!(seen(row(full, 0, 9, 3)), (3, false, 5000, None), "all of it was looked at");
        assert_eq!(seen(row(full, 0, full, 0)), (0, false, 0, None), "the cursor is held back");
        assert_eq!(seen(row(full, 0, full, 3)), (3, true, 5000, None));
        assert_eq!(seen(row(full, 2, full, 3)), (5, true, 7000, None));
        let between = seen(row(full, 0, full, full));
        assert_eq!(between, (full, true, 5000, Some(Unknown::Between)));
        let counted = LagRow { between: 40, ..row(full, full, full, full) };
        assert_eq!(seen(counted), (2 * full + 40, false, 7000, None));
        let most = LagRow { between: BETWEEN, ..row(full, full, full, full) };
        assert_eq!(seen(most), (2 * full + BETWEEN, true, 7000, None));
        let foreign = LagRow { foreign: true, ..row(0, 0, 0, 0) };
        assert_eq!(foreign.lag().unknown, Some(Unknown::Foreign));
    }

    #[test]
    fn one_partition_that_is_not_known_makes_the_sum_unknown() {
        let known = row(9, 4, 0, 0).lag();
        let foreign = LagRow { foreign: true, ..row(0, 0, 0, 0) }.lag();
        for order in [[&known, &foreign], [&foreign, &known]] {
            let lags: Vec<PartitionLag> = order.into_iter().cloned().collect();
            let sums = by_projector(&lags, &["p", "q"]);
            assert_eq!((sums[0].events, sums[0].unknown), (4, Some(Unknown::Foreign)));
            assert_eq!((sums[1].events, sums[1].unknown), (0, None), "one without places");
        }
    }
}
