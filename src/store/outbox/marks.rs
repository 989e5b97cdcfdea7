//! Marks: what of the outbox the topic now holds. Fenced by the epoch of the partition's lease, whose last
//! offset is written in the same statement.
//!
//! A batch that was sent whole is marked in one row. Of one that was sent in part, the part keeps its
//! number and is marked; the rest becomes the next part, which stands in the place of the whole: before every
//! batch that came later.

use std::collections::{BTreeMap, BTreeSet};

use super::Slot;
use crate::store::leases::Leased;
use crate::store::{Pool, Result, columns};
use crate::wallet::WalletKey;

/// Events of one partition that the topic now holds.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    pub partition: i32,
    pub epoch: i64,
    /// The last of their offsets.
    pub last_offset: i64,
    pub events: Vec<Slot>,
    /// Those of them that the broker refused before.
    pub refused: Vec<(WalletKey, i64)>,
}

/// What is marked of one part of a batch.
#[derive(Debug)]
struct Sent<'a> {
    tenant: &'a str,
    id: i64,
    part: i16,
    partition: i32,
    /// How many events it had when it was claimed. Another number: it was marked before.
    events: i32,
    /// Where among them those stand that were sent.
    places: BTreeSet<i64>,
}

/// Marks events of several partitions as published, in one statement, which is one transaction.
/// Returns the partitions whose lease still stands; the batches of the others are left as they were.
/// The same marks again change nothing.
pub async fn mark(pool: &Pool, leased: &Leased, marks: &[Mark]) -> Result<Vec<i32>> {
    let sent = sent(marks);
    let refused =
        || marks.iter().flat_map(|mark| mark.refused.iter().map(|of| (mark.partition, of)));
    let (tenants, wallets) = columns(refused().map(|(_, (wallet, _))| wallet));
    // Written as an insert that meets its row: it finds that by the key, in the one partition that has it. An update
    // by a join, planned while the table is empty, would compare every batch with every mark. No "processed_at is
    // null" in the look-up: on a table without statistics the planner takes the partial index for empty, and
    // scans the whole backlog for each batch.
    Ok(sqlx::query_scalar(
        "with fenced as materialized ( \
             select held.partition, given.last_offset \
             from partition_leases held \
             join unnest($4::integer[], $5::bigint[], $6::bigint[]) \
                 as given(partition, epoch, last_offset) \
                 on held.partition = given.partition and held.epoch = given.epoch \
             where held.tenant_id = $1 and held.role = $2 and held.topic = $3 \
             order by held.partition for no key update of held), \
         placed as (update partition_leases held \
             set last_offset = fenced.last_offset, updated_at = clock_timestamp() \
             from fenced where held.tenant_id = $1 and held.role = $2 and held.topic = $3 \
               and held.partition = fenced.partition), \
         given as materialized ( \
             select tenant_id, id, part, events, places::bigint[] as places \
             from unnest($7::text[], $8::bigint[], $9::smallint[], $10::integer[], $11::integer[], \
                 $12::text[]) as given(tenant_id, id, part, partition, events, places) \
             where partition in (select partition from fenced)), \
         rest as ( \
             insert into outbox_batches (tenant_id, id, part, topic, partition, created_at, \
                 wallets, versions) overriding system value \
             select b.tenant_id, b.id, (select max(part) + 1 from outbox_batches \
                     where tenant_id = b.tenant_id and id = b.id), \
                 b.topic, b.partition, b.created_at, \
                 outbox_without(b.wallets, given.places), outbox_without(b.versions, given.places) \
             from given cross join lateral (select * from outbox_batches \
                 where tenant_id = given.tenant_id and id = given.id and part = given.part limit 1) b \
             where given.places is not null and cardinality(b.versions) = given.events), \
         marked as (insert into outbox_batches as sent (tenant_id, id, part, topic, partition, \
                 created_at, wallets, versions) overriding system value \
             select b.tenant_id, b.id, b.part, b.topic, b.partition, b.created_at, \
                 case when places is null then b.wallets else outbox_at(b.wallets, places) end, \
                 case when places is null then b.versions else outbox_at(b.versions, places) end \
             from given cross join lateral (select * from outbox_batches \
                 where tenant_id = given.tenant_id and id = given.id and part = given.part \
                 limit 1 for no key update) b where cardinality(b.versions) = given.events \
             on conflict on constraint outbox_batches_pkey do update set published = true, \
                 processed_at = coalesce(sent.processed_at, clock_timestamp()), \
                 wallets = excluded.wallets, versions = excluded.versions), \
         taken as (delete from outbox_refusals known \
             using unnest($13::integer[], $14::text[], $15::text[], $16::bigint[]) \
                 as now(partition, tenant_id, wallet_id, version) \
             where known.tenant_id = now.tenant_id and known.wallet_id = now.wallet_id \
               and known.version = now.version and now.partition in (select partition from fenced)) \
         select partition from fenced",
    )
    .bind(&leased.tenant)
    .bind(leased.role)
    .bind(&leased.topic)
    .bind(marks.iter().map(|mark| mark.partition).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.epoch).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.last_offset).collect::<Vec<_>>())
    .bind(sent.iter().map(|batch| batch.tenant).collect::<Vec<_>>())
    .bind(sent.iter().map(|batch| batch.id).collect::<Vec<_>>())
    .bind(sent.iter().map(|batch| batch.part).collect::<Vec<_>>())
    .bind(sent.iter().map(|batch| batch.partition).collect::<Vec<_>>())
    .bind(sent.iter().map(|batch| batch.events).collect::<Vec<_>>())
    .bind(sent.iter().map(Sent::places).collect::<Vec<_>>())
    .bind(refused().map(|(partition, _)| partition).collect::<Vec<_>>())
    .bind(tenants)
    .bind(wallets)
    .bind(refused().map(|(_, (_, version))| *version).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?)
}

