//! Which Postgres cluster a place's numbers are of. Transaction numbers mean nothing in another cluster:
//! a dump that was restored there brings places that lie beyond its own numbers, or say nothing. Such
//! places are given up for what wallets say: whose events go further than what is noted of them.
//!
//! A standby that was promoted, a base backup and a crash keep numbers and identifier alike.

use sqlx::Row as _;

use super::checkpoints::Subscription;
use super::{Connection, PIPELINE, Result, wallet_key};
use crate::wallet::WalletKey;

/// What the places of a subscription are worth on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Places {
    /// They are of this cluster.
    Own,
    /// They are new, and stand at the beginning: noted as of this cluster from now on.
    Fresh,
    /// They are of another cluster.
    Foreign,
    /// They were noted by a version that did not say of which cluster they are.
    Unnoted,
}

/// One page of wallets, of which some have events that are not noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The last wallet that was looked at; none behind the last one.
    pub last: Option<WalletKey>,
    pub lacking: Vec<Lacking>,
}

/// A wallet with events beyond its noted version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    pub partition: i32,
    pub wallet: WalletKey,
    pub version: i64,
}

/// A pass over all wallets that takes the place of places of another cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    pub cluster: Option<i64>,
    /// The places are known to be of another one: nothing may be found by them.
    pub foreign: bool,
    /// Every event of a transaction below this one can be seen since the pass began.
    pub horizon: i64,
    /// The wallet behind which it goes on.
    pub after: WalletKey,
}

/// The cluster's own identifier; none where the server does not tell.
pub async fn identify(connection: &mut Connection) -> Result<Option<i64>> {
    // Asked first: a refusal would end the caller's transaction.
    let may = "select coalesce(has_function_privilege( \
        to_regprocedure('pg_control_system()')::oid, 'execute'), false)";
    if !sqlx::query_scalar::<_, bool>(may).fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    let asked = sqlx::query_scalar("select system_identifier from pg_control_system()");
    Ok(Some(asked.fetch_one(connection).await?))
}

/// Looks whose places they are. New ones are noted as this cluster's; for those of another a pass begins.
pub async fn pass(connection: &mut Connection, of: &Subscription) -> Result<Option<Pass>> {
    let cluster = identify(connection).await?;
    let places = judge(connection, of, cluster).await?;
    match places {
        Places::Own => Ok(None),
        Places::Fresh => note_fresh(connection, of, cluster).await.map(|()| None),
        Places::Foreign | Places::Unnoted => {
            let (foreign, horizon) = (places == Places::Foreign, horizon(connection).await?);
            Ok(Some(Pass { cluster, foreign, horizon, after: wallet_key("", "") }))
        }
    }
}

/// Whether the places can be worked with.
async fn judge(
    connection: &mut Connection,
    of: &Subscription,
    cluster: Option<i64>,
) -> Result<Places> {
    // An event beyond the next number of all is another cluster's: it cannot be found by its number.
    let (ahead, noted, unnoted, fresh, others): (i64, i64, i64, i64, bool) = sqlx::query_as(
        "with place as materialized (select c.*, pg_snapshot_xmax(pg_current_snapshot()) as next \
             from projector_checkpoints c \
             where c.tenant_id = $1 and c.projector = $2 and c.topic = $3) \
         select count(*) filter (where feed_xid > next), \
             count(*) filter (where cluster <> $4), count(*) filter (where cluster is null), \
             count(*) filter (where cluster is null and feed_xid = '0'::xid8), \
             coalesce(bool_or(exists (select from events e where e.partition = place.partition \
                 and e.commit_xid >= place.next order by e.commit_xid limit 1)), false) \
         from place",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&of.topic)
    .bind(cluster)
    .fetch_one(connection)
    .await?;
    Ok(match cluster {
        _ if ahead > 0 => Places::Foreign,
        Some(_) if noted > 0 || (unnoted > 0 && others) => Places::Foreign,
        Some(_) if unnoted > fresh => Places::Unnoted,
        Some(_) if fresh > 0 => Places::Fresh,
        // A server that does not tell who it is can only be judged by its numbers.
        _ => Places::Own,
    })
}

