//! Leases of partitions: owner, epoch and expiry by the database's clock. An instance that takes a
//! partition raises its epoch, and with it fences off every write of the owner before.
//!
//! All statements lock the rows of an instance in partition order, and take those of others without
//! waiting: instances cannot block each other, nor one its own marks.

use std::time::Duration;

use super::{Connection, Pool, Result};

/// The channel on which an instance says that it came, went or gave something up.
pub const LEASES_CHANNEL: &str = "wallex_leases";

/// The role of who publishes.
pub const PUBLISHER: &str = "publisher";

/// What partitions are leased for: `role` is [`PUBLISHER`] or a projector's name.
#[derive(Debug, Clone)]
pub struct Leased {
    pub tenant: String,
    pub role: &'static str,
    pub topic: String,
    /// The partitions are 0 up to this.
    pub partitions: i32,
}

/// An instance as the others see it.
#[derive(Debug, Clone)]
pub struct Member {
    pub owner: String,
    /// The advisory lock that its listening session holds, if it has one.
    pub session: Option<i64>,
    /// A silent member keeps its partitions for so long.
    pub lease: Duration,
}

/// A partition that its owner may work on while the epoch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub partition: i32,
    pub epoch: i64,
    /// The last offset known to hold a record of this publisher; none before the first.
    pub last_offset: Option<i64>,
}

/// What a member has after a renewal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseState {
    /// The number of other live members.
    pub others: u32,
    /// The number of partitions it should have; what is above that it should give up.
    pub share: usize,
    pub leases: Vec<Lease>,
}

/// Which instance has a partition, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Holder {
    pub role: String,
    pub partition: i32,
    /// None: the partition is free, or the lease has run out.
    pub owner: Option<String>,
    /// A projector's next offset in the topic.
    pub next_offset: Option<i64>,
}

/// Makes sure that every partition has its row, once per start; forgets members long gone.
pub async fn open(connection: &mut Connection, leased: &Leased) -> Result<()> {
    Ok(sqlx::query(
        "with gone as (delete from lease_members \
             where expires_at < clock_timestamp() - interval '1 day') \
         insert into partition_leases (tenant_id, role, topic, partition) \
         select $1, $2, $3, partition from generate_series(0, $4 - 1) partition \
         on conflict on constraint partition_leases_pkey do nothing",
    )
    .bind(&leased.tenant)
    .bind(leased.role)
    .bind(&leased.topic)
    .bind(leased.partitions)
    .execute(connection)
    .await
    .map(drop)?)
}

/// An owner without a row in lease_members counts as alive: it may have come a moment ago.
const RENEW: &str = "with me as ( \
         insert into lease_members (tenant_id, role, topic, owner, session, expires_at) \
         values ($1, $2, $3, $4, $5, clock_timestamp() + $6 * interval '1 ms') \
         on conflict on constraint lease_members_pkey do update \
             set session = excluded.session, expires_at = excluded.expires_at \
         returning xmax = 0 as joined), \
     listening as materialized ( \
         select (classid::bigint << 32) | objid::bigint as session from pg_locks \
         where locktype = 'advisory' and objsubid = 1 and granted and database = \
             (select oid from pg_database where datname = current_database())), \
     others as materialized ( \
         select owner, session is not null \
             and session not in (select session from listening) as gone \
         from lease_members \
         where tenant_id = $1 and role = $2 and topic = $3 and owner <> $4 \
           and expires_at > clock_timestamp()), \
     fair as materialized ( \
         select count(*) as others, ceil($7::numeric / (count(*) + 1))::bigint as share \
         from others where not gone), \
     mine as materialized ( \
         select partition from partition_leases \
         where tenant_id = $1 and role = $2 and topic = $3 and owner = $4 and partition < $7 \
         order by partition for no key update), \
     renewed as ( \
         update partition_leases held set \
             expires_at = clock_timestamp() + $6 * interval '1 ms', \
             updated_at = clock_timestamp() \
         from mine where held.tenant_id = $1 and held.role = $2 and held.topic = $3 \
           and held.partition = mine.partition \
         returning held.partition, held.epoch, held.last_offset), \
     free as materialized ( \
         select partition from partition_leases held \
         where tenant_id = $1 and role = $2 and topic = $3 and partition < $7 \
           and (owner is null or owner <> $4 and (expires_at <= clock_timestamp() \
               or owner in (select owner from others where gone))) \
         order by partition \
         limit greatest(0, (select share from fair) - (select count(*) from renewed)) \
         for no key update skip locked), \
     taken as ( \
         update partition_leases held set owner = $4, epoch = held.epoch + 1, \
             expires_at = clock_timestamp() + $6 * interval '1 ms', \
             updated_at = clock_timestamp() \
         from free where held.tenant_id = $1 and held.role = $2 and held.topic = $3 \
           and held.partition = free.partition \
         returning held.partition, held.epoch, held.last_offset) \
     select fair.others, fair.share, has.partition, has.epoch, has.last_offset, \
         (select pg_notify($8, $4)::text from me where joined) as told \
     from fair left join \
         (select * from renewed union all select * from taken) has on true \
     order by has.partition";

