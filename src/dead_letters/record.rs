//! A dead letter as a record: the original bytes, and in the headers what is known of them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::envelope::{DEAD_LETTER_ID, REPLAY_COUNT, VALUE_LEFT_OUT, record_time, timestamp};
use crate::kafka::Copied;
use crate::store::dead_letters::delivery::Due;

/// For the topic of the dead letters. Its time is that of the failure, where that is not long ago.
pub(super) fn outward(due: &Due) -> Copied {
    let mut headers = original(due.headers.as_deref());
    let facts = [
        ("original-topic", due.topic.clone()),
        ("original-partition", due.partition.to_string()),
        ("original-offset", due.offset.to_string()),
        ("failed-at", timestamp(due.failed_at)),
        ("error-class", due.error_class.clone()),
        ("error-message", due.error_message.clone()),
        ("attempts", due.attempts.to_string()),
        (REPLAY_COUNT, due.replay_count.to_string()),
        (DEAD_LETTER_ID, due.id.to_string()),
    ];
    headers.extend(facts.map(|(name, text)| (name.to_owned(), text.into_bytes())));
    let (key, value) = (due.key.clone(), due.value.clone());
    let timestamp = record_time(due.failed_at, false, due.now);
    Copied { key, value, headers, timestamp }
}

/// The same for a topic that does not take it: without its value, then with what we know of it alone.
/// Its bytes are in Postgres. None: there is nothing more to leave out.
pub(super) fn lighter(due: &Due, letter: &Copied) -> Option<Copied> {
    let mut lighter = letter.clone();
    if letter.headers.contains_key(VALUE_LEFT_OUT) {
        let foreign = original(due.headers.as_deref());
        lighter.key = None;
        let facts = outward(&Due { headers: None, ..due.clone() }).headers;
        lighter.headers.retain(|name, _| {
            name == VALUE_LEFT_OUT || facts.contains_key(name) || !foreign.contains_key(name)
        });
        return (lighter != *letter).then_some(lighter);
    }
    let bytes = due.value.as_ref().map_or(0, Vec::len);
    lighter.headers.insert(VALUE_LEFT_OUT.to_owned(), bytes.to_string().into_bytes());
    lighter.value = None;
    Some(lighter)
}

/// For the topic that it came from. Its time is now: retention must not take it away at once.
pub(super) fn replay(due: &Due) -> Copied {
    let mut headers = original(due.headers.as_deref());
    headers.insert(REPLAY_COUNT.to_owned(), due.next_replay().to_string().into_bytes());
    headers.insert(DEAD_LETTER_ID.to_owned(), due.id.to_string().into_bytes());
    let (key, value) = (due.key.clone(), due.value.clone());
    Copied { key, value, headers, timestamp: due.now }
}

/// Headers as they were; `projector::chunk` has written them.
fn original(json: Option<&str>) -> BTreeMap<String, Vec<u8>> {
    let object: serde_json::Map<String, Value> =
        json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let bytes = |value: Value| match value {
        Value::String(text) => text.into_bytes(),
        value => {
            let base64 = value.get("base64").and_then(Value::as_str).unwrap_or_default();
            STANDARD.decode(base64).unwrap_or_default()
        }
    };
    object.into_iter().map(|(name, value)| (name, bytes(value))).collect()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn the_bytes_stay_and_the_headers_tell_the_story() {
        let due = Due {
            id: 7,
            topic: "events".to_owned(),
            partition: 3,
            offset: 41,
            key: None,
            value: Some(vec![0xff, 0]),
            headers: Some(r#"{"a":"x","bin":{"base64":"/w=="},"replay-count":"0"}"#.to_owned()),
            error_class: "undecodable".to_owned(),
            error_message: "what".to_owned(),
            attempts: 2,
            replay_count: 1,
            failed_at: DateTime::UNIX_EPOCH,
            published_at: None,
            replay_requested_at: None,
            now: DateTime::UNIX_EPOCH,
        };
        let record = outward(&due);
        assert_eq!((&record.key, record.value.as_deref()), (&None, Some([0xff, 0].as_slice())));
        let header = |record: &Copied, name: &str| {
            String::from_utf8_lossy(record.headers.get(name).unwrap()).into_owned()
        };
        assert_eq!(record.headers["bin"], [0xff]);
        for (name, text) in [
            ("a", "x"),
            ("original-topic", "events"),
            ("original-partition", "3"),
            ("original-offset", "41"),
            ("failed-at", "1970-01-01T00:00:00.000Z"),
            ("error-class", "undecodable"),
            ("error-message", "what"),
            ("attempts", "2"),
            ("replay-count", "1"),
        ] {
            assert_eq!(header(&record, name), text, "{name}");
        }
        let again = replay(&due);
        assert_eq!(
            (header(&again, "replay-count"), header(&again, "dead-letter-id")),
            ("2".into(), "7".into())
        );
        assert_eq!((again.headers.len(), again.headers.contains_key("attempts")), (4, false));

        let light = lighter(&due, &record).unwrap();
        assert_eq!((&light.key, &light.value), (&record.key, &None));
        assert_eq!(header(&light, "value-left-out"), "2");
        assert_eq!(light.headers.len(), record.headers.len() + 1);
        let lightest = lighter(&due, &light).unwrap();
        assert_eq!(lightest.headers.len(), 10, "{lightest:?}");
        assert_eq!(header(&lightest, "original-offset"), "41");
        assert!(lighter(&due, &lightest).is_none());
    }
}
