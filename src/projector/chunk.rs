//! What both feeds hand to the one way of applying: a stretch of one partition.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::envelope::EnvelopeHead;
use crate::kafka::Fetched;
use crate::store::checkpoints::Advance;
use crate::store::dead_letters::DeadLetter;
use crate::wallet::{TenantId, WalletId};

/// Where a chunk comes from, and so which of a checkpoint's two places it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    Kafka,
    Postgres,
}

/// Records of one partition, with the place that the checkpoint must have and the one it gets.
#[derive(Debug)]
pub struct Chunk {
    pub feed: Feed,
    pub partition: i32,
    pub expected: i64,
    pub next: i64,
    pub records: Vec<Seen>,
    pub dead: Vec<DeadLetter>,
}

/// A record that names an event. What it says of the event is never used: `events` is the record.
#[derive(Debug)]
pub struct Seen {
    pub wallet: WalletId,
    pub version: i64,
    pub event_id: Uuid,
    /// The record itself, for the dead letters, where it is not known to be ours.
    pub record: Option<Fetched>,
}

impl Chunk {
    /// Sorts fetched records into events and dead letters.
    pub fn of_records(
        tenant: &TenantId,
        partition: i32,
        expected: i64,
        records: Vec<Fetched>,
    ) -> Self {
        let next = records.last().map_or(expected, |record| record.offset + 1);
        let mut chunk = Self {
            feed: Feed::Kafka,
            partition,
            expected,
            next,
            records: Vec::with_capacity(records.len()),
            dead: Vec::new(),
        };
        for record in records {
            match head(tenant, &record) {
                Ok(head) => chunk.records.push(Seen {
                    wallet: WalletId::stored(&head.aggregate_id),
                    version: head.aggregate_version,
                    event_id: head.event_id,
                    record: Some(record),
                }),
                Err((class, message)) => {
                    chunk.dead.push(dead_letter(partition, record, class, message));
                }
            }
        }
        chunk
    }

    /// How the chunk moves its partition's checkpoint, if it does.
    pub fn advance(&self) -> Option<Advance> {
        if self.next == self.expected {
            return None;
        }
        let pair = Some((self.expected, self.next));
        Some(match self.feed {
            Feed::Kafka => Advance { partition: self.partition, next_offset: pair, feed_xid: None },
            Feed::Postgres => {
                Advance { partition: self.partition, next_offset: None, feed_xid: pair }
            }
        })
    }
}

/// The record as a dead letter, whole.
pub fn dead_letter(
    partition: i32,
    record: Fetched,
    error_class: &'static str,
    error_message: String,
) -> DeadLetter {
    DeadLetter {
        partition,
        offset: record.offset,
        headers: headers_json(&record.headers),
        key: record.key,
        value: record.value,
        error_class,
        error_message,
    }
}

/// What a record claims to be, if it can be an event of this tenant's wallets at all.
fn head(tenant: &TenantId, record: &Fetched) -> Result<EnvelopeHead, (&'static str, String)> {
    let value = record.value.as_deref().unwrap_or_default();
    if value.is_empty() {
        return Err(("empty_value", "the record has no value".to_owned()));
    }
    let head: EnvelopeHead =
        serde_json::from_slice(value).map_err(|error| ("undecodable", error.to_string()))?;
    if head.tenant_id != tenant.as_str() {
        return Err(("foreign_tenant", "the event belongs to another tenant".to_owned()));
    }
    if record.key.as_deref() != Some(head.aggregate_id.as_bytes()) {
        return Err(("wrong_key", "the key is not the wallet's id".to_owned()));
    }
    // No such wallet can exist, and Postgres could not even be asked for it.
    if WalletId::parse(&head.aggregate_id).is_none() {
        return Err(("unknown_event", "no wallet can have this id".to_owned()));
    }
    Ok(head)
}

/// Names to values; a value that is no text stands in base64.
fn headers_json(headers: &BTreeMap<String, Vec<u8>>) -> String {
    use base64::Engine as _;
    let value = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::Value::from(text),
        Err(_) => {
            serde_json::json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)})
        }
    };
    let object: serde_json::Map<String, serde_json::Value> =
        headers.iter().map(|(name, bytes)| (name.clone(), value(bytes))).collect();
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn record(offset: i64, key: &str, value: &str) -> Fetched {
        Fetched {
            offset,
            key: Some(key.as_bytes().to_vec()),
            value: Some(value.as_bytes().to_vec()),
            headers: BTreeMap::from([("bin".to_owned(), vec![0xff])]),
            timestamp: DateTime::default(),
        }
    }

    #[test]
    fn what_is_no_event_of_ours_is_told_apart_and_the_rest_goes_on() {
        let event = |tenant: &str, id: &str| {
            format!(
                r#"{{"eventId":"{}","tenantId":"{tenant}","aggregateId":"{id}","aggregateVersion":3}}"#,
                Uuid::nil()
            )
        };
        let records = vec![
            record(5, "w", &event("default", "w")),
            record(6, "w", "{"),
            record(8, "x", &event("default", "w")),
            record(9, "w", &event("other", "w")),
            record(10, "w", ""),
            record(11, "a b", &event("default", "a b")),
        ];
        let chunk = Chunk::of_records(&TenantId::default_tenant(), 2, 5, records);
        assert_eq!((chunk.expected, chunk.next, chunk.records.len()), (5, 12, 1));
        let classes: Vec<_> = chunk.dead.iter().map(|d| (d.offset, d.error_class)).collect();
        let expected = [
            (6, "undecodable"),
            (8, "wrong_key"),
            (9, "foreign_tenant"),
            (10, "empty_value"),
            (11, "unknown_event"),
        ];
        assert_eq!(classes, expected);
        assert!(chunk.dead.iter().all(|d| d.headers == r#"{"bin":{"base64":"/w=="}}"#));
    }
}
