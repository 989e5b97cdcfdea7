//! The second half of a batch: one statement writes all of it.

mod further;

use std::borrow::Cow;
use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::StoredAnswer;
use super::rows::{Parameters, Rows};
use crate::store::{Connection, Error, Result};
use crate::wallet::{Event, Hold, Metadata, SCHEMA_VERSION, TenantId, Wallet};

/// Events of one outbox row, at most: the publisher claims rows whole.
const OUTBOX_BATCH_MAX: usize = 1000;

/// A key and the outcome that it has from now on.
#[derive(Debug, Clone)]
pub struct KeyWrite {
    pub tenant: TenantId,
    pub scope: [u8; 16],
    /// The time that a version 7 UUID names: its row lies with those of that month.
    pub keyed_at: Option<DateTime<Utc>>,
    pub fingerprint: [u8; 16],
    pub transaction_id: Uuid,
    pub answer: StoredAnswer,
}

/// A wallet with its tenant, in the state that the batch leaves it in.
pub type WalletWrite = (TenantId, Wallet);

/// A hold with its tenant, in the state that the batch leaves it in.
pub type HoldWrite = (TenantId, Hold);

/// All that one batch changes.
#[derive(Debug, Default)]
pub struct Writes {
    /// Wallets that did not exist.
    pub inserted: Vec<WalletWrite>,
    /// Wallets that did.
    pub updated: Vec<WalletWrite>,
    pub events: Vec<Event>,
    pub keys: Vec<KeyWrite>,
    /// Holds that did not exist.
    pub placed: Vec<HoldWrite>,
    /// Holds that did.
    pub changed_holds: Vec<HoldWrite>,
    /// Some of the wallets change more than plain ones: their features, when something falls due, their
    /// metadata.
    pub wide: bool,
    /// A wallet is written of which nothing happened.
    pub touched_only: bool,
}

impl Writes {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.keys.is_empty() && !self.touched_only
    }

    /// Nothing but plain movements: the statement is the one that it always was.
    fn is_plain(&self) -> bool {
        !self.wide && self.placed.is_empty() && self.changed_holds.is_empty()
    }

    /// Adds what another tenant's commands change.
    pub fn append(&mut self, mut other: Self) {
        self.inserted.append(&mut other.inserted);
        self.updated.append(&mut other.updated);
        self.events.append(&mut other.events);
        self.keys.append(&mut other.keys);
        self.placed.append(&mut other.placed);
        self.changed_holds.append(&mut other.changed_holds);
        self.wide |= other.wide;
        self.touched_only |= other.touched_only;
    }

    /// The one lock order: keys by tenant and scope, new wallets by tenant and id. Events stand as the
    /// outbox has them: by tenant, partition and time, in there by wallet and version. (A wallet's later
    /// versions are never of an earlier time.) They and the outbox wait for no other transaction.
    fn sort(&mut self) {
        let wallet = |a: &WalletWrite, b: &WalletWrite| (&a.0, &a.1.id).cmp(&(&b.0, &b.1.id));
        self.keys.sort_by(|a, b| (&a.tenant, a.scope).cmp(&(&b.tenant, b.scope)));
        self.inserted.sort_by(wallet);
        self.updated.sort_by(wallet);
        let hold = |a: &HoldWrite, b: &HoldWrite| (&a.0, a.1.id).cmp(&(&b.0, b.1.id));
        self.placed.sort_by(hold);
        self.changed_holds.sort_by(hold);
        let place = |e: &'_ Event| (e.partition, e.created_at);
        self.events.sort_by(|a, b| {
            (&a.tenant, place(a), &a.wallet_id, a.version).cmp(&(
                &b.tenant,
                place(b),
                &b.wallet_id,
                b.version,
            ))
        });
    }
}

/// Writes a batch's keys, wallets, events and outbox rows. Every updated wallet must still be there:
/// it is locked by this transaction.
pub async fn write_batch(
    connection: &mut Connection,
    topic: &str,
    now: DateTime<Utc>,
    writes: &mut Writes,
) -> Result<()> {
    writes.sort();
    let (statement, arguments) = statement(topic, now, writes)?;
    let updated = match statement {
        Cow::Borrowed(text) => {
            let query = sqlx::query_scalar_with::<_, i64, _>(text, arguments);
            query.fetch_one(connection).await?
        }
        Cow::Owned(text) => {
            let text = sqlx::AssertSqlSafe(text);
            let query = sqlx::query_scalar_with::<_, i64, _>(text, arguments);
            query.fetch_one(connection).await?
        }
    };
    // Checked before COMMIT: a wallet that was not updated would be money out of nowhere.
    if usize::try_from(updated).ok() != Some(writes.updated.len()) {
        let wanted = writes.updated.len();
        return Err(Error::corrupt(format!("{updated} of {wanted} wallets updated")));
    }
    Ok(())
}

