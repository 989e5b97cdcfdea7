//! Where each projector stands: its place in every partition, and the last version of each wallet.
//!
//! Both move in the transaction of the projection they stand for. A partition's row is locked
//! before anything of that partition is applied, so two owners of a partition take turns and the
//! second finds its place moved.

use std::collections::HashMap;

use super::projected::{Table, Versions};
use super::{Connection, PIPELINE, Result, columns, server, wallet_key};
use crate::ledger::Totals;
use crate::wallet::WalletKey;

/// One projector over one topic, whose events are of all tenants: whose checkpoints these are.
#[derive(Debug, Clone)]
pub struct Subscription {
    pub projector: &'static str,
    pub topic: String,
}

/// A projector's place in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub partition: i32,
    /// The next offset of the topic.
    pub next_offset: i64,
    /// Every event of a transaction below this one is applied.
    pub feed_xid: i64,
    /// The server that says so, as [`super::commands::Begun`] has it.
    pub server: i64,
}

/// How far a projector is with a wallet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stands {
    pub version: i64,
    /// Where the wallet's row lies in a table that has the versions itself. It stays there while it is locked.
    pub place: Option<String>,
}

/// The wallets that a projector has a version of.
pub type Standing = HashMap<WalletKey, Stands>;

/// The version that a wallet has reached; 0 where nothing of it is applied.
pub fn version_of(standing: &Standing, wallet: &WalletKey) -> i64 {
    standing.get(wallet).map_or(0, |stands| stands.version)
}

/// The version that a wallet has reached, and what its entries up to there add to its totals; none where
/// the projector keeps no totals.
#[derive(Debug, Clone, Copy)]
pub struct Reached<'a> {
    pub wallet: &'a WalletKey,
    pub version: i64,
    pub totals: Option<Totals>,
}

/// One partition's places, from what they must be to what they become. None stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    pub partition: i32,
    pub next_offset: Option<(i64, i64)>,
    pub feed_xid: Option<(i64, i64)>,
}

/// How a projector's place moves.
pub type Move = (&'static str, Advance);

/// Reads over how many partitions a topic's wallets are hashed; none before the count is frozen.
pub async fn partitions(connection: &mut Connection, topic: &str) -> Result<Option<i32>> {
    Ok(sqlx::query_scalar("select partitions from topics where tenant_id = $1 and name = $2")
        .bind(PIPELINE)
        .bind(topic)
        .fetch_optional(connection)
        .await?)
}

/// All checkpoints of a subscription in partition order; those that are missing begin at zero.
pub async fn load(
    connection: &mut Connection,
    of: &Subscription,
    partitions: i32,
) -> Result<Vec<Checkpoint>> {
    sqlx::query(
        "insert into projector_checkpoints (tenant_id, projector, topic, partition) \
         select $1, $2, $3, partition from generate_series(0, $4 - 1) partition \
         on conflict do nothing",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&of.topic)
    .bind(partitions)
    .execute(&mut *connection)
    .await?;
    let rows: Vec<(i32, i64, i64, i64)> = sqlx::query_as(concat!(
        "select partition, next_offset, feed_xid::text::bigint, ",
        server!(),
        " from projector_checkpoints \
         where tenant_id = $1 and projector = $2 and topic = $3 order by partition",
    ))
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&of.topic)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(checkpoint).collect())
}

