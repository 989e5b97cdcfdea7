//! A projection rebuilt beside the one in force: a schema of its own has tables of the same names,
//! and a session whose search path begins there projects into them with the ordinary statements.
//! The swap puts the new table in the old one's place, in one short transaction.
//!
//! Owner's work: the application's role may not change the books.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::dual_publish::DUAL_PUBLISHER;
use super::time::{optional_time, time};
use super::{Connection, Result, lag, parked};
use crate::status::COMMANDS;
use crate::wallet::{TenantId, WalletId};

/// Where the new tables are until the swap.
const SHADOW: &str = "wallex_rebuild";
/// Among the advisory locks of the database: one rebuild at a time, as long as its session lives.
const LOCK: i64 = 0x7761_6c6c_6578_0002;

/// A projection's table, and whose it is.
#[derive(Debug, Clone)]
pub struct Target {
    pub table: &'static str,
    pub projector: &'static str,
    /// The schema of the tables in force.
    pub home: String,
}

/// The last rebuild of a projection.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRebuild {
    pub projector: String,
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime)]
    pub started_at: DateTime<Utc>,
    /// Null: under way, or broken off; the projection is then as it was.
    #[serde(serialize_with = "optional_time")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub finished_at: Option<DateTime<Utc>>,
    #[schema(minimum = 0)]
    pub events: i64,
}

/// Where a projector stands in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionPlace {
    pub projector: String,
    pub partition: i32,
    /// The next offset of the topic.
    pub next_offset: i64,
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: DateTime<Utc>,
    /// Events that are not applied. Null: it is not known.
    #[schema(required, minimum = 0)]
    pub lag: Option<i64>,
    /// There may be more than these: not all of them were looked at.
    pub more: bool,
    /// Why the lag is not known.
    #[schema(required)]
    pub unknown: Option<&'static str>,
}

/// The state of the projections.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProjectionsState)]
pub struct State {
    pub partitions: Vec<PartitionPlace>,
    pub parked: Vec<ParkedWallet>,
    /// Somebody is rebuilding one.
    pub rebuilding: bool,
    pub rebuilds: Vec<LastRebuild>,
}

/// A wallet that waits, and at which version.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParkedWallet {
    pub projector: String,
    pub wallet_id: String,
    pub version: i64,
    pub cause: String,
}

