//! The feed straight from Postgres: a walk over `events` in commit order. Never writes events.
//!
//! The walk looks at everything committed, but its cursor stays below the oldest running
//! transaction: a transaction that commits late is read later instead of being skipped, and a long
//! one holds nothing up. The cursor passes an event only once that event is applied (or its wallet
//! is parked), so the walk also proves the other feed right.

use uuid::Uuid;

use super::checkpoints::Subscription;
use super::projected::{Table, Versions};
use super::{Connection, PIPELINE, Result, wallet_key};
use crate::wallet::WalletKey;

/// A projector that the walk looks for: by its name and its table it is known what it has applied.
#[derive(Debug, Clone, Copy)]
pub struct Follower {
    pub projector: &'static str,
    pub table: Table,
}

/// From where on the walk looks at a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub partition: i32,
    /// Every event of a transaction below this one is applied.
    pub cursor: i64,
    /// Where the caller has been above running transactions.
    pub ahead: i64,
    /// For which followers, as bits in their order.
    pub followers: i32,
}

/// What one follower has not applied of what was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behind {
    pub events: i64,
    /// The age of the oldest of them.
    pub lag_ms: i64,
}

/// What the walk found in one partition from its cursor on.
#[derive(Debug, Clone)]
pub struct Walk {
    pub partition: i32,
    /// The cursor that it started from.
    pub from: i64,
    /// The cursor behind everything that was looked at and is complete.
    pub end: i64,
    /// The cursor before the first event that is not applied.
    pub applied_up_to: i64,
    /// Behind everything that was looked at, above running transactions too.
    pub seen_to: i64,
    /// There is more to look at.
    pub more: bool,
    /// The cursor lies beyond this cluster's numbers: it is of another one.
    pub foreign: bool,
    /// Events that some follower has not applied.
    pub pending: Vec<(WalletKey, i64, Uuid)>,
    /// The age of the oldest of them.
    pub lag_ms: i64,
    /// The same follower by follower.
    pub behind: Vec<Behind>,
    /// The age of the oldest event that has yet to reach Kafka.
    pub outbox_age_ms: i64,
}

#[derive(sqlx::FromRow)]
struct WalkRow {
    partition: i32,
    cursor: i64,
    foreign: bool,
    xmin: i64,
    scanned: i64,
    last_xid: Option<i64>,
    first_pending: Option<i64>,
    behind: Vec<i64>,
    lags_ms: Vec<Option<i64>>,
    outbox_age_ms: Option<i64>,
    tenants: Option<Vec<String>>,
    wallets: Option<Vec<String>>,
    versions: Option<Vec<i64>>,
    event_ids: Option<Vec<Uuid>>,
}

/// Keeps the running transaction's statements on the indexes that deliver in order. Statistics that
/// are older than the rows would have everything sorted, over and over while catching up.
pub async fn steady(connection: &mut Connection) -> Result<()> {
    // What cannot do without a sort looks expensive enough to be compiled, which takes a second.
    let settings = "set local jit = off; \
                    set local enable_bitmapscan = off; set local enable_sort = off; \
                    set local enable_hashjoin = off; set local enable_mergejoin = off";
    Ok(sqlx::raw_sql(settings).execute(connection).await.map(drop)?)
}

/// A projector's cursors, by partition.
pub async fn cursors(
    connection: &mut Connection,
    of: &Subscription,
    partitions: &[i32],
) -> Result<Vec<(i32, i64)>> {
    Ok(sqlx::query_as(
        "select partition, feed_xid::text::bigint as feed_xid from projector_checkpoints \
         where tenant_id = $1 and projector = $2 and topic = $3 and partition = any($4) \
         order by partition",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&of.topic)
    .bind(partitions)
    .fetch_all(connection)
    .await?)
}

/// Looks at the next `limit` events of each partition, once for all followers. A transaction's events are
/// never split. Where a running transaction holds the cursor, the walk goes on from where the caller has
/// been.
pub async fn walk(
    connection: &mut Connection,
    topic: &str,
    followers: &[Follower],
    from: &[Start],
    limit: i64,
) -> Result<Vec<Walk>> {
    let rows: Vec<WalkRow> = sqlx::query_as(sqlx::AssertSqlSafe(text(followers)))
        .bind(topic)
        .bind(limit)
        .bind(from.iter().map(|from| from.partition).collect::<Vec<_>>())
        .bind(from.iter().map(|from| from.cursor).collect::<Vec<_>>())
        .bind(from.iter().map(|from| from.ahead).collect::<Vec<_>>())
        .bind(from.iter().map(|from| from.followers).collect::<Vec<_>>())
        .bind(PIPELINE)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(|row| row.walk(limit)).collect())
}