/// The texts of the statement, by which of its parts have rows: keys, new wallets, changed wallets, events.
/// Each is the same for every plain batch of its kind, and is made once: lanes of small batches would spend
/// their time on it. Of one with more it is made each time.
static TEXTS: [OnceLock<String>; 16] = [const { OnceLock::new() }; 16];

/// The statement's text and its arguments.
///
/// Postgres runs the parts that modify: `updated` first, because the main query reads it, then the
/// others in the order they are written down. That order matters only between keys and new
/// wallets, the two parts that can wait for another transaction.
fn statement(
    topic: &str,
    now: DateTime<Utc>,
    writes: &Writes,
) -> Result<(Cow<'static, str>, PgArguments)> {
    let mut parameters = Parameters::default();
    let p = &mut parameters;
    let wide = writes.wide;
    let keyed = some(&writes.keys).map(|keys| keyed(p, now, keys)).transpose()?;
    let inserted = some(&writes.inserted).map(|wallets| inserted(p, wallets, wide)).transpose()?;
    let updated = some(&writes.updated).map(|wallets| updated(p, wallets, wide)).transpose()?;
    let recorded = some(&writes.events).map(|events| recorded(p, topic, events)).transpose()?;
    if !writes.is_plain() {
        let further = further::parts(p, writes)?;
        let count = updated.as_ref().map(|_| COUNT_UPDATED);
        let plain = [
            keyed.map(|text| text()),
            inserted.map(|text| text()),
            updated.map(|text| text()),
            recorded.map(|text| text()),
        ];
        let parts: Vec<String> = plain.into_iter().flatten().chain(further).collect();
        let text = format!("with {} select {}", parts.join(", "), count.unwrap_or(COUNT_NONE));
        return Ok((text.into(), parameters.into_arguments()));
    }
    let kind = [keyed.is_some(), inserted.is_some(), updated.is_some(), recorded.is_some()];
    let kind = kind.iter().fold(0, |kind, part| kind * 2 + usize::from(*part));
    let text = TEXTS.get(kind).ok_or_else(|| Error::corrupt("a statement of no kind"))?;
    let text = text.get_or_init(|| {
        let parts = [
            keyed.map(|text| text()),
            inserted.map(|text| text()),
            updated.as_ref().map(|text| text()),
            recorded.map(|text| text()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let count = if updated.is_some() { COUNT_UPDATED } else { COUNT_NONE };
        format!("with {} select {count}", parts.join(", "))
    });
    Ok((Cow::Borrowed(text), parameters.into_arguments()))
}

const COUNT_UPDATED: &str = "count(*) from updated";
const COUNT_NONE: &str = "0::int8";

/// The rows of a part; none where the statement goes without it.
fn some<R>(rows: &[R]) -> Option<&[R]> {
    (!rows.is_empty()).then_some(rows)
}

fn keyed(
    p: &mut Parameters,
    now: DateTime<Utc>,
    keys: &[KeyWrite],
) -> Result<impl FnOnce() -> String + use<>> {
    let at = p.value(now)?;
    let mut rows = Rows::new(keys);
    rows.column(p, ("tenant_id", "text"), |k| k.tenant.as_str())?;
    rows.column(p, ("scope_hash", "bytea"), |k| &k.scope[..])?;
    rows.column(p, ("keyed_at", "timestamptz"), |k| k.keyed_at)?.or("'-infinity'");
    rows.column(p, ("fingerprint", "bytea"), |k| &k.fingerprint[..])?;
    rows.column(p, ("transaction_id", "uuid"), |k| k.transaction_id)?;
    rows.column(p, ("status", "int2"), |k| k.answer.status())?;
    rows.column(p, ("answer", "text"), |k| k.answer.text())?;
    rows.column(p, ("version", "int8"), |k| k.answer.version())?;
    // As text: an array of arrays has no rows.
    rows.column(p, ("other_versions", "text"), |k| k.answer.other_versions())?.stored_as("int8[]");
    rows.column(p, ("wallet_id", "text"), |k| k.answer.wallet_id())?;
    let rows = rows.into_columns();
    Ok(move || {
        let (names, values, table) = (rows.names(), rows.values(), rows.table("k"));
        format!(
            "keyed as (insert into idempotency_keys ({names}, created_at) \
             select {values}, {at} from {table})"
        )
    })
}

fn inserted(
    p: &mut Parameters,
    wallets: &[WalletWrite],
    wide: bool,
) -> Result<impl FnOnce() -> String + use<>> {
    let mut rows = Rows::new(wallets);
    rows.column(p, ("tenant_id", "text"), |(tenant, _)| tenant.as_str())?;
    rows.column(p, ("id", "text"), |(_, w)| w.id.as_str())?;
    rows.column(p, ("owner_id", "text"), |(_, w)| w.owner_id.as_str())?;
    rows.column(p, ("currency", "text"), |(_, w)| w.currency.code())?;
    rows.column(p, ("status", "text"), |(_, w)| w.status.as_str())?;
    rows.column(p, ("balance", "numeric"), |(_, w)| w.balance)?;
    rows.column(p, ("held_balance", "numeric"), |(_, w)| w.held_balance)?;
    rows.column(p, ("overdraft_limit", "numeric"), |(_, w)| w.overdraft_limit)?;
    rows.column(p, ("version", "int8"), |(_, w)| w.version)?;
    rows.column(p, ("metadata", "text"), |(_, w)| w.metadata.as_ref().map(Metadata::as_str))?
        .stored_as("json");
    rows.column(p, ("created_at", "timestamptz"), |(_, w)| w.created_at)?;
    rows.column(p, ("updated_at", "timestamptz"), |(_, w)| w.updated_at)?;
    if wide {
        rows.column(p, ("features", "int2"), |(_, w)| w.upkeep.features.0)?;
        rows.column(p, ("next_due_at", "timestamptz"), |(_, w)| w.upkeep.next_due_at)?;
    }
    let rows = rows.into_columns();
    Ok(move || format!("inserted as ({})", rows.insert_into("wallets")))
}

/// Rows are found by their ctid, which stays while they are locked: joined by their ids, a plan made
/// while the table is small would compare every wallet with every change.
fn updated(
    p: &mut Parameters,
    wallets: &[WalletWrite],
    wide: bool,
) -> Result<impl Fn() -> String + use<>> {
    let mut rows = Rows::new(wallets);
    rows.column(p, ("tenant_id", "text"), |(tenant, _)| tenant.as_str())?;
    rows.column(p, ("id", "text"), |(_, w)| w.id.as_str())?;
    rows.column(p, ("status", "text"), |(_, w)| w.status.as_str())?;
    rows.column(p, ("balance", "numeric"), |(_, w)| w.balance)?;
    rows.column(p, ("held_balance", "numeric"), |(_, w)| w.held_balance)?;
    rows.column(p, ("overdraft_limit", "numeric"), |(_, w)| w.overdraft_limit)?;
    rows.column(p, ("version", "int8"), |(_, w)| w.version)?;
    rows.column(p, ("updated_at", "timestamptz"), |(_, w)| w.updated_at)?;
    if wide {
        rows.column(p, ("features", "int2"), |(_, w)| w.upkeep.features.0)?;
        rows.column(p, ("next_due_at", "timestamptz"), |(_, w)| w.upkeep.next_due_at)?;
        rows.column(p, ("metadata", "text"), |(_, w)| w.metadata.as_ref().map(Metadata::as_str))?;
    }
    let rows = rows.into_columns();
    let more = match wide {
        true => ", features = r.features, next_due_at = r.next_due_at, metadata = r.metadata::json",
        false => "",
    };
    Ok(move || {
        format!(
            "updated as (update wallets w set status = r.status, balance = r.balance, \
                 held_balance = r.held_balance, overdraft_limit = r.overdraft_limit, \
                 version = r.version, updated_at = r.updated_at{more} \
             from (select r.*, found.row from {} cross join lateral ( \
                 select ctid as row from wallets \
                 where tenant_id = r.tenant_id and id = r.id limit 1) found) r \
             where w.ctid = r.row returning 1)",
            rows.table("r")
        )
    })
}

/// The events, and an outbox row for those of each tenant, partition and time: a slice of the same arrays.
fn recorded(
    p: &mut Parameters,
    topic: &str,
    events: &[Event],
) -> Result<impl FnOnce() -> String + use<>> {
    // As text: a json parameter would travel as jsonb and lose its bytes.
    let payloads = events.iter().map(|e| e.body.to_data(&e.wallet_id, e.transaction_id));
    let payloads = payloads.collect::<serde_json::Result<Vec<_>>>().map_err(Error::corrupt)?;
    let schema_version = p.value(SCHEMA_VERSION)?;
    let topic = p.value(topic)?;
    let with_payloads: Vec<(&Event, String)> = events.iter().zip(payloads).collect();
    let mut rows = Rows::new(&with_payloads);
    rows.column(p, ("tenant_id", "text"), |(e, _)| e.tenant.as_str())?;
    rows.column(p, ("wallet_id", "text"), |(e, _)| e.wallet_id.as_str())?;
    rows.column(p, ("version", "int8"), |(e, _)| e.version)?;
    rows.column(p, ("event_id", "uuid"), |(e, _)| e.event_id)?;
    rows.column(p, ("event_type", "text"), |(e, _)| e.body.kind.as_str())?;
    rows.column(p, ("payload", "text"), |(_, payload)| payload.as_str())?.stored_as("json");
    rows.column(p, ("transaction_id", "uuid"), |(e, _)| e.transaction_id)?;
    rows.column(p, ("actor", "text"), |(e, _)| e.origin.actor.as_deref())?;
    rows.column(p, ("correlation_id", "text"), |(e, _)| e.origin.correlation_id.as_deref())?;
    rows.column(p, ("causation_id", "text"), |(e, _)| e.origin.causation_id.as_deref())?;
    rows.column(p, ("traceparent", "text"), |(e, _)| e.origin.traceparent.as_deref())?;
    rows.column(p, ("partition", "int4"), |(e, _)| e.partition)?;
    rows.column(p, ("created_at", "timestamptz"), |(e, _)| e.created_at)?;
    let batches = outbox_batches(events);
    let mut batch = Rows::new(&batches);
    batch.column(p, ("tenant_id", "text"), |b| b.of.tenant.as_str())?;
    batch.column(p, ("partition", "int4"), |b| b.of.partition)?;
    batch.column(p, ("created_at", "timestamptz"), |b| b.of.created_at)?;
    batch.column(p, ("first", "int4"), |b| b.first)?;
    batch.column(p, ("last", "int4"), |b| b.last)?;
    let (rows, batch) = (rows.into_columns(), batch.into_columns());
    Ok(move || {
        let (names, values, table) = (rows.names(), rows.values(), rows.table("e"));
        let (wallets, versions) = (rows.array("wallet_id"), rows.array("version"));
        format!(
            "recorded as (insert into events ({names}, schema_version) \
                 select {values}, {schema_version} from {table}), \
             boxed as (insert into outbox_batches \
                     (tenant_id, topic, partition, created_at, wallets, versions) \
                 select b.tenant_id, {topic}, b.partition, b.created_at, \
                     ({wallets})[b.first:b.last], ({versions})[b.first:b.last] from {})",
            batch.table("b")
        )
    })
}

/// Neighbours among the events that share an outbox row: their places, from 1 on.
#[derive(Debug)]
struct OutboxBatch<'e> {
    /// The first of them: all are of its tenant, partition and time.
    of: &'e Event,
    first: i32,
    last: i32,
}

/// Cuts events, sorted as they are written, into the outbox's rows.
fn outbox_batches(events: &[Event]) -> Vec<OutboxBatch<'_>> {
    let together = |a: &Event, b: &Event| {
        (&a.tenant, a.partition, a.created_at) == (&b.tenant, b.partition, b.created_at)
    };
    let chunks = events.chunk_by(together).flat_map(|same| same.chunks(OUTBOX_BATCH_MAX));
    let mut first = 1;
    let cut = chunks.filter_map(|chunk| {
        let of = chunk.first()?;
        let begin = first;
        first += i32::try_from(chunk.len()).unwrap_or(i32::MAX);
        Some(OutboxBatch { of, first: begin, last: first - 1 })
    });
    cut.collect()
}

#[cfg(test)]
mod tests;