/// Locks places, in the order given, each a projector's in a partition, and says where they stand.
pub async fn lock(
    connection: &mut Connection,
    topic: &str,
    places: &[(&str, i32)],
) -> Result<Vec<(String, Checkpoint)>> {
    let rows: Vec<(String, i32, i64, i64, i64)> = sqlx::query_as(concat!(
        "select c.* from unnest($2::text[], $4::int[]) as given(projector, partition) \
         cross join lateral (select projector, partition, next_offset, \
             feed_xid::text::bigint as feed_xid, ",
        server!(),
        " as server from projector_checkpoints \
             where tenant_id = $1 and projector = given.projector and topic = $3 \
               and partition = given.partition for no key update) c",
    ))
    .bind(PIPELINE)
    .bind(places.iter().map(|(projector, _)| *projector).collect::<Vec<_>>())
    .bind(topic)
    .bind(places.iter().map(|(_, partition)| *partition).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let named = |(projector, partition, next_offset, feed_xid, server)| {
        (projector, Checkpoint { partition, next_offset, feed_xid, server })
    };
    Ok(rows.into_iter().map(named).collect())
}

/// Compare-and-set of many partitions; returns those that moved.
pub async fn advance(
    connection: &mut Connection,
    of: &Subscription,
    moves: &[Advance],
) -> Result<Vec<i32>> {
    let moves: Vec<Move> = moves.iter().map(|to| (of.projector, *to)).collect();
    let moved = note(connection, of, &[], &moves).await?;
    Ok(moved.into_iter().map(|(_, partition)| partition).collect())
}

/// Notes the last applied versions of wallets, whose rows are locked, and moves places by compare-and-set,
/// of this projector and of others over its topic: returns those that moved. A wallet's totals move with
/// its version.
pub async fn note(
    connection: &mut Connection,
    of: &Subscription,
    reached: &[Reached<'_>],
    moves: &[Move],
) -> Result<Vec<(String, i32)>> {
    let from = |pair: Option<(i64, i64)>| pair.map(|(from, _)| from);
    let to = |pair: Option<(i64, i64)>| pair.map(|(_, to)| to);
    let sum = |of: fn(Totals) -> i128| {
        let text = |wallet: &Reached<'_>| wallet.totals.map(|totals| Totals::text(of(totals)));
        reached.iter().map(text).collect::<Vec<_>>()
    };
    let (tenants, wallets) = columns(reached.iter().map(|reached| reached.wallet));
    let rows: Vec<NotedRow> = sqlx::query_as(
        "with noted as ( \
             insert into projected_wallets as held (tenant_id, projector, wallet_id, version, \
                 totals_at, total_credits, total_debits, transaction_count) \
             select v.tenant_id, $2, v.wallet_id, v.version, \
                 case when v.entries is not null then v.version end, \
                 v.credits::numeric, v.debits::numeric, v.entries \
             from unnest($9::text[], $10::bigint[], $11::text[], $12::text[], $13::bigint[], \
                     $15::text[]) \
                 v(wallet_id, version, credits, debits, entries, tenant_id) \
             on conflict (tenant_id, projector, wallet_id) do update set version = excluded.version, \
                 totals_at = case when held.totals_at = held.version \
                     then excluded.totals_at else held.totals_at end, \
                 total_credits = case when held.totals_at = held.version \
                     then held.total_credits + excluded.total_credits else held.total_credits end, \
                 total_debits = case when held.totals_at = held.version \
                     then held.total_debits + excluded.total_debits else held.total_debits end, \
                 transaction_count = case when held.totals_at = held.version \
                     then held.transaction_count + excluded.transaction_count \
                     else held.transaction_count end \
             returning tenant_id, wallet_id, totals_at is distinct from version as late), \
         moved as (update projector_checkpoints c \
             set next_offset = coalesce(m.offset_to, c.next_offset), \
                 feed_xid = coalesce(m.xid_to::text::xid8, c.feed_xid), \
                 updated_at = clock_timestamp() \
             from unnest($4::int[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], \
                     $16::text[]) \
                 m(partition, offset_from, offset_to, xid_from, xid_to, projector) \
             where c.tenant_id = $1 and c.projector = m.projector and c.topic = $3 \
               and c.partition = m.partition \
               and (m.offset_from is null or c.next_offset = m.offset_from) \
               and (m.xid_from is null or c.feed_xid = m.xid_from::text::xid8) \
             returning c.partition, c.projector) \
         select partition, projector, null as tenant, null as wallet from moved \
         union all select null, null, tenant_id, wallet_id from noted where late and $14",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&of.topic)
    .bind(moves.iter().map(|(_, m)| m.partition).collect::<Vec<_>>())
    .bind(moves.iter().map(|(_, m)| from(m.next_offset)).collect::<Vec<_>>())
    .bind(moves.iter().map(|(_, m)| to(m.next_offset)).collect::<Vec<_>>())
    .bind(moves.iter().map(|(_, m)| from(m.feed_xid)).collect::<Vec<_>>())
    .bind(moves.iter().map(|(_, m)| to(m.feed_xid)).collect::<Vec<_>>())
    .bind(wallets)
    .bind(reached.iter().map(|wallet| wallet.version).collect::<Vec<_>>())
    .bind(sum(|totals| totals.credits))
    .bind(sum(|totals| totals.debits))
    .bind(reached.iter().map(|wallet| wallet.totals.map(|t| t.entries)).collect::<Vec<_>>())
    .bind(reached.iter().any(|wallet| wallet.totals.is_some()))
    .bind(tenants)
    .bind(moves.iter().map(|(projector, _)| *projector).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    let late: Vec<WalletKey> = rows.iter().filter_map(NotedRow::late).collect();
    if !late.is_empty() {
        super::entries::total(connection, of, &late).await?;
    }
    Ok(rows.into_iter().filter_map(|row| row.projector.zip(row.partition)).collect())
}

/// A place that moved, or a wallet whose totals are late.
#[derive(sqlx::FromRow)]
struct NotedRow {
    partition: Option<i32>,
    projector: Option<String>,
    tenant: Option<String>,
    wallet: Option<String>,
}

impl NotedRow {
    fn late(&self) -> Option<WalletKey> {
        Some(wallet_key(self.tenant.as_deref()?, self.wallet.as_deref()?))
    }
}

/// Begins a projection's transaction. Its commit need not reach the disk: checkpoint and projection
/// are in it together, so what a crash takes is applied again.
pub async fn begin(connection: &mut Connection) -> Result<()> {
    let begin = "begin; set local synchronous_commit = off; \
                 set local enable_hashjoin = off; set local enable_mergejoin = off";
    Ok(sqlx::raw_sql(begin).execute(connection).await.map(drop)?)
}

/// The same for several projections in one transaction: none is to wait long for another session's lock on
/// what is another projection's. Where one would, each goes on by itself.
pub async fn begin_together(connection: &mut Connection) -> Result<()> {
    let begin = "begin; set local synchronous_commit = off; \
                 set local enable_hashjoin = off; set local enable_mergejoin = off; \
                 set local lock_timeout = '500ms'; set local statement_timeout = '10s'";
    Ok(sqlx::raw_sql(begin).execute(connection).await.map(drop)?)
}

/// The same for a part of a round that failed: many of them follow on each other, and one that waits
/// for another session's lock, or for a function that does not end, must not use up all their time.
pub async fn begin_apart(connection: &mut Connection) -> Result<()> {
    begin(connection).await?;
    let bounds = "set local lock_timeout = '500ms'; set local statement_timeout = '1500ms'";
    Ok(sqlx::raw_sql(bounds).execute(connection).await.map(drop)?)
}

/// How far the projector is with each wallet, locked in the order given. A wallet that has no row to lock is
/// not in the answer.
pub async fn versions_lock(
    connection: &mut Connection,
    of: &Subscription,
    table: &Table,
    wallets: &[&WalletKey],
) -> Result<Standing> {
    standing(connection, of, table, wallets, ALL, "for no key update").await
}

/// The same without parked wallets of a table that has the versions itself: their rows may be why they are
/// parked, such as one that another session has locked, and no other wallet is to wait for it.
pub async fn unparked_lock(
    connection: &mut Connection,
    of: &Subscription,
    table: &Table,
    wallets: &[&WalletKey],
) -> Result<Standing> {
    let whom = if table.versions == Versions::InTable { UNPARKED } else { ALL };
    standing(connection, of, table, wallets, whom, "for no key update").await
}

/// Reads the same as it stands, without waiting for a transaction that has it locked.
pub async fn versions(
    connection: &mut Connection,
    of: &Subscription,
    table: &Table,
    wallets: &[&WalletKey],
) -> Result<Standing> {
    standing(connection, of, table, wallets, ALL, "limit 1").await
}

const ALL: &str = "unnest($2::text[], $3::text[]) as wanted(tenant, id)";
const UNPARKED: &str = "(select w.tenant, w.id from unnest($2::text[], $3::text[]) as w(tenant, id) \
     where (select true from parked_wallets p where p.tenant_id = w.tenant and p.projector = $1 \
         and p.wallet_id = w.id limit 1) is null offset 0) as wanted";

async fn standing(
    connection: &mut Connection,
    of: &Subscription,
    table: &Table,
    wallets: &[&WalletKey],
    whom: &'static str,
    how: &'static str,
) -> Result<Standing> {
    let (tenants, ids) = columns(wallets.iter().copied());
    let found = match table.versions {
        Versions::Apart => format!(
            "select tenant_id, wallet_id, version, null as place from projected_wallets \
             where tenant_id = wanted.tenant and projector = given.projector \
               and wallet_id = wanted.id {how}"
        ),
        Versions::InTable => format!(
            "select tenant_id, {wallet} as wallet_id, version, ctid::text as place from {name} \
             where tenant_id = wanted.tenant and {wallet} = wanted.id {how}",
            wallet = table.wallet,
            name = table.name
        ),
    };
    let sql = format!(
        "select v.* from (select $1::text) as given(projector) \
         cross join {whom} cross join lateral ({found}) v"
    );
    let rows: Vec<(String, String, i64, Option<String>)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(of.projector)
        .bind(tenants)
        .bind(ids)
        .fetch_all(connection)
        .await?;
    let stands = |(tenant, id, version, place): (String, String, i64, Option<String>)| {
        (wallet_key(&tenant, &id), Stands { version, place })
    };
    Ok(rows.into_iter().map(stands).collect())
}

/// Makes sure that wallets have rows for [`versions_lock`] to lock. Outside a transaction: projectors
/// must see the rows before the lock is worth anything. Version 0: nothing is applied yet. A table that has
/// the versions itself cannot have such rows: there the first writer of a wallet is the only one.
pub async fn versions_open(
    connection: &mut Connection,
    of: &Subscription,
    table: &Table,
    wallets: &[&WalletKey],
) -> Result<()> {
    if table.versions == Versions::InTable {
        return Ok(());
    }
    let (tenants, ids) = columns(wallets.iter().copied());
    sqlx::query(
        "insert into projected_wallets (tenant_id, projector, wallet_id, version) \
         select tenant, $2, id, 0 from unnest($1::text[], $3::text[]) as wanted(tenant, id) \
         order by tenant, id on conflict do nothing",
    )
    .bind(tenants)
    .bind(of.projector)
    .bind(ids)
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether some partition stands before a place that it had: an operator moved it back. Each is given with
/// its next offset and its place among transactions.
pub async fn is_moved_back(
    connection: &mut Connection,
    of: &Subscription,
    places: &[(i32, i64, i64)],
) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select from projector_checkpoints c \
             join unnest($4::int[], $5::bigint[], $6::bigint[]) p(partition, place, xid) \
                 on p.partition = c.partition \
             where c.tenant_id = $1 and c.projector = $2 and c.topic = $3 \
               and (c.next_offset < p.place or c.feed_xid < p.xid::text::xid8))",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&of.topic)
    .bind(places.iter().map(|(partition, ..)| *partition).collect::<Vec<_>>())
    .bind(places.iter().map(|(_, place, _)| *place).collect::<Vec<_>>())
    .bind(places.iter().map(|(.., xid)| *xid).collect::<Vec<_>>())
    .fetch_one(connection)
    .await?)
}

fn checkpoint((partition, next_offset, feed_xid, server): (i32, i64, i64, i64)) -> Checkpoint {
    Checkpoint { partition, next_offset, feed_xid, server }
}