/// Takes the right to rebuild, until the session ends; false while another has it.
pub async fn claim(connection: &mut Connection) -> Result<bool> {
    Ok(sqlx::query_scalar("select pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(connection)
        .await?)
}

/// Whether somebody is rebuilding.
async fn is_running(connection: &mut Connection) -> Result<bool> {
    let (high, low) = (LOCK >> 32, LOCK & 0xffff_ffff);
    Ok(sqlx::query_scalar(
        "select exists (select from pg_locks where locktype = 'advisory' and granted \
             and database = (select oid from pg_database where datname = current_database()) \
             and classid::bigint = $1 and objid::bigint = $2 and objsubid = 1)",
    )
    .bind(high)
    .bind(low)
    .fetch_one(connection)
    .await?)
}

/// The schema of the tables in force, if this session may replace the table.
pub async fn home(connection: &mut Connection, table: &str) -> Result<Option<String>> {
    Ok(sqlx::query_scalar(
        "select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.oid = to_regclass($1) and pg_has_role(current_user, c.relowner, 'usage') \
           and has_database_privilege(current_user, current_database(), 'create')",
    )
    .bind(table)
    .fetch_optional(connection)
    .await?)
}

/// Makes the new tables, empty, in place of what an earlier rebuild has left, and has this session
/// work in them. Indexes come later, but for those that the projection itself needs.
pub async fn begin(connection: &mut Connection, target: &Target) -> Result<()> {
    let Target { table, home, .. } = target;
    let sides = ["projected_versions", "parked_wallets"];
    let mut sql = format!(
        "set client_min_messages = warning; drop schema if exists {SHADOW} cascade; \
         create schema {SHADOW}; \
         create table {SHADOW}.{table} (like \"{home}\".{table} including all excluding indexes); \
         select wallex_confine('{SHADOW}.{table}');"
    );
    for side in sides {
        sql.push_str(&format!(
            "create table {SHADOW}.{side} (like \"{home}\".{side} including all);"
        ));
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await?;
    let constraints = "select format('alter table %I.%I add constraint %I %s', $3::text, \
             c.relname, k.conname, pg_get_constraintdef(k.oid)) \
         from pg_constraint k join pg_class c on c.oid = k.conrelid \
         where c.relname = $2 and c.relnamespace = to_regnamespace(quote_ident($1)) \
           and k.contype in ('p', 'u', 'x') order by k.conname";
    let options = "select format('alter table %I.%I set (%s)', $3::text, c.relname, \
             array_to_string(c.reloptions, ', ')) from pg_class c \
         where c.relname = $2 and c.relnamespace = to_regnamespace(quote_ident($1)) \
           and c.reloptions is not null";
    run_each(connection, target, constraints).await?;
    run_each(connection, target, options).await?;
    let path = format!("set search_path = {SHADOW}, \"{home}\"");
    sqlx::raw_sql(sqlx::AssertSqlSafe(path)).execute(connection).await?;
    Ok(())
}

/// Gives the filled table the indexes of the one in force, under their names, and statistics.
pub async fn index(connection: &mut Connection, target: &Target) -> Result<()> {
    let indexes = "select regexp_replace(pg_get_indexdef(i.indexrelid), \
             '^CREATE (UNIQUE )?INDEX .+? ON (ONLY )?.+? USING ', \
             format('CREATE \\1INDEX %I ON %I.%I USING ', x.relname, $3::text, c.relname)) \
         from pg_index i join pg_class c on c.oid = i.indrelid \
         join pg_class x on x.oid = i.indexrelid \
         where c.relname = $2 and c.relnamespace = to_regnamespace(quote_ident($1)) \
           and not exists (select from pg_constraint k where k.conindid = i.indexrelid \
               and k.contype in ('p', 'u', 'x')) \
         order by x.relname";
    run_each(connection, target, indexes).await?;
    let analyze = format!("analyze {SHADOW}.{}", target.table);
    sqlx::raw_sql(sqlx::AssertSqlSafe(analyze)).execute(connection).await?;
    Ok(())
}

/// Runs the statements that a query makes from the catalogue.
async fn run_each(connection: &mut Connection, target: &Target, query: &'static str) -> Result<()> {
    let statements: Vec<String> = sqlx::query_scalar(query)
        .bind(&target.home)
        .bind(target.table)
        .bind(SHADOW)
        .fetch_all(&mut *connection)
        .await?;
    for statement in statements {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Every tenant that has wallets.
pub async fn tenants(connection: &mut Connection) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar("select distinct tenant_id from wallets order by tenant_id")
        .fetch_all(connection)
        .await?)
}

/// How many events there are, and the oldest transaction that may still add to them.
pub async fn extent(connection: &mut Connection) -> Result<(i64, i64)> {
    Ok(sqlx::query_as(
        "select coalesce(sum(version), 0)::bigint, \
             pg_snapshot_xmin(pg_current_snapshot())::text::bigint from wallets",
    )
    .fetch_one(connection)
    .await?)
}

/// The next wallets behind one, and the versions that they have.
pub async fn wallets_after(
    connection: &mut Connection,
    tenant: &TenantId,
    after: &str,
    limit: i64,
) -> Result<Vec<(WalletId, i64)>> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select id, version from wallets where tenant_id = $1 and id > $2 order by id limit $3",
    )
    .bind(tenant.as_str())
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, version)| (WalletId::stored(&id), version)).collect())
}

/// The wallets with events of transactions from `xid` on that the new table lacks, with their last
/// versions; and where to look from next time.
pub async fn changed_since(
    connection: &mut Connection,
    tenant: &TenantId,
    projector: &str,
    xid: i64,
) -> Result<(i64, Vec<(WalletId, i64)>)> {
    let (next, wallets, versions): (i64, Vec<String>, Vec<i64>) = sqlx::query_as(
        "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint, \
             coalesce(array_agg(wallet_id), '{}'), coalesce(array_agg(version), '{}') \
         from (select e.wallet_id, max(e.version) as version \
             from (select coalesce(max(partitions), 1) as count from topics \
                 where tenant_id = $1) t \
             cross join lateral generate_series(0, t.count - 1) as p(partition) \
             cross join lateral (select wallet_id, version from events e \
                 where e.tenant_id = $1 and e.partition = p.partition \
                   and e.commit_xid >= $3::text::xid8 \
                   and e.commit_xid < pg_snapshot_xmax(pg_current_snapshot())) e \
             where e.version > coalesce((select v.version from projected_versions v \
                     where v.tenant_id = $1 and v.projector = $2 \
                       and v.wallet_id = e.wallet_id), 0) \
               and not exists (select from parked_wallets k where k.tenant_id = $1 \
                   and k.projector = $2 and k.wallet_id = e.wallet_id) \
             group by e.wallet_id) changed",
    )
    .bind(tenant.as_str())
    .bind(projector)
    .bind(xid)
    .fetch_one(connection)
    .await?;
    let found = wallets.iter().map(|id| WalletId::stored(id)).zip(versions);
    Ok((next, found.collect()))
}