/// Every event of a transaction below this one can be seen from now on.
async fn horizon(connection: &mut Connection) -> Result<i64> {
    let asked = "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
    Ok(sqlx::query_scalar(asked).fetch_one(connection).await?)
}

/// The next `limit` wallets behind one, and which of them have events that are not noted. Wallets that
/// are parked wait for their release.
pub async fn lacking(
    connection: &mut Connection,
    of: &Subscription,
    after: &WalletKey,
    limit: i64,
) -> Result<Page> {
    let rows = sqlx::query(
        "with page as materialized (select tenant_id, id, version from wallets \
             where (tenant_id, id) > ($1, $3) order by tenant_id, id limit $4) \
         select last.tenant_id as last_tenant, last.id as last_id, found.* \
         from (select tenant_id, id from page order by tenant_id desc, id desc limit 1) last \
         left join lateral ( \
             select w.tenant_id, w.id, w.version, e.partition from page w \
             cross join lateral (select partition from events where tenant_id = w.tenant_id \
                 and wallet_id = w.id and version = w.version limit 1) e \
             where w.version > coalesce((select version from projected_versions \
                     where tenant_id = w.tenant_id and projector = $2 and wallet_id = w.id), 0) \
               and not exists (select from parked_wallets where tenant_id = w.tenant_id \
                   and projector = $2 and wallet_id = w.id)) found on true",
    )
    .bind(after.0.as_str())
    .bind(of.projector)
    .bind(after.1.as_str())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let mut page = Page::default();
    for row in &rows {
        page.last = Some(wallet_key(row.try_get("last_tenant")?, row.try_get("last_id")?));
        if let Some(id) = row.try_get::<Option<&str>, _>("id")? {
            let wallet = wallet_key(row.try_get("tenant_id")?, id);
            let (partition, version) = (row.try_get("partition")?, row.try_get("version")?);
            page.lacking.push(Lacking { partition, wallet, version });
        }
    }
    Ok(page)
}

/// The next `limit` wallets behind one.
pub async fn wallets_after(
    connection: &mut Connection,
    after: &WalletKey,
    limit: i64,
) -> Result<Vec<WalletKey>> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select tenant_id, id from wallets where (tenant_id, id) > ($1, $2) \
         order by tenant_id, id limit $3",
    )
    .bind(after.0.as_str())
    .bind(after.1.as_str())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(|(tenant, id)| wallet_key(tenant, id)).collect())
}

/// Notes the cluster beside places that stand at the beginning.
async fn note_fresh(
    connection: &mut Connection,
    of: &Subscription,
    cluster: Option<i64>,
) -> Result<()> {
    sqlx::query(
        "update projector_checkpoints set cluster = $4 where tenant_id = $1 and projector = $2 \
           and topic = $3 and cluster is null and feed_xid = '0'::xid8",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&of.topic)
    .bind(cluster)
    .execute(connection)
    .await?;
    Ok(())
}

/// Everything that could be seen at the pass's horizon is noted: the places of these partitions go on from there,
/// as places of this cluster. What another instance has mended meanwhile stays.
pub async fn mended(
    connection: &mut Connection,
    of: &Subscription,
    pass: &Pass,
    partitions: &[i32],
) -> Result<()> {
    sqlx::query(
        "update projector_checkpoints c set feed_xid = $5::text::xid8, cluster = $4, \
             updated_at = clock_timestamp() \
         from (select partition from projector_checkpoints \
             where tenant_id = $1 and projector = $2 and topic = $3 and partition = any($6) \
             order by partition for no key update) held \
         where c.tenant_id = $1 and c.projector = $2 and c.topic = $3 \
           and c.partition = held.partition and (c.cluster is distinct from $4 \
             or c.feed_xid > pg_snapshot_xmax(pg_current_snapshot()))",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&of.topic)
    .bind(pass.cluster)
    .bind(pass.horizon.to_string())
    .bind(partitions)
    .execute(connection)
    .await?;
    Ok(())
}
