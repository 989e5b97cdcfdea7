//! Sending events again, from `events`: a wallet is put on a list with the version to begin at, and
//! everything from there on gets new outbox rows, which the publisher sends like any other.
//!
//! Order: the new rows have ids below all rows of commands, ascending with the versions, and the
//! last part of a wallet is written under its lock, up to the version that it has by then. So the
//! topic ends up with the wallet's versions from the first chosen one on, in order and without a
//! gap, whatever was in flight meanwhile; what consumers had already is a copy to them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::{Connection, Error, Result, archives};
use crate::wallet::{TenantId, WalletId};

/// Rows that wait to be sent again, at most: more would only stand before the new ones.
pub const OUTSTANDING_MAX: i64 = 5000;
/// Wallets locked at once, at most.
const WALLETS_MAX: i64 = 50;
/// Events that get their rows in one transaction, at most.
const EVENTS_MAX: i64 = 1000;

/// What is to be sent again; of a wallet always everything from the first such event on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepublishSelector {
    /// What was applied without Kafka and never sent.
    Unpublished,
    Wallet(WalletId),
    /// Events of this time or later.
    Since(DateTime<Utc>),
    All,
}

/// How much is to be sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow, Serialize, ToSchema)]
#[schema(as = Republication)]
pub struct Counts {
    pub wallets: i64,
    pub events: i64,
}

/// What one [`step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing is on the list.
    Idle,
    /// Enough rows wait for the publisher.
    Full,
    /// So many events have their rows.
    Wrote(i64),
}

/// Puts wallets on the list. In the caller's transaction: given up, it was only a count.
pub async fn ask(
    connection: &mut Connection,
    tenant: &TenantId,
    selection: &RepublishSelector,
) -> Result<Counts> {
    let since = match selection {
        RepublishSelector::Since(since) => Some(Some(*since)),
        RepublishSelector::All | RepublishSelector::Wallet(_) => Some(None),
        RepublishSelector::Unpublished => None,
    };
    if let Some(since) = since
        && archives::missing_since(connection, since).await?.is_some()
    {
        return Err(Error::refused(
            "some of these events are in archives: bring them back first, by `wallex archive attach`",
        ));
    }
    let wanted = match selection {
        RepublishSelector::All => "select id, 1::bigint from wallets where tenant_id = $1",
        RepublishSelector::Wallet(_) => {
            "select id, 1::bigint from wallets where tenant_id = $1 and id = $2"
        }
        // A wallet's last change is its last event.
        RepublishSelector::Since(_) => {
            "select id, (select min(e.version) from events e where e.tenant_id = $1 \
                and e.wallet_id = w.id and e.created_at >= $3) \
             from wallets w where tenant_id = $1 and updated_at >= $3"
        }
        RepublishSelector::Unpublished => {
            "select id, min(version) from ( \
                select e.wallet_id as id, e.version from outbox_batches b \
                cross join lateral unnest(b.wallets, b.versions) as e(wallet_id, version) \
                where b.tenant_id = $1 and b.processed_at is not null and not b.published \
                union all \
                select w.id, (select min(e.version) from events e where e.tenant_id = $1 \
                    and e.wallet_id = w.id and e.created_at >= p.unpublished_from) \
                from outbox_purges p join wallets w on w.tenant_id = p.tenant_id \
                    and w.updated_at >= p.unpublished_from \
                where p.tenant_id = $1) found group by id"
        }
    };
    // Reads the books from end to end at times.
    sqlx::raw_sql("set local statement_timeout = '30min'").execute(&mut *connection).await?;
    let sql = format!(
        "with given as (select $1::text, $2::text, $3::timestamptz), \
         asked as (insert into outbox_republications as listed \
                (tenant_id, wallet_id, next_version) \
             select $1, found.id, found.version from ({wanted}) found(id, version) \
             where found.version is not null order by found.id \
             on conflict on constraint outbox_republications_pkey do update \
             set next_version = least(listed.next_version, excluded.next_version) \
             returning wallet_id, next_version) \
         select count(*) as wallets, \
             coalesce(sum(w.version - a.next_version + 1), 0)::bigint as events \
         from asked a join wallets w on w.tenant_id = $1 and w.id = a.wallet_id"
    );
    let (wallet, since) = match selection {
        RepublishSelector::Wallet(wallet) => (Some(wallet.as_str()), None),
        RepublishSelector::Since(since) => (None, Some(*since)),
        RepublishSelector::Unpublished | RepublishSelector::All => (None, None),
    };
    let counts = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(tenant.as_str())
        .bind(wallet)
        .bind(since)
        .fetch_one(&mut *connection)
        .await?;
    if matches!(selection, RepublishSelector::Unpublished | RepublishSelector::All) {
        // From here on the list knows what was never sent.
        sqlx::query("update outbox_purges set unpublished_from = null where tenant_id = $1")
            .bind(tenant.as_str())
            .execute(connection)
            .await?;
    }
    Ok(counts)
}

