//! Events of the topic that the outbox does not know to be there: which batches have them?

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::Slot;
use crate::store::{Pool, Result, columns, wallet_key};
use crate::wallet::WalletKey;

/// Batches that are looked at in one statement.
const PAGE: i64 = 500;
/// Events without one that was found, one after the other, behind which none is looked for: what was sent has the
/// lowest ids of what waits, save what is set aside.
const ENOUGH: usize = 20_000;

/// An event that a record of the topic names.
#[derive(Debug, Clone)]
pub struct Found {
    pub tenant_id: String,
    pub wallet_id: String,
    pub version: i64,
    pub event_id: Uuid,
}

impl Found {
    /// Its wallet, and the version there.
    pub fn key(&self) -> (WalletKey, i64) {
        (wallet_key(&self.tenant_id, &self.wallet_id), self.version)
    }
}

#[derive(sqlx::FromRow)]
struct Waiting {
    tenant_id: String,
    id: i64,
    part: i16,
    wallets: Vec<String>,
    versions: Vec<i64>,
}

/// The unprocessed events of a partition that were found in the topic, of batches from this id on. Those that are
/// sent again are not among them: such an event is in the topic, but not in its place. Page by page, from the
/// lowest id on, and no further than such events can be: a backlog of any length is looked at as quickly as a
/// short one. What is missed is sent twice, which is allowed.
pub async fn waiting(
    pool: &Pool,
    topic: &str,
    partition: i32,
    from_id: i64,
    found: &[Found],
) -> Result<Vec<Slot>> {
    let mut wanted: HashMap<(&str, &str, i64), Vec<Uuid>> = HashMap::new();
    for event in found {
        let key = (event.tenant_id.as_str(), event.wallet_id.as_str(), event.version);
        wanted.entry(key).or_default().push(event.event_id);
    }
    let mut slots: Vec<(WalletKey, i64, Slot)> = Vec::new();
    let (mut from, mut without) = ((from_id.max(0), i16::MIN), 0);
    while !wanted.is_empty() {
        let batches = page(pool, topic, partition, from).await?;
        let Some(last) = batches.last() else { break };
        from = (last.id, last.part.saturating_add(1));
        let is_last = i64::try_from(batches.len()).unwrap_or(0) < PAGE;
        for batch in batches {
            let before = slots.len();
            slots.extend(held(&wanted, &batch));
            without = if slots.len() > before { 0 } else { without + batch.versions.len() };
        }
        if is_last || without >= ENOUGH.max(found.len()) {
            break;
        }
    }
    confirmed(pool, &wanted, slots).await
}

async fn page(
    pool: &Pool,
    topic: &str,
    partition: i32,
    (from_id, from_part): (i64, i16),
) -> Result<Vec<Waiting>> {
    Ok(sqlx::query_as(
        "select tenant_id, id, part, wallets, versions from outbox_batches \
         where topic = $1 and partition = $2 and processed_at is null and (id, part) >= ($3, $4) \
         order by id, part limit $5",
    )
    .bind(topic)
    .bind(partition)
    .bind(from_id)
    .bind(from_part)
    .bind(PAGE)
    .fetch_all(pool)
    .await?)
}

/// What a batch has of the events that are wanted.
fn held(
    wanted: &HashMap<(&str, &str, i64), Vec<Uuid>>,
    batch: &Waiting,
) -> Vec<(WalletKey, i64, Slot)> {
    let events = i32::try_from(batch.versions.len()).unwrap_or(i32::MAX);
    let each = (1..).zip(batch.wallets.iter().zip(&batch.versions));
    let wanted = each.filter(|(_, (wallet, version))| {
        wanted.contains_key(&(batch.tenant_id.as_str(), wallet.as_str(), **version))
    });
    let slot = |(place, (wallet, version)): (i64, (&String, &i64))| {
        let Waiting { tenant_id, id, part, .. } = batch;
        let slot = Slot { tenant_id: tenant_id.clone(), id: *id, part: *part, place, events };
        (wallet_key(tenant_id, wallet), *version, slot)
    };
    wanted.map(slot).collect()
}

/// Those whose event is the one that the record names, each in one batch: nothing writes an event into two;
/// one that stood in two would be sent again, not marked twice.
async fn confirmed(
    pool: &Pool,
    wanted: &HashMap<(&str, &str, i64), Vec<Uuid>>,
    slots: Vec<(WalletKey, i64, Slot)>,
) -> Result<Vec<Slot>> {
    let mut by_event: HashMap<(WalletKey, i64), Vec<Slot>> = HashMap::new();
    for (wallet, version, slot) in slots {
        by_event.entry((wallet, version)).or_default().push(slot);
    }
    by_event.retain(|_, slots| slots.len() == 1);
    let known: Vec<(&WalletKey, i64, Uuid)> = by_event
        .keys()
        .flat_map(|(wallet, version)| {
            let key = (wallet.0.as_str(), wallet.1.as_str(), *version);
            let ids = wanted.get(&key).into_iter().flatten();
            ids.map(move |id| (wallet, *version, *id))
        })
        .collect();
    let named = named(pool, &known).await?;
    let mut kept = HashSet::new();
    kept.extend(named.iter().filter_map(|place| {
        // Counted from one.
        let (wallet, version, _) = known.get(usize::try_from(*place - 1).ok()?)?;
        Some(((*wallet).clone(), *version))
    }));
    by_event.retain(|event, _| kept.contains(event));
    Ok(by_event.into_values().flatten().collect())
}

/// The places of those that are events of the books.
async fn named(pool: &Pool, events: &[(&WalletKey, i64, Uuid)]) -> Result<Vec<i64>> {
    let (tenants, wallets) = columns(events.iter().map(|(wallet, ..)| *wallet));
    Ok(sqlx::query_scalar(
        "select given.place from unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[]) \
             with ordinality as given(tenant_id, wallet_id, version, event_id, place) \
         cross join lateral (select from events e where e.tenant_id = given.tenant_id \
             and e.wallet_id = given.wallet_id and e.version = given.version \
             and e.event_id = given.event_id limit 1) e",
    )
    .bind(tenants)
    .bind(wallets)
    .bind(events.iter().map(|(_, version, _)| *version).collect::<Vec<_>>())
    .bind(events.iter().map(|(_, _, id)| *id).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?)
}
