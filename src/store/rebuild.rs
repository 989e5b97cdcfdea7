//! What a rebuild of a projection does in the database, wallet by wallet, and what operators see of
//! it. The wallet is the boundary: its rows, its version and its place among parked wallets are
//! replaced in one transaction, under the lock that its projector takes, too.
//!
//! Owner's work: the application's role may not change the books.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::checkpoints::Subscription;
use super::dead_letters::printable;
use super::dual_publish::DUAL_PUBLISHER;
use super::projected::{Table, Versions};
use super::time::{optional_time, time};
use super::{Connection, PIPELINE, Result, columns, lag, parked};
use crate::status::COMMANDS;
use crate::wallet::{TenantId, WalletId, WalletKey};

/// Among the advisory locks of the database: one rebuild at a time, as long as its session lives.
const LOCK: i64 = 0x7761_6c6c_6578_0002;

/// One tenant's part of a rebuild: from which wallet on, and how many events were applied before.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Part {
    pub tenant_id: String,
    pub after_wallet: String,
    pub events: i64,
}

/// The last rebuild of a projection.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRebuild {
    pub projector: String,
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime)]
    pub started_at: DateTime<Utc>,
    /// Null: under way, or broken off; the next one goes on where it was.
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
    /// A rebuild is running.
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

/// Whether a rebuild is running.
pub async fn is_running(connection: &mut Connection) -> Result<bool> {
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

/// Whether this session may replace rows of the table, and note that it does.
pub async fn is_allowed(connection: &mut Connection, table: &str) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select coalesce(has_table_privilege(to_regclass($1), 'delete') \
             and has_table_privilege(to_regclass('projection_rebuilds'), 'insert'), false)",
    )
    .bind(table)
    .fetch_one(connection)
    .await?)
}

/// How many events there are.
pub async fn extent(connection: &mut Connection) -> Result<i64> {
    Ok(sqlx::query_scalar("select coalesce(sum(version), 0)::bigint from wallets")
        .fetch_one(connection)
        .await?)
}

/// Notes that a rebuild begins, and returns what it has to do: what is left of one that was broken
/// off within a day, else every tenant's wallets.
pub async fn begin(
    connection: &mut Connection,
    projector: &str,
    default: &TenantId,
) -> Result<Vec<Part>> {
    let goes_on: bool = sqlx::query_scalar(
        "select exists (select from projection_rebuilds where projector = $1 \
             and finished_at is null and started_at > clock_timestamp() - interval '1 day')",
    )
    .bind(projector)
    .fetch_one(&mut *connection)
    .await?;
    if !goes_on {
        sqlx::query(
            "insert into projection_rebuilds (tenant_id, projector) \
             select tenant_id, $1 from (select distinct tenant_id from wallets union select $2) t \
             on conflict on constraint projection_rebuilds_pkey do update \
                 set started_at = clock_timestamp(), finished_at = null, events = 0, after_wallet = ''",
        )
        .bind(projector)
        .bind(default.as_str())
        .execute(&mut *connection)
        .await?;
    }
    Ok(sqlx::query_as(
        "select tenant_id, after_wallet, events from projection_rebuilds \
         where projector = $1 and finished_at is null order by tenant_id",
    )
    .bind(projector)
    .fetch_all(connection)
    .await?)
}

/// Notes how far a tenant's part is.
pub async fn note(
    connection: &mut Connection,
    of: &Subscription,
    (tenant, after): &WalletKey,
    events: i64,
) -> Result<()> {
    sqlx::query(
        "update projection_rebuilds set after_wallet = $3, events = $4 \
         where tenant_id = $1 and projector = $2",
    )
    .bind(tenant.as_str())
    .bind(of.projector)
    .bind(after.as_str())
    .bind(events)
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that all parts are done.
pub async fn finish(connection: &mut Connection, projector: &str) -> Result<()> {
    sqlx::query(
        "update projection_rebuilds set finished_at = clock_timestamp() \
         where projector = $1 and finished_at is null",
    )
    .bind(projector)
    .execute(connection)
    .await?;
    Ok(())
}

/// The next wallets behind one, and about how many events each has.
pub async fn wallets_after(
    connection: &mut Connection,
    tenant: &TenantId,
    after: &str,
    limit: i64,
) -> Result<Vec<(WalletKey, i64)>> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select id, version from wallets where tenant_id = $1 and id > $2 order by id limit $3",
    )
    .bind(tenant.as_str())
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, version)| ((tenant.clone(), WalletId::stored(&id)), version))
        .collect())
}

