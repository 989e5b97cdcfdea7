//! A record as a dead letter: its bytes, what tells it from others, and what it says of itself.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{DeadLetter, Replay, Source};
use crate::envelope::{DEAD_LETTER_ID, REPLAY_COUNT};

/// A header that says more was not written by this service.
const REPLAYS_MAX: i32 = 1_000_000;

/// A record and where it lies.
#[derive(Debug)]
pub struct Original {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, Vec<u8>>,
    /// In ms since 1970; none where it is not that of the record itself but of a copy.
    pub written_at: Option<i64>,
}

impl DeadLetter {
    pub fn of(original: Original, error_class: &'static str, error_message: String) -> Self {
        Self {
            partition: original.partition,
            offset: original.offset,
            record_hash: hash(&original),
            replay: replay(&original.headers),
            headers: headers_json(&original.headers),
            key: original.key,
            value: original.value,
            error_class,
            error_message,
        }
    }
}

/// Tells operators of letters that are news: a line for each, and a count by its cause.
pub fn tell(source: Source, topic: &str, news: &[&DeadLetter]) {
    for letter in news {
        let (partition, offset) = (letter.partition, letter.offset);
        let (cause, message) = (letter.error_class, &letter.error_message);
        let source = source.as_str();
        metrics::counter!("dead_letters_total", "source" => source, "cause" => cause).increment(1);
        tracing::warn!(
            source,
            topic,
            partition,
            offset,
            cause,
            message,
            "dead letter: kept whole, see `wallex dlq`"
        );
    }
}

/// Which dead letter the record says it is a replay of. Anybody can say so: the store compares.
fn replay(headers: &BTreeMap<String, Vec<u8>>) -> Option<Replay> {
    let text = |name| std::str::from_utf8(headers.get(name)?).ok();
    let count = text(REPLAY_COUNT)?.parse().ok().filter(|n| (0..=REPLAYS_MAX).contains(n))?;
    Some(Replay { id: text(DEAD_LETTER_ID)?.parse().ok()?, count })
}

/// First 16 bytes of SHA-256 over all that a record is, but for its place.
fn hash(record: &Original) -> [u8; 16] {
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| {
        // Length first, so that parts cannot run into each other; none is not the same as empty.
        let length = bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        hash.update(length.to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    part(record.key.as_deref());
    part(record.value.as_deref());
    for (name, value) in &record.headers {
        part(Some(name.as_bytes()));
        part(Some(value));
    }
    if let Some(at) = record.written_at {
        part(Some(&at.to_be_bytes()));
    }
    hash.finalize().first_chunk::<16>().copied().unwrap_or_default()
}

/// Names to values; a value that is no text stands in base64.
fn headers_json(headers: &BTreeMap<String, Vec<u8>>) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let value = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    };
    let object: Map<String, Value> =
        headers.iter().map(|(name, bytes)| (name.clone(), value(bytes))).collect();
    Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(offset: i64, value: &str, written_at: i64) -> Original {
        Original {
            partition: 2,
            offset,
            key: Some(b"w".to_vec()),
            value: Some(value.as_bytes().to_vec()),
            headers: BTreeMap::from([("bin".to_owned(), vec![0xff])]),
            written_at: Some(written_at),
        }
    }

    #[test]
    fn a_dead_letter_knows_its_replays_and_another_topic_s_record_at_its_offset() {
        let letter = |original| DeadLetter::of(original, "undecodable", String::new());
        let first = letter(original(6, "{", 0));
        assert_eq!(first.replay, None);
        assert_eq!(first.headers, r#"{"bin":{"base64":"/w=="}}"#);
        assert_ne!(first.record_hash, letter(original(6, "{", 1)).record_hash);
        assert_ne!(first.record_hash, letter(original(6, "", 0)).record_hash);
        let copy = |at| letter(Original { written_at: None, ..original(6, "{", at) }).record_hash;
        assert_eq!(copy(1), copy(2));
        let again = |count: &str| {
            let mut again = original(9, "{", 0);
            again.headers.insert(DEAD_LETTER_ID.to_owned(), b"7".to_vec());
            again.headers.insert(REPLAY_COUNT.to_owned(), count.as_bytes().to_vec());
            letter(again).replay
        };
        assert_eq!(again("x"), None);
        assert_eq!(again("2"), Some(Replay { id: 7, count: 2 }));
        assert_eq!(again("2147483647"), None);
    }
}