/// The walk's statement: for each follower its own look-up of a wallet's version, in its own table.
fn text(followers: &[Follower]) -> String {
    // Scalar subqueries instead of joins: a plan made while tables were small must not scan them
    // once they have grown. "offset 0" keeps each event from being judged once per aggregate.
    // What this cluster has written lies below the snapshot's end: events beyond it came with a dump of
    // another one, and are found by their wallets (`clusters`).
    let each = |part: &dyn Fn(usize, &Follower) -> String| {
        followers.iter().enumerate().map(|(at, follower)| part(at, follower)).collect::<Vec<_>>()
    };
    let flags = each(&|at, follower| format!(", {} as pending_{at}", lacks(at, follower))).concat();
    let any = each(&|at, _| format!("s.pending_{at}")).join(" or ");
    let counts = each(&|at, _| format!("count(*) filter (where s.pending_{at})")).join(", ");
    let oldest =
        each(&|at, _| format!("min(s.created_at) filter (where s.pending_{at}) as oldest_{at}"));
    let lags = each(&|at, _| {
        format!("(extract(epoch from clock_timestamp() - w.oldest_{at}) * 1000)::bigint")
    });
    let (oldest, lags) = (oldest.join(", "), lags.join(", "));
    format!(
        "select c.partition, c.cursor, \
            c.cursor::text::xid8 > pg_snapshot_xmax(pg_current_snapshot()) as foreign, \
            pg_snapshot_xmin(pg_current_snapshot())::text::bigint as xmin, \
            w.scanned, w.last_xid, w.first_pending, w.tenants, w.wallets, w.versions, w.event_ids, \
            w.behind, array[{lags}] as lags_ms, \
            (extract(epoch from clock_timestamp() - coalesce( \
                (select o.created_at from outbox_batches o where o.topic = $1 \
                   and o.partition = c.partition and o.processed_at is null and o.id < 0 \
                   and o.id >= coalesce((select f.again from outbox_floors f \
                       where f.tenant_id = $7 and f.topic = $1 and f.partition = c.partition), \
                       '-9223372036854775808'::bigint) \
                 order by o.id, o.part limit 1), \
                (select o.created_at from outbox_batches o where o.topic = $1 \
                   and o.partition = c.partition and o.processed_at is null \
                   and o.id >= coalesce((select f.commands from outbox_floors f \
                       where f.tenant_id = $7 and f.topic = $1 and f.partition = c.partition), 0) \
                 order by o.id, o.part limit 1))) * 1000)::bigint as outbox_age_ms \
         from unnest($3::int[], $4::bigint[], $5::bigint[], $6::int[]) \
             c(partition, cursor, ahead, followers) \
         cross join lateral ( \
            select count(*) as scanned, max(s.xid) as last_xid, \
                min(s.xid) filter (where {any}) as first_pending, array[{counts}] as behind, {oldest}, \
                array_agg(s.tenant_id) filter (where {any}) as tenants, \
                array_agg(s.wallet_id) filter (where {any}) as wallets, \
                array_agg(s.version) filter (where {any}) as versions, \
                array_agg(s.event_id) filter (where {any}) as event_ids \
            from (select e.*{flags} \
                from (select e.commit_xid::text::bigint as xid, e.tenant_id, e.wallet_id, e.version, \
                        e.event_id, e.created_at \
                    from events e where e.partition = c.partition \
                      and e.commit_xid >= case \
                        when c.cursor::text::xid8 >= pg_snapshot_xmin(pg_current_snapshot()) \
                        then greatest(c.cursor, c.ahead)::text::xid8 else c.cursor::text::xid8 end \
                      and e.commit_xid < pg_snapshot_xmax(pg_current_snapshot()) \
                    order by e.commit_xid fetch first ($2::bigint) rows with ties) e offset 0) s) w"
    )
}

/// Whether a follower is asked for, and has neither applied the event nor parked its wallet.
fn lacks(at: usize, Follower { projector, table }: &Follower) -> String {
    let Table { name, wallet, versions } = table;
    let reached = match versions {
        Versions::Apart => format!(
            "select v.version from projected_wallets v where v.tenant_id = e.tenant_id \
             and v.projector = '{projector}' and v.wallet_id = e.wallet_id"
        ),
        Versions::InTable => format!(
            "select v.version from {name} v where v.tenant_id = e.tenant_id \
             and v.{wallet} = e.wallet_id"
        ),
    };
    let bit = 1 << at;
    format!(
        "(c.followers & {bit} <> 0 and e.version > coalesce(({reached}), 0) \
         and not exists (select from parked_wallets p where p.tenant_id = e.tenant_id \
             and p.projector = '{projector}' and p.wallet_id = e.wallet_id))"
    )
}

impl WalkRow {
    fn walk(self, limit: i64) -> Walk {
        let more = self.scanned >= limit;
        let (end, seen_to) = match self.last_xid {
            // A cursor below which nothing happened need not be written again and again.
            None => (self.cursor, self.cursor),
            // With fewer rows than asked for, all below the oldest running transaction was seen.
            Some(last) if !more => (self.xmin, self.xmin.max(last + 1)),
            Some(last) => (self.xmin.min(last + 1), last + 1),
        };
        let end = end.max(self.cursor);
        let versions = self.versions.unwrap_or_default();
        let event_ids = self.event_ids.unwrap_or_default();
        let numbers = versions.into_iter().zip(event_ids);
        let ids = self.wallets.unwrap_or_default().into_iter();
        let wallets = self.tenants.unwrap_or_default().into_iter().zip(ids);
        let lags = self.lags_ms.into_iter().map(|lag| lag.unwrap_or(0).max(0));
        let behind = self.behind.into_iter().zip(lags);
        let behind: Vec<Behind> =
            behind.map(|(events, lag_ms)| Behind { events, lag_ms }).collect();
        Walk {
            partition: self.partition,
            from: self.cursor,
            end,
            applied_up_to: self.first_pending.unwrap_or(end).min(end),
            seen_to,
            more,
            foreign: self.foreign,
            pending: wallets
                .zip(numbers)
                .map(|((tenant, id), (version, event))| (wallet_key(&tenant, &id), version, event))
                .collect(),
            lag_ms: behind.iter().map(|behind| behind.lag_ms).max().unwrap_or(0),
            behind,
            outbox_age_ms: self.outbox_age_ms.unwrap_or(0).max(0),
        }
    }
}

