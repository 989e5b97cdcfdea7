//! The second half of a batch: one statement writes all of it.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::store::{Connection, Error, Result};
use crate::wallet::{Event, Metadata, SCHEMA_VERSION, TenantId, Wallet};

/// A key and the outcome that it has from now on.
#[derive(Debug, Clone)]
pub struct KeyWrite {
    pub scope: [u8; 16],
    pub fingerprint: [u8; 16],
    pub transaction_id: Uuid,
    pub status: i16,
    pub kept: KeptAs,
}

/// How the answer under a key is kept: see `Kept`, which reads it.
#[derive(Debug, Clone)]
pub enum KeptAs {
    Text(std::sync::Arc<str>),
    Versions(i64, Option<i64>),
}

impl KeyWrite {
    fn text(&self) -> Option<&str> {
        match &self.kept {
            KeptAs::Text(body) => Some(body),
            KeptAs::Versions(..) => None,
        }
    }

    fn versions(&self) -> (Option<i64>, Option<i64>) {
        match self.kept {
            KeptAs::Text(_) => (None, None),
            KeptAs::Versions(first, second) => (Some(first), second),
        }
    }
}

/// All that one batch changes.
#[derive(Debug, Default)]
pub struct Writes {
    /// Wallets that did not exist, in their final state.
    pub opened: Vec<Wallet>,
    /// Wallets that did, in their final state.
    pub moved: Vec<Wallet>,
    pub events: Vec<Event>,
    pub keys: Vec<KeyWrite>,
}

impl Writes {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.keys.is_empty()
    }

    /// The one lock order: keys by scope, new wallets by id, outbox rows by wallet and version.
    fn sort(&mut self) {
        self.keys.sort_by_key(|key| key.scope);
        self.opened.sort_by(|a, b| a.id.cmp(&b.id));
        self.moved.sort_by(|a, b| a.id.cmp(&b.id));
        self.events.sort_by(|a, b| (&a.wallet_id, a.version).cmp(&(&b.wallet_id, b.version)));
    }
}

/// Wallets are moved by the place of their row, which is locked and stays: joined by their ids, a
/// plan made while the table is small would compare every wallet with every change.
///
/// Postgres runs the parts that modify: `moved` first, because the main query reads it, then the
/// others in the order they are written down. That order matters only between keys and new
/// wallets, the two parts that can wait for another transaction.
const WRITE: &str = "
with keyed as (
    insert into idempotency_keys
        (tenant_id, scope_hash, fingerprint, transaction_id, status, answer, version,
        second_version, created_at)
    select $1, scope_hash, fingerprint, transaction_id, status, answer, version, second_version, $2
    from unnest($3::bytea[], $4::bytea[], $5::uuid[], $6::int2[], $7::text[], $33::int8[],
            $34::int8[])
        as k(scope_hash, fingerprint, transaction_id, status, answer, version, second_version)
),
opened as (
    insert into wallets (tenant_id, id, owner_id, currency, status, balance, overdraft_limit,
        version, metadata, created_at, updated_at)
    select $1, id, owner_id, currency, 'active', balance, overdraft_limit, version,
        metadata::json, at, at
    from unnest($8::text[], $9::text[], $10::text[], $11::numeric[], $12::numeric[], $13::int8[],
            $14::text[], $15::timestamptz[])
        as w(id, owner_id, currency, balance, overdraft_limit, version, metadata, at)
),
moved as (
    update wallets w set balance = m.balance, held_balance = m.held_balance,
        overdraft_limit = m.overdraft_limit, status = m.status, version = m.version,
        updated_at = m.at
    from (select m.*, found.place
        from unnest($16::text[], $17::numeric[], $18::int8[], $19::timestamptz[], $36::numeric[],
                $37::numeric[], $38::text[])
            as m(id, balance, version, at, held_balance, overdraft_limit, status)
        cross join lateral (
            select ctid as place from wallets where tenant_id = $1 and id = m.id limit 1) found) m
    where w.ctid = m.place
    returning 1
),
recorded as (
    insert into events (tenant_id, wallet_id, version, event_id, event_type, schema_version,
        payload, transaction_id, actor, correlation_id, causation_id, traceparent, partition, created_at)
    select $1, id, version, event_id, kind, $35, payload::json, transaction_id,
        actor, correlation_id, causation_id, traceparent, partition, at
    from unnest($20::text[], $21::int8[], $22::uuid[], $23::text[], $24::text[], $25::uuid[],
            $26::text[], $27::text[], $28::text[], $29::text[], $30::int4[], $31::timestamptz[])
        as e(id, version, event_id, kind, payload, transaction_id, actor, correlation_id,
            causation_id, traceparent, partition, at)
),
boxed as (
    insert into outbox
        (tenant_id, aggregate_id, event_type, event_version, topic, partition, created_at)
    select $1, o.id, o.kind, o.version, $32, o.partition, o.at
    from unnest($20::text[], $23::text[], $21::int8[], $30::int4[], $31::timestamptz[])
        as o(id, kind, version, partition, at)
)
select count(*) from moved";