/// Renews what `member` has and takes what is free, up to its share, of the partitions that there are. Free is what no member has, what
/// ran out, and what a member has whose listening session ended: its process is gone. One that
/// comes for the first time notifies the others.
pub async fn renew(
    connection: &mut Connection,
    leased: &Leased,
    member: &Member,
) -> Result<LeaseState> {
    let rows: Vec<Row> = sqlx::query_as(RENEW)
        .bind(&leased.tenant)
        .bind(leased.role)
        .bind(&leased.topic)
        .bind(&member.owner)
        .bind(member.session)
        .bind(i64::try_from(member.lease.as_millis()).unwrap_or(i64::MAX))
        .bind(leased.partitions)
        .bind(LEASES_CHANNEL)
        .fetch_all(connection)
        .await?;
    let first = rows.first();
    let lease = |row: &Row| {
        let (partition, epoch, last_offset) = (row.partition?, row.epoch?, row.last_offset);
        Some(Lease { partition, epoch, last_offset })
    };
    Ok(LeaseState {
        others: first.and_then(|row| u32::try_from(row.others).ok()).unwrap_or(0),
        share: first.and_then(|row| usize::try_from(row.share).ok()).unwrap_or(0),
        leases: rows.iter().filter_map(lease).collect(),
    })
}

#[derive(sqlx::FromRow)]
struct Row {
    others: i64,
    share: i64,
    partition: Option<i32>,
    epoch: Option<i64>,
    last_offset: Option<i64>,
}

/// Gives partitions up, and notifies the others.
pub async fn release(
    connection: &mut Connection,
    leased: &Leased,
    owner: &str,
    partitions: &[i32],
) -> Result<()> {
    Ok(sqlx::query(
        "with mine as materialized ( \
             select partition from partition_leases \
             where tenant_id = $1 and role = $2 and topic = $3 and owner = $4 \
               and partition = any($5) order by partition for no key update), \
         freed as ( \
             update partition_leases held set owner = null, expires_at = null, \
                 updated_at = clock_timestamp() \
             from mine where held.tenant_id = $1 and held.role = $2 and held.topic = $3 \
               and held.partition = mine.partition returning held.partition) \
         select pg_notify($6, $4) from (select count(*) from freed) told",
    )
    .bind(&leased.tenant)
    .bind(leased.role)
    .bind(&leased.topic)
    .bind(owner)
    .bind(partitions)
    .bind(LEASES_CHANNEL)
    .execute(connection)
    .await
    .map(drop)?)
}

/// Gives up everything that `owner` has in this role: it stops.
pub async fn leave(connection: &mut Connection, leased: &Leased, owner: &str) -> Result<()> {
    sqlx::query(
        "delete from lease_members \
         where tenant_id = $1 and role = $2 and topic = $3 and owner = $4",
    )
    .bind(&leased.tenant)
    .bind(leased.role)
    .bind(&leased.topic)
    .bind(owner)
    .execute(&mut *connection)
    .await?;
    let all: Vec<i32> = (0..leased.partitions).collect();
    release(connection, leased, owner, &all).await
}

/// Who has what, by role and partition, with the places of the projectors.
pub async fn holders(pool: &Pool) -> Result<Vec<Holder>> {
    Ok(sqlx::query_as(
        "select l.role, l.partition, c.next_offset, \
             case when l.expires_at > clock_timestamp() then l.owner end as owner \
         from partition_leases l left join projector_checkpoints c \
             on c.tenant_id = l.tenant_id and c.projector = l.role and c.topic = l.topic \
             and c.partition = l.partition \
         order by l.role, l.partition",
    )
    .fetch_all(pool)
    .await?)
}
