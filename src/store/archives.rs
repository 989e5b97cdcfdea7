//! Months of events and postings that are taken to files and brought back. As the tables' owner: the service's role
//! may neither take a row of the books away nor bring one in.
//!
//! The schema's functions (`migrations/0034_archives.sql`) do each step in one transaction; what is read and written
//! in between lies in tables beside the books.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::{optional_time, time};
use super::{Connection, Error, Result};
use crate::wallet::{TenantId, WalletId};

/// Among the advisory locks of the database: one archive is worked on at a time.
const LOCK: i64 = 0x7761_6c6c_6578_0003;

/// The tables that a month consists of.
pub const TABLES: [&str; 2] = ["events", "postings"];

/// A month of the books.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Month {
    pub name: String,
    #[serde(serialize_with = "optional_time")]
    pub from_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "time")]
    pub to_at: DateTime<Utc>,
    pub archived: bool,
    /// Where its files were written, as the operator named it.
    pub place: Option<String>,
    /// Of its manifest.
    pub sha256: Option<String>,
    /// While it is attached, as estimated from the last ANALYZE.
    pub events: i64,
    pub postings: i64,
    pub bytes: i64,
}

/// What the entries of one tenant and currency sum to, on the wallets' side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Sum {
    pub tenant_id: String,
    pub currency: String,
    pub entries: i64,
    pub credits: String,
    pub debits: String,
}

