//! An event as published, pure: the record's key, value, headers and partition.
//!
//! Value: the JSON envelope of docs/EVENTS.md. Key: the wallet's id, hashed to a partition as the
//! Java client hashes it, so that any producer of the same key chooses the same partition.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// What every event of a wallet is an event of.
pub const AGGREGATE_TYPE: &str = "Wallet";

/// Headers of a replayed dead letter: its id, and the number of this replay.
pub const DEAD_LETTER_ID: &str = "dead-letter-id";
pub const REPLAY_COUNT: &str = "replay-count";
/// On a record that its topic would not take whole: how many bytes its value had.
pub const VALUE_LEFT_OUT: &str = "value-left-out";

/// Header of an event: the deployment whose event it is.
pub const DEPLOYMENT: &str = "deployment-id";

/// The published JSON. `data` goes through untouched.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<'a> {
    pub event_id: Uuid,
    pub event_type: &'a str,
    pub aggregate_type: &'a str,
    pub aggregate_id: &'a str,
    pub aggregate_version: i64,
    pub schema_version: i16,
    pub tenant_id: &'a str,
    /// RFC 3339, UTC, milliseconds.
    pub timestamp: String,
    pub correlation_id: Option<&'a str>,
    pub causation_id: Option<&'a str>,
    pub data: &'a RawValue,
}

/// What a reader of the topic needs of an envelope to find the event in the books.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvelopeHead {
    pub event_id: Uuid,
    pub tenant_id: String,
    pub aggregate_id: String,
    pub aggregate_version: i64,
    pub event_type: Option<String>,
    pub schema_version: Option<i64>,
}

impl Envelope<'_> {
    /// The record's value.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// The record's headers: none is ever missing, an absent id is the empty string.
    pub fn headers(&self, traceparent: Option<&str>) -> Vec<(&'static str, Vec<u8>)> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        vec![
            ("eventType", bytes(self.event_type)),
            ("aggregateType", bytes(self.aggregate_type)),
            ("event-type", bytes(self.event_type)),
            ("aggregate-id", bytes(self.aggregate_id)),
            ("correlation-id", bytes(self.correlation_id.unwrap_or(""))),
            ("causation-id", bytes(self.causation_id.unwrap_or(""))),
            ("traceparent", bytes(traceparent.unwrap_or(""))),
        ]
    }

    /// The headers of CloudEvents 1.0 in Kafka's binary mode; the value is the event's data as it is.
    pub fn cloud_event_headers(&self) -> Vec<(&'static str, Vec<u8>)> {
        let schema = format!("urn:wallex:event:{}:{}", self.event_type, self.schema_version);
        vec![
            ("ce_specversion", b"1.0".to_vec()),
            ("ce_id", self.event_id.to_string().into_bytes()),
            ("ce_source", format!("/wallex/{}", percent_encoded(self.tenant_id)).into_bytes()),
            ("ce_type", self.event_type.as_bytes().to_vec()),
            ("ce_time", self.timestamp.as_bytes().to_vec()),
            ("ce_subject", self.aggregate_id.as_bytes().to_vec()),
            ("ce_dataschema", schema.into_bytes()),
            // The partitioning extension: the record's key, which it must not lack once it is set.
            ("ce_partitionkey", self.aggregate_id.as_bytes().to_vec()),
            ("content-type", b"application/json".to_vec()),
        ]
    }
}

/// A text as it may stand in any part of a URI.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// RFC 3339 in UTC with milliseconds and `Z`, as every time that leaves the service.
pub fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// How far back a record's own time may lie. The broker counts a topic's retention from it, and may
/// refuse what is too old.
const BACK_MAX: TimeDelta = TimeDelta::hours(1);

/// The time that a record is given when it is sent: the event's. One that waited for longer than
/// an hour is dated an hour back instead, which keeps the order of times, and one that is sent `again`
/// is dated now: else the broker's next check would remove what has just been asked for. The event's
/// time itself is in the envelope.
pub fn record_time(event: DateTime<Utc>, again: bool, now: DateTime<Utc>) -> DateTime<Utc> {
    event.max(if again { now } else { now - BACK_MAX })
}

/// The partition of a key among `partitions`, as Kafka's default partitioner computes it.
pub fn partition_of(key: impl AsRef<[u8]>, partitions: i32) -> i32 {
    let positive = murmur2(key.as_ref()) & 0x7fff_ffff;
    i32::try_from(positive).unwrap_or(0) % partitions.max(1)
}

/// Murmur2, 32 bits, with the seed of Kafka's Java client.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut h = SEED ^ length;
    let (blocks, tail) = data.as_chunks::<4>();
    for block in blocks {
        let mut k = u32::from_le_bytes(*block).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in (0_u32..).zip(tail) {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_never_dated_so_far_back_that_retention_takes_it_at_once() {
        let now = DateTime::from_timestamp_millis(1_800_000_000_000).unwrap();
        let ago = |minutes| now - TimeDelta::minutes(minutes);
        assert_eq!(record_time(ago(0), false, now), now);
        assert_eq!(record_time(ago(59), false, now), ago(59), "an outage");
        assert_eq!(record_time(ago(61), false, now), ago(60));
        assert_eq!(record_time(ago(43_200), false, now), ago(60), "never behind a later event");
        assert_eq!(record_time(ago(43_200), true, now), now);
        assert_eq!(record_time(ago(1), true, now), now);
        assert_eq!(record_time(ago(-1), true, now), ago(-1), "the database's clock is ahead");
    }

    #[test]
    fn keys_hash_as_in_the_java_client() {
        assert_eq!(murmur2(b"w-000001").cast_signed(), 667_843_508);
        assert_eq!(murmur2(b"").cast_signed(), 275_646_681);
        assert_eq!(murmur2(b"21").cast_signed(), -973_932_308);
        assert_eq!(partition_of("w-000001", 10), 8);
        assert_eq!(partition_of("w-000001", 20), 8);
    }
}