/// Writes a batch's keys, wallets, events and outbox rows. Every moved wallet must still be there:
/// it is locked by this transaction.
pub async fn write_batch(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
    now: DateTime<Utc>,
    writes: &mut Writes,
) -> Result<()> {
    writes.sort();
    let (keys, opened, moved, events) =
        (&writes.keys, &writes.opened, &writes.moved, &writes.events);
    // As text: a json parameter would travel as jsonb and lose its bytes.
    let payloads = events.iter().map(|e| e.body.to_data(&e.wallet_id, e.transaction_id));
    let payloads = payloads.collect::<serde_json::Result<Vec<_>>>().map_err(Error::corrupt)?;
    let query = sqlx::query_scalar::<_, i64>(WRITE)
        .bind(tenant.as_str())
        .bind(now)
        .bind(column(keys, |k| &k.scope[..]))
        .bind(column(keys, |k| &k.fingerprint[..]))
        .bind(column(keys, |k| k.transaction_id))
        .bind(column(keys, |k| k.status))
        .bind(column(keys, KeyWrite::text))
        .bind(column(opened, |w| w.id.as_str()))
        .bind(column(opened, |w| w.owner_id.as_str()))
        .bind(column(opened, |w| w.currency.code()))
        .bind(column(opened, |w| w.balance))
        .bind(column(opened, |w| w.overdraft_limit))
        .bind(column(opened, |w| w.version))
        .bind(column(opened, |w| w.metadata.as_ref().map(Metadata::as_str)))
        .bind(column(opened, |w| w.created_at))
        .bind(column(moved, |w| w.id.as_str()))
        .bind(column::<_, Decimal>(moved, |w| w.balance))
        .bind(column(moved, |w| w.version))
        .bind(column(moved, |w| w.updated_at))
        .bind(column(events, |e| e.wallet_id.as_str()))
        .bind(column(events, |e| e.version))
        .bind(column(events, |e| e.event_id))
        .bind(column(events, |e| e.body.kind.event_type().as_str()))
        .bind(payloads)
        .bind(column(events, |e| e.transaction_id))
        .bind(column(events, |e| e.origin.actor.as_deref()))
        .bind(column(events, |e| e.origin.correlation_id.as_deref()))
        .bind(column(events, |e| e.origin.causation_id.as_deref()))
        .bind(column(events, |e| e.origin.traceparent.as_deref()))
        .bind(column(events, |e| e.partition))
        .bind(column(events, |e| e.created_at))
        .bind(topic)
        .bind(column(keys, |k| k.versions().0))
        .bind(column(keys, |k| k.versions().1))
        .bind(SCHEMA_VERSION)
        .bind(column(moved, |w| w.held_balance))
        .bind(column(moved, |w| w.overdraft_limit))
        .bind(column(moved, |w| w.status.as_str()));
    let updated = query.fetch_one(connection).await?;
    // Checked before COMMIT: a wallet that was not updated would be money out of nowhere.
    if usize::try_from(updated).ok() != Some(moved.len()) {
        return Err(Error::corrupt(format!("{updated} of {} wallets updated", moved.len())));
    }
    Ok(())
}

fn column<'a, T, U>(rows: &'a [T], of: impl Fn(&'a T) -> U) -> Vec<U> {
    rows.iter().map(of).collect()
}
