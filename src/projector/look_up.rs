//! Which events are meant, before anything is locked: what records name is looked for among the events that
//! this instance committed, then among those that were seen in the books a moment ago, and only then in
//! Postgres. What names no event of this service becomes a dead letter.

use uuid::Uuid;

use super::chunk::{Chunk, EventRef, Feed, dead_letter, of_another, unknown};
use super::seen::Seen;
use super::{Job, report};
use crate::store::recorded::{Claim, Recorded, Unreadable};
use crate::store::{self, Blame, Connection};
use crate::wallet::{Event, TenantId, WalletId};

/// Events that could not be read, none before them: after so many it is not the events.
const UNREAD_MAX: usize = 10;

/// What is known of what a record names.
enum Named {
    /// The event itself.
    Event(Box<Recorded>),
    /// It is in the books as it is named, and may be applied already.
    Seen,
    /// No event of this service.
    Nothing,
}

/// Looks up the events of the chunks, and turns records that name no event of this service into dead
/// letters. Outside the transaction: events are never changed, and none is in the topic before it is
/// committed.
pub async fn look_up(
    connection: &mut Connection,
    job: &Job,
    seen: &mut Seen,
    chunks: &mut [Chunk],
) -> store::Result<()> {
    from_cache(job, chunks);
    let claims: Vec<_> = chunks
        .iter()
        .filter(|chunk| chunk.feed == Feed::Kafka)
        .flat_map(|chunk| chunk.records.iter().map(move |record| (chunk.partition, record)))
        .filter(|(_, record)| record.event.is_none())
        .map(|(partition, record)| record.claim(partition))
        .collect();
    if claims.is_empty() {
        return Ok(());
    }
    let mut named = named(connection, seen, &claims).await?.into_iter();
    for chunk in chunks.iter_mut().filter(|chunk| chunk.feed == Feed::Kafka) {
        for record in std::mem::take(&mut chunk.records) {
            if record.event.is_some() {
                chunk.records.push(record);
                continue;
            }
            match named.next().unwrap_or(Named::Nothing) {
                Named::Event(event) => {
                    chunk.records.push(EventRef { record: None, event: Some(*event), ..record });
                }
                Named::Seen => chunk.records.push(EventRef { record: None, ..record }),
                Named::Nothing => set_aside(job, chunk, record),
            }
        }
    }
    Ok(())
}

/// Takes the events that this instance committed, and notes on which server.
fn from_cache(job: &Job, chunks: &mut [Chunk]) {
    let partitions = chunks
        .iter()
        .flat_map(|chunk| chunk.records.iter().map(|record| (record.event_id, chunk.partition)));
    let (server, kept) = job.event_cache.get(partitions);
    let mut kept = kept.into_iter();
    for chunk in chunks {
        for record in &mut chunk.records {
            let is_it = |event: &Event| {
                let (tenant, wallet) = &record.wallet;
                event.tenant == *tenant
                    && event.wallet_id == *wallet
                    && event.version == record.version
            };
            if let Some(event) = kept.next().flatten().filter(is_it) {
                (record.record, record.event, chunk.server) = (None, Some(Ok(event)), server);
            }
        }
    }
}

/// The record names no event of this service: kept whole, unless it is another deployment's.
fn set_aside(job: &Job, chunk: &mut Chunk, mut record: EventRef) {
    let other = record.record.as_ref().and_then(|r| of_another(job.deployment, r));
    if other.is_some() {
        // A dead letter would ask an operator to look into what is no mistake of the record's.
        chunk.foreign = other;
        return;
    }
    let (class, message) = unknown(&record);
    let letter = record.record.take();
    chunk.dead.extend(letter.map(|r| dead_letter(chunk.partition, r, class, message)));
}

/// What each claim names: seen a moment ago, else as Postgres has it.
async fn named(
    connection: &mut Connection,
    seen: &Seen,
    claims: &[Claim<'_>],
) -> store::Result<Vec<Named>> {
    let absent: Vec<Claim<'_>> =
        claims.iter().filter(|claim| !seen.contains(claim)).copied().collect();
    let mut found = Vec::new();
    if !absent.is_empty() {
        found = match store::recorded::named(connection, &absent).await {
            Err(error) if error.blame() == Blame::Lasting => singly(connection, &absent).await?,
            found => found?,
        };
        report::read(found.iter().flatten().count());
    }
    let mut found = found.into_iter();
    let each = |claim: &Claim<'_>| match seen.contains(claim) {
        true => Named::Seen,
        false => match found.next().flatten() {
            Some(event) => Named::Event(Box::new(event)),
            None => Named::Nothing,
        },
    };
    Ok(claims.iter().map(each).collect())
}

/// One by one: an event whose row cannot be read is one that cannot be applied. Where none can be, it is
/// not the rows.
async fn singly(
    connection: &mut Connection,
    claims: &[Claim<'_>],
) -> store::Result<Vec<Option<Recorded>>> {
    // Of no event at all: fails where it would for each.
    let no_wallet = (TenantId::stored(""), WalletId::stored(""));
    store::recorded::named(connection, &[(&no_wallet, 0, Uuid::nil(), 0)]).await?;
    let (mut found, mut read) = (Vec::with_capacity(claims.len()), false);
    for claim in claims {
        match store::recorded::named(connection, &[*claim]).await {
            Ok(named) => {
                read = true;
                found.extend(named);
            }
            Err(error) if error.blame() == Blame::Lasting => {
                if !read && found.len() >= UNREAD_MAX {
                    return Err(error);
                }
                let (wallet, version, _, _) = *claim;
                let (wallet, cause) = (wallet.clone(), error.told());
                found.push(Some(Err(Unreadable { wallet, version, cause, newer: false })));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