/// What [`mark_processed`] did in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Marked {
    pub partition: i32,
    /// The last batch that was looked at; none where there was nothing left.
    pub last_id: Option<i64>,
    /// Events that were marked.
    pub marked: i64,
}

/// Marks events of the outbox processed, not published, that all `projectors` have applied: without Kafka
/// no publisher does. Looks at the batches behind the given id that begin within `limit` events of
/// each partition, so that events of parked wallets cannot hide those behind them. A batch waits until it
/// is applied; what parked wallets have in it becomes the next part, which waits alone.
pub async fn mark_processed(
    connection: &mut Connection,
    topic: &str,
    projectors: &[&str],
    after: &[(i32, i64)],
    limit: i64,
) -> Result<Vec<Marked>> {
    Ok(sqlx::query_as(
        "with looked as materialized ( \
            select a.partition, o.tenant_id, o.id, o.part, o.wallets, o.versions \
            from unnest($3::int[], $4::bigint[]) a(partition, id) cross join lateral ( \
                select w.* from (select b.tenant_id, b.id, b.part, b.wallets, b.versions, \
                        sum(cardinality(b.versions)) over (order by b.id, b.part) \
                            - cardinality(b.versions) as before \
                    from outbox_batches b where b.topic = $1 and b.partition = a.partition \
                      and b.processed_at is null and b.id > a.id \
                    order by b.id, b.part limit $5) w where w.before < $5) o), \
         applied as (select l.tenant_id, l.id, l.part, e.places, \
                cardinality(l.versions) as events \
            from looked l cross join lateral ( \
                select array_agg(u.place) filter (where p.behind = 0) as places, \
                    sum(p.waits) as waits \
                from unnest(l.wallets, l.versions) with ordinality \
                    as u(wallet_id, version, place) \
                cross join lateral (select count(*) as behind, count(*) filter (where not exists ( \
                        select from parked_wallets k where k.tenant_id = l.tenant_id \
                          and k.projector = p.projector and k.wallet_id = u.wallet_id)) as waits \
                    from unnest($2::text[]) p(projector) where u.version > coalesce(( \
                        select v.version from projected_versions v \
                        where v.tenant_id = l.tenant_id and v.projector = p.projector \
                          and v.wallet_id = u.wallet_id), 0)) p) e \
            where e.waits = 0 and e.places is not null), \
         free as materialized (select a.places, a.events, o.* from applied a cross join lateral ( \
            select * from outbox_batches where tenant_id = a.tenant_id and id = a.id \
              and part = a.part and processed_at is null limit 1 for no key update skip locked) o), \
         rest as (insert into outbox_batches (tenant_id, id, part, topic, partition, created_at, \
                wallets, versions) overriding system value \
            select f.tenant_id, f.id, (select max(part) + 1 from outbox_batches \
                    where tenant_id = f.tenant_id and id = f.id), f.topic, f.partition, f.created_at, \
                outbox_without(f.wallets, f.places), outbox_without(f.versions, f.places) \
            from free f where cardinality(f.places) < f.events), \
         marked as (insert into outbox_batches as b (tenant_id, id, part, topic, partition, \
                created_at, wallets, versions) overriding system value \
            select f.tenant_id, f.id, f.part, f.topic, f.partition, f.created_at, \
                case when cardinality(f.places) = f.events then f.wallets else \
                    outbox_at(f.wallets, f.places) end, \
                case when cardinality(f.places) = f.events then f.versions else \
                    outbox_at(f.versions, f.places) end from free f \
            on conflict on constraint outbox_batches_pkey do update \
            set processed_at = clock_timestamp(), wallets = excluded.wallets, \
                versions = excluded.versions \
            returning b.partition, cardinality(b.versions) as events) \
         select a.partition, (select max(l.id) from looked l where l.partition = a.partition) \
                as last_id, coalesce((select sum(m.events) from marked m \
                    where m.partition = a.partition), 0) as marked \
         from unnest($3::int[]) a(partition) order by a.partition",
    )
    .bind(topic)
    .bind(projectors)
    .bind(after.iter().map(|(partition, _)| *partition).collect::<Vec<_>>())
    .bind(after.iter().map(|(_, id)| *id).collect::<Vec<_>>())
    .bind(limit)
    .fetch_all(connection)
    .await?)
}