/// Has nothing count of what is projected of some wallets of one tenant, whose versions are locked, and
/// returns the versions that they are to be brought to: the projector has applied none above them. A row
/// that has its version itself stays, with version 0: a projector that waits for it finds what it becomes.
pub async fn clear(
    connection: &mut Connection,
    of: &Subscription,
    table: &Table,
    wallets: &[&WalletKey],
) -> Result<Vec<(WalletKey, i64)>> {
    let Some((tenant, _)) = wallets.first() else { return Ok(Vec::new()) };
    let (_, wallets) = columns(wallets.iter().copied());
    let wallets = &wallets;
    let Table { name, wallet, versions } = table;
    let rows = match versions {
        Versions::Apart => {
            format!("delete from {name} where tenant_id = $1 and {wallet} = any($2)")
        }
        Versions::InTable => {
            format!("update {name} set version = 0 where tenant_id = $1 and {wallet} = any($2)")
        }
    };
    sqlx::query(sqlx::AssertSqlSafe(rows))
        .bind(tenant.as_str())
        .bind(wallets)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "update projected_wallets set version = 0, totals_at = 0 * totals_at, \
             total_credits = 0 * total_credits, total_debits = 0 * total_debits, \
             transaction_count = 0 * transaction_count \
         where tenant_id = $1 and projector = $2 and wallet_id = any($3)",
    )
    .bind(tenant.as_str())
    .bind(of.projector)
    .bind(wallets)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "delete from parked_wallets \
         where tenant_id = $1 and projector = $2 and wallet_id = any($3)",
    )
    .bind(tenant.as_str())
    .bind(of.projector)
    .bind(wallets)
    .execute(&mut *connection)
    .await?;
    let targets: Vec<(String, i64)> =
        sqlx::query_as("select id, version from wallets where tenant_id = $1 and id = any($2)")
            .bind(tenant.as_str())
            .bind(wallets)
            .fetch_all(connection)
            .await?;
    Ok(targets
        .into_iter()
        .map(|(id, version)| ((tenant.clone(), WalletId::stored(&id)), version))
        .collect())
}

/// Takes away rows of which nothing counts: no event of their wallets could be applied.
pub async fn remove_cleared(
    connection: &mut Connection,
    table: &Table,
    wallets: &[&WalletKey],
) -> Result<()> {
    let (Versions::InTable, Some((tenant, _))) = (table.versions, wallets.first()) else {
        return Ok(());
    };
    let (_, wallets) = columns(wallets.iter().copied());
    let Table { name, wallet, .. } = table;
    let rows =
        format!("delete from {name} where tenant_id = $1 and {wallet} = any($2) and version = 0");
    sqlx::query(sqlx::AssertSqlSafe(rows))
        .bind(tenant.as_str())
        .bind(wallets)
        .execute(connection)
        .await?;
    Ok(())
}

/// Parks a wallet that was cleared, due at once: its release applies what can be applied.
pub async fn park_due(
    connection: &mut Connection,
    of: &Subscription,
    (tenant, wallet): &WalletKey,
    cause: &str,
) -> Result<()> {
    sqlx::query(
        "insert into parked_wallets \
             (tenant_id, projector, wallet_id, version, cause, next_retry_at) \
         values ($1, $2, $3, 1, $4, clock_timestamp())",
    )
    .bind(tenant.as_str())
    .bind(of.projector)
    .bind(wallet.as_str())
    .bind(printable(cause))
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes rows that no wallet stands behind, of every tenant.
pub async fn remove_orphans(
    connection: &mut Connection,
    table: &Table,
    projector: &str,
) -> Result<()> {
    // Both are read whole, once.
    let settings = "set enable_seqscan = on; set enable_hashjoin = on; set enable_mergejoin = on";
    sqlx::raw_sql(settings).execute(&mut *connection).await?;
    let Table { name, wallet, .. } = table;
    let rows = format!(
        "delete from {name} p where not exists (select from wallets w \
             where w.tenant_id = p.tenant_id and w.id = p.{wallet})"
    );
    sqlx::query(sqlx::AssertSqlSafe(rows)).execute(&mut *connection).await?;
    for sql in [
        "delete from projected_wallets v where projector = $1 and not exists (select from wallets w \
             where w.tenant_id = v.tenant_id and w.id = v.wallet_id)",
        "delete from parked_wallets p where projector = $1 and not exists (select from wallets w \
             where w.tenant_id = p.tenant_id and w.id = p.wallet_id)",
    ] {
        sqlx::query(sql).bind(projector).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Where the projections stand. At most a thousand parked wallets.
pub async fn state(connection: &mut Connection) -> Result<State> {
    let all = parked::Filter { wallet: None, state: None, limit: 1000 };
    let parked = parked::list(connection, &all).await?;
    let waiting = |p: parked::Parked| ParkedWallet {
        projector: p.projector,
        wallet_id: p.wallet_id,
        version: p.version,
        cause: p.cause,
    };
    Ok(State {
        partitions: places(connection).await?,
        parked: parked.into_iter().map(waiting).collect(),
        rebuilding: is_running(connection).await?,
        rebuilds: last(connection).await?,
    })
}

/// The last rebuilds.
async fn last(connection: &mut Connection) -> Result<Vec<LastRebuild>> {
    Ok(sqlx::query_as(
        "select projector, started_at, finished_at, events from projection_rebuilds \
         where tenant_id = $1 order by projector",
    )
    .bind(PIPELINE)
    .fetch_all(connection)
    .await?)
}

/// Where the projectors stand in every partition. The consumer of commands and the second
/// destination have places, too, and no projection.
async fn places(connection: &mut Connection) -> Result<Vec<PartitionPlace>> {
    let rows: Vec<(String, i32, i64, DateTime<Utc>)> = sqlx::query_as(
        "select projector, partition, next_offset, updated_at from projector_checkpoints \
         where tenant_id = $1 and not starts_with(projector, $2) and projector <> $3 \
         order by projector, partition",
    )
    .bind(PIPELINE)
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