/// The events by batch and part, in the order of their keys.
fn sent(marks: &[Mark]) -> Vec<Sent<'_>> {
    let mut parts: BTreeMap<(&str, i64, i16), Sent<'_>> = BTreeMap::new();
    for mark in marks {
        for slot in &mark.events {
            let Slot { tenant_id, id, part, place, events } = slot;
            let (tenant, partition, places) = (tenant_id.as_str(), mark.partition, BTreeSet::new());
            let new = || Sent { tenant, id: *id, part: *part, partition, events: *events, places };
            parts.entry((tenant, *id, *part)).or_insert_with(new).places.insert(*place);
        }
    }
    parts.into_values().collect()
}

impl Sent<'_> {
    /// The places as an array's text: arrays of arrays have no rows to travel as. None: all of it was sent.
    fn places(&self) -> Option<String> {
        if i32::try_from(self.places.len()).is_ok_and(|sent| sent >= self.events) {
            return None;
        }
        let places: Vec<String> = self.places.iter().map(i64::to_string).collect();
        Some(format!("{{{}}}", places.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(id: i64, part: i16, place: i64, events: i32) -> Slot {
        Slot { tenant_id: "default".to_owned(), id, part, place, events }
    }

    #[test]
    fn a_batch_is_marked_whole_or_by_the_places_of_what_was_sent() {
        let events = vec![
            slot(8, 0, 1, 2),
            slot(7, 1, 3, 4),
            slot(8, 0, 2, 2),
            slot(7, 1, 1, 4),
            // Found in the topic twice.
            slot(7, 1, 3, 4),
            slot(-5, 0, 1, 1),
        ];
        let marks = [Mark { partition: 3, epoch: 4, events, ..Mark::default() }];
        let sent = sent(&marks);
        let of = |batch: &Sent<'_>| (batch.id, batch.part, batch.events, batch.places());
        let found: Vec<(i64, i16, i32, Option<String>)> = sent.iter().map(of).collect();
        let some = Some("{1,3}".to_owned());
        assert_eq!(found, [(-5, 0, 1, None), (7, 1, 4, some), (8, 0, 2, None)]);
        assert!(sent.iter().all(|batch| batch.partition == 3 && batch.tenant == "default"));
    }
}