/// A column of a table, in the order of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// Whether this session is the one that works on archives, until it ends.
pub async fn lock(connection: &mut Connection) -> Result<bool> {
    sqlx::raw_sql(OVER_ALL_SESSION).execute(&mut *connection).await?;
    Ok(sqlx::query_scalar("select pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(connection)
        .await?)
}

/// All of it is read from end to end; a lock is waited for no longer than commands bear.
const OVER_ALL_SESSION: &str = "set plan_cache_mode = auto; set enable_seqscan = on; \
    set enable_hashjoin = on; set enable_mergejoin = on; set enable_memoize = on; set lock_timeout = 200; set datestyle = 'ISO'; \
    set idle_in_transaction_session_timeout = 0";

/// The months, the oldest first: those in archives, and those in the tables.
pub async fn months(connection: &mut Connection) -> Result<Vec<Month>> {
    Ok(sqlx::query_as(
        "select substr(t.name, 8) as name, t.from_bound::timestamptz as from_at, \
             t.to_bound::timestamptz as to_at, a.name is not null as archived, a.place, a.sha256, \
             coalesce(a.events, greatest(c.reltuples, 0)::bigint) as events, \
             coalesce(a.postings, greatest(p.reltuples, 0)::bigint) as postings, \
             pg_total_relation_size(c.oid) + coalesce(pg_total_relation_size(p.oid), 0) as bytes \
         from table_partitions t join pg_class c on c.oid = to_regclass(quote_ident(t.name)) \
         left join pg_class p on p.oid = to_regclass(quote_ident('postings_' || substr(t.name, 8))) \
         left join archives a on a.name = substr(t.name, 8) \
         where t.parent = 'events' and not t.is_default order by t.to_bound::timestamptz",
    )
    .fetch_all(connection)
    .await?)
}

/// Why a month may not be taken away yet, in words; none: it may.
pub async fn obstacle(connection: &mut Connection, month: &Month) -> Result<Option<String>> {
    let found: (bool, bool, bool, bool, bool) = sqlx::query_as(
        "select $1 > clock_timestamp() - interval '31 days', \
             exists (select from outbox_batches where processed_at is null and created_at < $1) \
                 or exists (select from outbox_republications), \
             exists (select from (values ('ledger-projector'), ('read-model-projector')) p(name), \
                 wallets w where w.version > coalesce((select v.version from projected_versions v \
                     where v.tenant_id = w.tenant_id and v.projector = p.name \
                       and v.wallet_id = w.id), 0) \
                   and exists (select from events e where e.tenant_id = w.tenant_id \
                     and e.wallet_id = w.id and e.created_at < $1 and e.version > coalesce(( \
                         select v.version from projected_versions v where v.tenant_id = w.tenant_id \
                           and v.projector = p.name and v.wallet_id = w.id), 0))), \
             exists (select from second_destinations), \
             exists (select from projected_wallets where projector = 'ledger-projector' \
                 and totals_at is distinct from version)",
    )
    .bind(month.to_at)
    .fetch_one(connection)
    .await?;
    let (young, unsent, unapplied, moving, late) = found;
    let reasons = [
        (young, "it ended less than 31 days ago: wait until then"),
        (unsent, "some of its events wait to be published: see `wallex outbox status`"),
        (unapplied, "some of its events are not projected yet: see `wallex projections status`"),
        (
            late,
            "totals of some wallets are not at their version: `wallex projections rebuild ledger` first",
        ),
        (moving, "a second destination is being filled from the events: end the move first"),
    ];
    Ok(reasons.iter().find(|(is, _)| *is).map(|(_, why)| (*why).to_owned()))
}

/// The columns of a table.
pub async fn columns(connection: &mut Connection, table: &str) -> Result<Vec<Column>> {
    Ok(sqlx::query_as(
        "select attname::text as name, format_type(atttypid, atttypmod) as kind from pg_attribute \
         where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum",
    )
    .bind(table)
    .fetch_all(connection)
    .await?)
}

/// The last migration of the schema.
pub async fn schema_version(connection: &mut Connection) -> Result<i64> {
    Ok(sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
        .fetch_one(connection)
        .await?)
}

/// What a month's postings sum to.
pub async fn sums(connection: &mut Connection, month: &Month) -> Result<Vec<Sum>> {
    Ok(sqlx::query_as(
        "select tenant_id, currency, count(*) as entries, \
             coalesce(sum(amount) filter (where side = 'CREDIT'), 0)::numeric(60,8)::text as credits, \
             coalesce(sum(amount) filter (where side = 'DEBIT'), 0)::numeric(60,8)::text as debits \
         from postings where created_at < $2 and created_at >= coalesce($1::timestamptz, '-infinity') \
         group by tenant_id, currency order by tenant_id, currency",
    )
    .bind(month.from_at)
    .bind(month.to_at)
    .fetch_all(connection)
    .await?)
}

/// How many rows a month has in each of [`TABLES`].
pub async fn rows(connection: &mut Connection, month: &Month) -> Result<(i64, i64)> {
    Ok(sqlx::query_as(
        "select (select count(*) from events where created_at < $2 \
                 and created_at >= coalesce($1::timestamptz, '-infinity')), \
             (select count(*) from postings where created_at < $2 \
                 and created_at >= coalesce($1::timestamptz, '-infinity'))",
    )
    .bind(month.from_at)
    .bind(month.to_at)
    .fetch_one(connection)
    .await?)
}

/// Gives a partition's rows to `take`, as COPY writes them: a line for each, in the order of its key.
pub async fn export(
    connection: &mut Connection,
    table: &str,
    columns: &[Column],
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<()> {
    let names = quoted(columns);
    let copy = format!(
        "copy (select {names} from {table} order by tenant_id, wallet_id, version) to stdout",
        table = quote(table)
    );
    let mut rows = connection.copy_out_raw(&copy).await?;
    while let Some(lines) = rows.try_next().await? {
        take(&lines).map_err(|error| Error::from(sqlx::Error::Io(error)))?;
    }
    Ok(())
}

/// Reads rows that `give` has, until it has no more, into a table.
pub async fn import(
    connection: &mut Connection,
    table: &str,
    columns: &[Column],
    mut give: impl FnMut() -> std::io::Result<Option<Bytes>>,
) -> Result<u64> {
    let copy = format!("copy {} ({}) from stdin", quote(table), quoted(columns));
    let mut rows = connection.copy_in_raw(&copy).await?;
    loop {
        match give() {
            Ok(Some(lines)) => {
                rows.send(&lines[..]).await?;
            }
            Ok(None) => return Ok(rows.finish().await?),
            Err(error) => {
                rows.abort(error.to_string()).await?;
                return Err(Error::from(sqlx::Error::Io(error)));
            }
        }
    }
}

/// Makes what stays of a month, beside the books.
pub async fn stage(connection: &mut Connection, month: &Month) -> Result<()> {
    sqlx::query("select wallex_archive_stage($1, $2, $3)")
        .bind(&month.name)
        .bind(month.from_at)
        .bind(month.to_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// What is noted of an archive.
#[derive(Debug)]
pub struct Noted<'a> {
    pub place: &'a str,
    pub sha256: &'a str,
    pub events: i64,
    pub postings: i64,
    pub sums: &'a [Sum],
}

/// Takes a month away that was staged, in one transaction.
pub async fn detach(connection: &mut Connection, month: &Month, noted: Noted<'_>) -> Result<()> {
    sqlx::query("select wallex_archive_detach($1, $2, $3, $4, $5, $6, $7, $8::text::json)")
        .bind(&month.name)
        .bind(month.from_at)
        .bind(month.to_at)
        .bind(noted.place)
        .bind(noted.sha256)
        .bind(noted.events)
        .bind(noted.postings)
        .bind(serde_json::to_string(noted.sums).map_err(Error::corrupt)?)
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes the tables that a month is read into: `events_back` and `postings_back`.
pub async fn prepare(connection: &mut Connection, month: &Month) -> Result<()> {
    sqlx::query("select wallex_archive_prepare($1, $2)")
        .bind(month.from_at)
        .bind(month.to_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Brings a month back that was read, in one transaction.
pub async fn attach(connection: &mut Connection, month: &Month) -> Result<()> {
    sqlx::query("select wallex_archive_attach($1)").bind(&month.name).execute(connection).await?;
    Ok(())
}

/// The names of the months in archives, the oldest first.
pub async fn names(connection: &mut Connection) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar("select name from archives order by to_at").fetch_all(connection).await?)
}

/// What to attach before events since that time can be read, all of them where there is none; none: they are there.
pub async fn missing_since(
    connection: &mut Connection,
    since: Option<DateTime<Utc>>,
) -> Result<Option<String>> {
    let names: Vec<String> = sqlx::query_scalar(
        "select name from archives where to_at > coalesce($1::timestamptz, '-infinity') order by to_at desc",
    )
    .bind(since)
    .fetch_all(connection)
    .await?;
    Ok((!names.is_empty()).then(|| {
        format!(
            "its events are in archives: bring them back first, by `wallex archive attach` for each of {}",
            names.join(", ")
        )
    }))
}

/// The last of a wallet's versions that is in an archive; 0: none is.
pub async fn archived_version(
    connection: &mut Connection,
    tenant: &TenantId,
    wallet: &WalletId,
) -> Result<i64> {
    let found: Option<i64> = sqlx::query_scalar(
        "select version from archived_wallets where tenant_id = $1 and wallet_id = $2",
    )
    .bind(tenant.as_str())
    .bind(wallet.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(found.unwrap_or(0))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quoted(columns: &[Column]) -> String {
    columns.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ")
}
