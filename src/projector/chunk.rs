//! What both feeds hand to the one way of applying: a stretch of one partition.

use std::sync::Arc;

use uuid::Uuid;

use crate::envelope::{DEPLOYMENT, EnvelopeHead};
use crate::kafka::Fetched;
use crate::store::dead_letters::DeadLetter;
use crate::store::dead_letters::letter::Original;
use crate::store::recorded::{Claim, Recorded};
use crate::wallet::{EventType, SCHEMA_VERSION, TenantId, WalletId, WalletKey};

/// Where a chunk comes from, and so which of a checkpoint's two places it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    Kafka,
    Postgres,
}

/// Records of one partition, with the place that they begin at and the one behind them.
#[derive(Debug)]
pub struct Chunk {
    pub feed: Feed,
    pub partition: i32,
    pub expected: i64,
    pub next: i64,
    pub records: Vec<EventRef>,
    pub dead: Vec<DeadLetter>,
    /// The server whose commits some of the events are, as they were kept; none: all were read.
    pub server: Option<i64>,
    /// Another deployment, whose events are among the records.
    pub foreign: Option<Uuid>,
}

/// A record that names an event. What it says of the event is never used: `events` is the record.
#[derive(Debug)]
pub struct EventRef {
    pub wallet: WalletKey,
    pub version: i64,
    pub event_id: Uuid,
    /// The record itself, for the dead letters, where it is not known to be ours.
    pub record: Option<Arc<Fetched>>,
    /// The event itself, where it was looked up; none: it is in the books, and is read where it is lacking.
    pub event: Option<Recorded>,
}

impl Chunk {
    /// Sorts fetched records into events and dead letters.
    pub fn of_records(partition: i32, expected: i64, records: Vec<Arc<Fetched>>) -> Self {
        let next = records.last().map_or(expected, |record| record.offset + 1);
        let mut chunk = Self {
            feed: Feed::Kafka,
            partition,
            expected,
            next,
            records: Vec::with_capacity(records.len()),
            dead: Vec::new(),
            server: None,
            foreign: None,
        };
        for record in records {
            match head(&record) {
                Ok(head) => chunk.records.push(EventRef {
                    wallet: (
                        TenantId::stored(&head.tenant_id),
                        WalletId::stored(&head.aggregate_id),
                    ),
                    version: head.aggregate_version,
                    event_id: head.event_id,
                    record: Some(record),
                    event: None,
                }),
                Err((class, message)) => {
                    chunk.dead.push(dead_letter(partition, record, class, message));
                }
            }
        }
        chunk
    }
}

impl EventRef {
    /// What is said of the event.
    pub fn claim(&self, partition: i32) -> Claim<'_> {
        (&self.wallet, self.version, self.event_id, partition)
    }
}

/// The record as a dead letter, whole.
pub fn dead_letter(
    partition: i32,
    record: Arc<Fetched>,
    error_class: &'static str,
    error_message: String,
) -> DeadLetter {
    // Another reader may have it in hand, too.
    let record = Arc::unwrap_or_clone(record);
    let original = Original {
        partition,
        offset: record.offset,
        key: record.key,
        value: record.value,
        headers: record.headers,
        written_at: Some(record.timestamp.timestamp_millis()),
    };
    DeadLetter::of(original, error_class, error_message)
}

/// Why there is no event that a record names, as far as the record tells: its class and what it
/// says.
pub fn unknown(seen: &EventRef) -> (&'static str, String) {
    let value = seen.record.as_ref().and_then(|record| record.value.as_deref());
    let head: Option<EnvelopeHead> = value.and_then(|value| serde_json::from_slice(value).ok());
    if let Some(head) = head {
        let kind = head.event_type.unwrap_or_default();
        if EventType::parse(&kind).is_none() {
            return ("unknown_type", format!("no event, and of no known type: {kind}"));
        }
        if let Some(version) = head.schema_version.filter(|v| *v > i64::from(SCHEMA_VERSION)) {
            let message = format!("no event, and of schema version {version}, not yet known");
            return ("unknown_schema", message);
        }
    }
    let (event, version) = (seen.event_id, seen.version);
    ("unknown_event", format!("no event {event} at version {version} of this wallet and partition"))
}

/// The deployment that the record says it is an event of, if that is another one than `own`.
pub fn of_another(own: Option<Uuid>, record: &Fetched) -> Option<Uuid> {
    let said = Uuid::try_parse_ascii(record.headers.get(DEPLOYMENT)?).ok()?;
    own.filter(|own| *own != said).map(|_| said)
}

/// What a record claims to be, if it can be an event of some wallet at all.
fn head(record: &Fetched) -> Result<EnvelopeHead, (&'static str, String)> {
    let value = record.value.as_deref().unwrap_or_default();
    if value.is_empty() {
        return Err(("empty_value", "the record has no value".to_owned()));
    }
    let text = std::str::from_utf8(value).map_err(|error| ("invalid_utf8", error.to_string()))?;
    let head: EnvelopeHead =
        serde_json::from_str(text).map_err(|error| ("undecodable", error.to_string()))?;
    if record.key.as_deref() != Some(head.aggregate_id.as_bytes()) {
        return Err(("wrong_key", "the key is not the wallet's id".to_owned()));
    }
    // No such wallet can exist, or no such tenant, and Postgres could not even be asked for it.
    if WalletId::parse(&head.aggregate_id).is_none() || WalletId::parse(&head.tenant_id).is_none() {
        return Err(("unknown_event", "no wallet can have this id".to_owned()));
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
            Fetched { value: Some(b"\"\xff\"".to_vec()), ..record(7, "w", "") },
            record(8, "x", &event("default", "w")),
            record(9, "w", &event("a\\u0000", "w")),
            record(10, "w", ""),
            record(11, "a b", &event("default", "a b")),
        ];
        let chunk = Chunk::of_records(2, 5, { records }.into_iter().map(Arc::new).collect());
        assert_eq!((chunk.expected, chunk.next, chunk.records.len()), (5, 12, 1));
        let classes: Vec<_> = chunk.dead.iter().map(|d| (d.offset, d.error_class)).collect();
        let expected = [
            (6, "undecodable"),
            (7, "invalid_utf8"),
            (8, "wrong_key"),
            (9, "unknown_event"),
            (10, "empty_value"),
            (11, "unknown_event"),
        ];
        assert_eq!(classes, expected);
        assert!(chunk.dead.iter().all(|d| d.headers == r#"{"bin":{"base64":"/w=="}}"#));
    }
}