/// Stops the projectors of every instance where they are, for the running transaction, which must
/// be short: whatever they apply later, they apply to the new table.
pub async fn hold_projectors(connection: &mut Connection, target: &Target) -> Result<()> {
    let Target { home, projector, .. } = target;
    // Longer than deadlock_timeout, after which an autovacuum gives way.
    sqlx::raw_sql("set local lock_timeout = '1500ms'; set local synchronous_commit = on")
        .execute(&mut *connection)
        .await?;
    // In the order in which projectors lock: partitions, then wallets.
    let partitions = format!(
        "select partition from \"{home}\".projector_checkpoints where projector = $1 \
         order by tenant_id, topic, partition for update"
    );
    sqlx::query(sqlx::AssertSqlSafe(partitions)).bind(projector).execute(&mut *connection).await?;
    let versions = format!("lock table \"{home}\".projected_versions in exclusive mode");
    sqlx::raw_sql(sqlx::AssertSqlSafe(versions)).execute(connection).await?;
    Ok(())
}

/// Puts the new table in place, with the rights, the owner and the versions that belong to it.
/// Readers wait for the moment of the commit only.
pub async fn swap(connection: &mut Connection, target: &Target, events: i64) -> Result<()> {
    let Target { table, projector, home } = target;
    let merges = [
        format!(
            "insert into \"{home}\".projected_versions as held \
                 select made.* from {SHADOW}.projected_versions made \
                 left join \"{home}\".projected_versions old using (tenant_id, projector, wallet_id) \
                 where made.projector = $1 and (old.version, old.totals_at, old.total_credits, \
                         old.total_debits, old.transaction_count) is distinct from (made.version, \
                         made.totals_at, made.total_credits, made.total_debits, \
                         made.transaction_count) \
             on conflict (tenant_id, projector, wallet_id) do update \
                 set version = excluded.version, totals_at = excluded.totals_at, \
                     total_credits = excluded.total_credits, \
                     total_debits = excluded.total_debits, \
                     transaction_count = excluded.transaction_count"
        ),
        format!(
            "delete from \"{home}\".projected_versions old where projector = $1 and not exists \
                 (select from {SHADOW}.projected_versions made where made.tenant_id = old.tenant_id \
                    and made.projector = old.projector and made.wallet_id = old.wallet_id)"
        ),
        format!("delete from \"{home}\".parked_wallets where projector = $1"),
        format!(
            "insert into \"{home}\".parked_wallets select * from {SHADOW}.parked_wallets \
             where projector = $1"
        ),
    ];
    for merge in merges {
        sqlx::query(sqlx::AssertSqlSafe(merge)).bind(projector).execute(&mut *connection).await?;
    }
    let rights = rights(connection, target).await?;
    let moves = format!(
        "drop table \"{home}\".{table}; alter table {SHADOW}.{table} set schema \"{home}\"; {rights} \
         drop schema {SHADOW} cascade"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(moves)).execute(&mut *connection).await?;
    let note = format!(
        "update \"{home}\".projection_rebuilds set finished_at = clock_timestamp(), events = $2 \
         where projector = $1"
    );
    let note = sqlx::query(sqlx::AssertSqlSafe(note)).bind(projector).bind(events);
    note.execute(connection).await?;
    Ok(())
}