/// What is on the list.
pub async fn listed(connection: &mut Connection, tenant: &TenantId) -> Result<Counts> {
    Ok(sqlx::query_as(
        "select count(*) as wallets, \
             coalesce(sum(w.version - r.next_version + 1), 0)::bigint as events \
         from outbox_republications r \
         join wallets w on w.tenant_id = r.tenant_id and w.id = r.wallet_id \
         where r.tenant_id = $1",
    )
    .bind(tenant.as_str())
    .fetch_one(connection)
    .await?)
}

/// Rows of the topic that wait to be sent again; counts no further than [`OUTSTANDING_MAX`].
pub async fn outstanding(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
) -> Result<i64> {
    let rows: i64 = sqlx::query_scalar(
        "select coalesce(sum(o.events), 0) from topics t \
         cross join lateral generate_series(0, t.partitions - 1) as p(partition) \
         cross join lateral (select coalesce((select f.again from outbox_floors f \
             where f.tenant_id = t.tenant_id and f.topic = t.name and f.partition = p.partition), \
             '-9223372036854775808'::bigint) as id offset 0) floor \
         cross join lateral (select cardinality(o.versions) as events from outbox_batches o \
             where o.topic = t.name and o.partition = p.partition and o.processed_at is null \
               and o.id >= floor.id and o.id < 0 limit $3) o \
         where t.tenant_id = $1 and t.name = $2",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .bind(OUTSTANDING_MAX)
    .fetch_one(connection)
    .await?;
    Ok(rows.min(OUTSTANDING_MAX))
}

/// Gives the next events of the list their rows, as far as there is room. In the caller's
/// transaction, which holds the wallets' locks as a command does.
pub async fn step(connection: &mut Connection, tenant: &TenantId, topic: &str) -> Result<Step> {
    // Plans made while the tables were small must not scan them once they have grown.
    let settings = "set local enable_hashjoin = off; set local enable_mergejoin = off; \
                    set local enable_seqscan = off";
    sqlx::raw_sql(settings).execute(&mut *connection).await?;
    let wallets = lock(connection, tenant).await?;
    if wallets.is_empty() {
        return Ok(Step::Idle);
    }
    let room = OUTSTANDING_MAX - outstanding(connection, tenant, topic).await?;
    let mut left = room.min(EVENTS_MAX);
    if left <= 0 {
        return Ok(Step::Full);
    }
    let mut parts = Vec::new();
    for Listed { wallet_id, next_version, version } in wallets {
        if left == 0 {
            break;
        }
        let up_to = version.min(next_version + left - 1);
        left -= (up_to - next_version + 1).max(0);
        parts.push(Part { wallet_id, from: next_version, up_to, rest: up_to < version });
    }
    write(connection, tenant, topic, &parts).await?;
    note(connection, tenant, &parts).await?;
    Ok(Step::Wrote(parts.iter().map(|part| (part.up_to - part.from + 1).max(0)).sum()))
}

/// A wallet on the list, as it stands under lock.
struct Listed {
    wallet_id: String,
    next_version: i64,
    version: i64,
}

/// A stretch of one wallet's versions.
struct Part {
    wallet_id: String,
    from: i64,
    up_to: i64,
    /// There is more behind it.
    rest: bool,
}

/// The next wallets of the list that no other instance works on, locked in id order.
async fn lock(connection: &mut Connection, tenant: &TenantId) -> Result<Vec<Listed>> {
    let listed: Vec<(String, i64)> = sqlx::query_as(
        "select wallet_id, next_version from outbox_republications where tenant_id = $1 \
         order by wallet_id limit $2 for update skip locked",
    )
    .bind(tenant.as_str())
    .bind(WALLETS_MAX)
    .fetch_all(&mut *connection)
    .await?;
    let ids: Vec<&str> = listed.iter().map(|(wallet, _)| wallet.as_str()).collect();
    let versions: Vec<(String, i64)> = sqlx::query_as(
        "select id, version from wallets where tenant_id = $1 and id = any($2) \
         order by id for no key update",
    )
    .bind(tenant.as_str())
    .bind(&ids)
    .fetch_all(connection)
    .await?;
    let versions: HashMap<String, i64> = versions.into_iter().collect();
    // One that is not there has nothing to send, and leaves the list.
    let version = |wallet: &String| versions.get(wallet).copied().unwrap_or(0);
    Ok(listed
        .into_iter()
        .map(|(wallet_id, next_version)| Listed {
            version: version(&wallet_id),
            wallet_id,
            next_version,
        })
        .collect())
}

/// Writes the rows of some stretches, one for each event: their times differ. What is known to have been
/// applied without Kafka of these events is forgotten, and with it the batches that have no others.
async fn write(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
    parts: &[Part],
) -> Result<()> {
    // Locked before it is read: another instance may be taking other wallets out of the same batch.
    sqlx::query(
        "with part as (select * from unnest($3::text[], $4::bigint[], $5::bigint[]) \
                p(wallet_id, first, up_to)), \
         again as materialized (select e.* from part cross join lateral (select wallet_id, version, \
                    partition, created_at from events where tenant_id = $1 \
                    and wallet_id = part.wallet_id and version between part.first and part.up_to \
                    order by version limit 1000000) e), \
         found as (select distinct b.id, b.part from again cross join lateral ( \
             select id, part from outbox_batches where tenant_id = $1 \
               and partition = again.partition and created_at = again.created_at \
               and processed_at is not null and not published \
               and wallets @> array[again.wallet_id] limit 1000) b), \
         locked as materialized (select b.* \
             from (select id, part from found order by id, part) f \
             cross join lateral (select id, part, wallets, versions from outbox_batches \
                 where tenant_id = $1 and id = f.id and part = f.part for update) b), \
         superseded as materialized (select l.id, l.part, cardinality(l.versions) as events, \
                 array_agg(e.place) as places \
             from locked l cross join lateral unnest(l.wallets, l.versions) with ordinality \
                 as e(wallet_id, version, place) \
             where exists (select from part where part.wallet_id = e.wallet_id \
                 and e.version between part.first and part.up_to) \
             group by l.id, l.part, l.versions), \
         gone as (delete from outbox_batches b using superseded s where b.tenant_id = $1 \
             and b.id = s.id and b.part = s.part and s.events = cardinality(s.places)), \
         shortened as (update outbox_batches b \
             set wallets = outbox_without(b.wallets, s.places), \
                 versions = outbox_without(b.versions, s.places) \
             from superseded s where b.tenant_id = $1 and b.id = s.id and b.part = s.part \
               and s.events > cardinality(s.places)) \
         insert into outbox_batches (id, tenant_id, topic, partition, created_at, wallets, versions) \
             overriding system value \
         select nextval('outbox_republished'), $1, $2, e.partition, e.created_at, \
             array[e.wallet_id], array[e.version] \
         from (select * from again order by wallet_id, version) e",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .bind(parts.iter().map(|part| part.wallet_id.as_str()).collect::<Vec<_>>())
    .bind(parts.iter().map(|part| part.from).collect::<Vec<_>>())
    .bind(parts.iter().map(|part| part.up_to).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes finished wallets off the list, and notes how far the others are.
async fn note(connection: &mut Connection, tenant: &TenantId, parts: &[Part]) -> Result<()> {
    let done: Vec<&str> =
        parts.iter().filter(|part| !part.rest).map(|part| part.wallet_id.as_str()).collect();
    sqlx::query("delete from outbox_republications where tenant_id = $1 and wallet_id = any($2)")
        .bind(tenant.as_str())
        .bind(done)
        .execute(&mut *connection)
        .await?;
    for part in parts.iter().filter(|part| part.rest) {
        sqlx::query(
            "update outbox_republications set next_version = $3, begun = true \
             where tenant_id = $1 and wallet_id = $2",
        )
        .bind(tenant.as_str())
        .bind(&part.wallet_id)
        .bind(part.up_to + 1)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
