//! Events as projections read them: which one does a record name, and what does a wallet's next
//! stretch say. Never writes events.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Connection, Result, columns, wallet_key};
use crate::wallet::{Event, EventBody, WalletKey};

/// An event that is in the books and cannot be read as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub wallet: WalletKey,
    pub version: i64,
    pub cause: String,
    /// A newer version of the service wrote it, and can read it.
    pub newer: bool,
}

impl Unreadable {
    /// For metrics.
    pub fn kind(&self) -> &'static str {
        if self.newer { "newer" } else { "unreadable" }
    }
}

/// An event of the books, where it can be read.
pub type Recorded = std::result::Result<Event, Unreadable>;

/// A wallet's versions to read: above `after`, up to and with `up_to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub wallet: WalletKey,
    pub after: i64,
    pub up_to: i64,
}

/// What a record says that it is: wallet, version, event id and partition.
pub type Claim<'a> = (&'a WalletKey, i64, Uuid, i32);

/// Where events are looked for. A look into each month costs about as much as the event itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Months {
    /// Those of the last days: nearly all that projectors ask for has just happened.
    Recent,
    All,
}

/// Versions of a wallet that are asked for at once, at most, where recent events are meant.
const RECENT: i64 = 16;

/// Returns for each claim the event, if it is one of this service.
pub async fn named(
    connection: &mut Connection,
    records: &[Claim<'_>],
) -> Result<Vec<Option<Recorded>>> {
    let mut named = named_in(connection, records, Months::Recent).await?;
    let older: Vec<usize> =
        named.iter().enumerate().filter_map(|(at, found)| found.is_none().then_some(at)).collect();
    let claims: Vec<Claim<'_>> = older.iter().filter_map(|at| records.get(*at).copied()).collect();
    if claims.is_empty() {
        return Ok(named);
    }
    let found = named_in(connection, &claims, Months::All).await?;
    for (at, event) in older.into_iter().zip(found) {
        if let Some(place) = named.get_mut(at) {
            *place = event;
        }
    }
    Ok(named)
}

async fn named_in(
    connection: &mut Connection,
    records: &[Claim<'_>],
    months: Months,
) -> Result<Vec<Option<Recorded>>> {
    let (tenants, wallets) = columns(records.iter().map(|r| r.0));
    let rows: Vec<NamedRow> = sqlx::query_as(
        "select r.place, e.* \
         from unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[], $5::int[]) \
             with ordinality r(tenant_id, wallet_id, version, event_id, partition, place) \
         cross join lateral (select e.tenant_id, e.wallet_id, e.version, e.event_id, e.event_type, \
                e.schema_version, e.payload::text as payload, e.transaction_id, e.partition, \
                e.created_at \
             from events e where e.tenant_id = r.tenant_id and e.wallet_id = r.wallet_id \
               and e.version = r.version and e.event_id = r.event_id \
               and e.partition = r.partition and e.created_at >= case when $6 \
                   then now() - interval '7 days' else '-infinity' end limit 1) e",
    )
    .bind(tenants)
    .bind(wallets)
    .bind(records.iter().map(|r| r.1).collect::<Vec<_>>())
    .bind(records.iter().map(|r| r.2).collect::<Vec<_>>())
    .bind(records.iter().map(|r| r.3).collect::<Vec<_>>())
    .bind(months == Months::Recent)
    .fetch_all(connection)
    .await?;
    let mut named: Vec<Option<Recorded>> = records.iter().map(|_| None).collect();
    for row in rows {
        // Counted from one.
        let place = usize::try_from(row.place - 1).ok().and_then(|place| named.get_mut(place));
        if let Some(place) = place {
            *place = Some(row.event.event());
        }
    }
    Ok(named)
}

#[derive(sqlx::FromRow)]
struct NamedRow {
    place: i64,
    #[sqlx(flatten)]
    event: EventRow,
}

/// A row of `events` as its readers take it.
#[derive(sqlx::FromRow)]
pub(super) struct EventRow {
    tenant_id: String,
    wallet_id: String,
    version: i64,
    event_id: Uuid,
    event_type: String,
    schema_version: i16,
    payload: String,
    transaction_id: Uuid,
    partition: i32,
    created_at: DateTime<Utc>,
}

/// A wallet's last version; none where it has no events.
pub async fn last_version(
    connection: &mut Connection,
    (tenant, wallet): &WalletKey,
) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar(
        "select max(version) from events where tenant_id = $1 and wallet_id = $2",
    )
    .bind(tenant.as_str())
    .bind(wallet.as_str())
    .fetch_one(connection)
    .await?)
}

/// The events of some wallets' version ranges, in (tenant, wallet, version) order. Versions have no
/// gaps, so the caller bounds the answer by its ranges.
pub async fn recorded(connection: &mut Connection, ranges: &[Range]) -> Result<Vec<Recorded>> {
    let wanted = ranges.iter().map(|range| (range.up_to - range.after).max(0));
    if wanted.clone().all(|versions| versions <= RECENT) {
        let events = recorded_in(connection, ranges, Months::Recent).await?;
        if i64::try_from(events.len()).is_ok_and(|found| found == wanted.sum::<i64>()) {
            return Ok(events);
        }
    }
    recorded_in(connection, ranges, Months::All).await
}

async fn recorded_in(
    connection: &mut Connection,
    ranges: &[Range],
    months: Months,
) -> Result<Vec<Recorded>> {
    let (tenants, wallets) = columns(ranges.iter().map(|range| &range.wallet));
    let rows: Vec<EventRow> = sqlx::query_as(
        "select e.* from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) \
             r(tenant_id, wallet_id, after_version, up_to) \
         cross join lateral (select e.tenant_id, e.wallet_id, e.version, e.event_id, e.event_type, \
                e.schema_version, e.payload::text as payload, e.transaction_id, e.partition, \
                e.created_at \
             from events e where e.tenant_id = r.tenant_id and e.wallet_id = r.wallet_id \
               and e.version > r.after_version and e.version <= r.up_to \
               and e.created_at >= case when $5 then now() - interval '7 days' \
                   else '-infinity' end \
             order by e.version limit 1000000) e \
         order by e.tenant_id, e.wallet_id, e.version",
    )
    .bind(tenants)
    .bind(wallets)
    .bind(ranges.iter().map(|r| r.after).collect::<Vec<_>>())
    .bind(ranges.iter().map(|r| r.up_to).collect::<Vec<_>>())
    .bind(months == Months::Recent)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(EventRow::event).collect())
}

impl EventRow {
    pub(super) fn event(self) -> Recorded {
        let (tenant, wallet_id) = wallet_key(&self.tenant_id, &self.wallet_id);
        match EventBody::from_data(&self.event_type, self.schema_version, &self.payload) {
            Ok(body) => Ok(Event {
                tenant,
                wallet_id,
                version: self.version,
                event_id: self.event_id,
                transaction_id: self.transaction_id,
                partition: self.partition,
                created_at: self.created_at,
                origin: Arc::default(),
                body,
            }),
            Err(error) => {
                let (cause, newer) = (error.to_string(), error.is_newer());
                let wallet = (tenant, wallet_id);
                Err(Unreadable { wallet, version: self.version, cause, newer })
            }
        }
    }
}