/// The statements that give a table of this name the rights and the owner of the one in force.
async fn rights(connection: &mut Connection, target: &Target) -> Result<String> {
    let statements: Vec<String> = sqlx::query_scalar(
        "select statement from ( \
             select 1 as place, format('grant %s on %I.%I to %s%s;', a.privilege_type, $1::text, \
                 c.relname, case a.grantee when 0 then 'public' \
                     else quote_ident(pg_get_userbyid(a.grantee)) end, \
                 case when a.is_grantable then ' with grant option' else '' end) as statement \
             from pg_class c cross join lateral aclexplode(c.relacl) a \
             where c.relname = $2 and c.relnamespace = to_regnamespace(quote_ident($1)) \
               and a.grantee <> c.relowner \
             union all \
             select 2, format('alter table %I.%I owner to %I;', $1::text, c.relname, \
                 pg_get_userbyid(c.relowner)) \
             from pg_class c \
             where c.relname = $2 and c.relnamespace = to_regnamespace(quote_ident($1)) \
               and c.relowner <> current_user::regrole) s order by place, statement",
    )
    .bind(&target.home)
    .bind(target.table)
    .fetch_all(connection)
    .await?;
    Ok(statements.join(" "))
}

/// Notes that a rebuild has begun, or how far it is.
pub async fn note(connection: &mut Connection, target: &Target, events: i64) -> Result<()> {
    let sql = format!(
        "insert into \"{}\".projection_rebuilds (tenant_id, projector, events) \
         values ('default', $1, $2) on conflict on constraint projection_rebuilds_pkey do update \
         set events = excluded.events, finished_at = null, \
             started_at = case when excluded.events = 0 then clock_timestamp() \
                 else projection_rebuilds.started_at end",
        target.home
    );
    let note = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(target.projector).bind(events);
    note.execute(connection).await?;
    Ok(())
}

/// Removes what a rebuild that was stopped leaves behind.
pub async fn abandon(connection: &mut Connection) -> Result<()> {
    let sql = format!("drop schema if exists {SHADOW} cascade");
    Ok(sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection).await.map(drop)?)
}

/// All of it. At most a thousand parked wallets.
pub async fn state(connection: &mut Connection, tenant: &TenantId) -> Result<State> {
    let all = parked::Filter { wallet: None, state: None, limit: 1000 };
    let parked = parked::list(connection, tenant, &all).await?;
    let waiting = |p: parked::Parked| ParkedWallet {
        projector: p.projector,
        wallet_id: p.wallet_id,
        version: p.version,
        cause: p.cause,
    };
    Ok(State {
        partitions: places(connection, tenant).await?,
        parked: parked.into_iter().map(waiting).collect(),
        rebuilding: is_running(connection).await?,
        rebuilds: last(connection, tenant).await?,
    })
}

/// The last rebuilds.
async fn last(connection: &mut Connection, tenant: &TenantId) -> Result<Vec<LastRebuild>> {
    Ok(sqlx::query_as(
        "select projector, started_at, finished_at, events from projection_rebuilds \
         where tenant_id = $1 order by projector",
    )
    .bind(tenant.as_str())
    .fetch_all(connection)
    .await?)
}

/// Where the projectors stand in every partition. The consumer of commands and the second
/// destination have places, too, and no projection.
async fn places(connection: &mut Connection, tenant: &TenantId) -> Result<Vec<PartitionPlace>> {
    let rows: Vec<(String, i32, i64, DateTime<Utc>)> = sqlx::query_as(
        "select projector, partition, next_offset, updated_at from projector_checkpoints \
         where tenant_id = $1 and not starts_with(projector, $2) and projector <> $3 \
         order by projector, partition",
    )
    .bind(tenant.as_str())
    .bind(COMMANDS)
    .bind(DUAL_PUBLISHER)
    .fetch_all(&mut *connection)
    .await?;
    let mut names: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    names.dedup();
    let lags = lag::lags(connection, &names, super::SILENT).await?;
    let place = |(projector, partition, next_offset, updated_at): (String, i32, _, _)| {
        let own = lags.iter().find(|l| l.projector == projector && l.partition == partition);
        let known = own.filter(|lag| lag.unknown.is_none());
        PartitionPlace {
            partition,
            next_offset,
            updated_at,
            lag: known.map(|lag| lag.events),
            more: own.is_some_and(|lag| lag.more),
            unknown: own.and_then(|lag| lag.unknown).map(lag::Unknown::text),
            projector,
        }
    };
    Ok(rows.into_iter().map(place).collect())
}
