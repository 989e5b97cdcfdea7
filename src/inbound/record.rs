//! What is written for a record: its result, the same record for a retry topic, a dead letter.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

use super::batch::{Fate, Handled};
use crate::envelope::{REPLAY_COUNT, VALUE_LEFT_OUT, timestamp};
use crate::kafka::Copied;

/// Headers that this service adds to a record that it moves on.
pub(super) const ADDED_HEADERS: [&str; 7] = [
    "original-topic",
    "original-partition",
    "original-offset",
    "failed-at",
    "error-class",
    "error-message",
    "attempts",
];
/// Of a message in a header.
const MESSAGE_CHARS_MAX: usize = 1000;

/// The topic and partition of a record, and the stage that read it: 0, or a retry's number.
pub(super) struct Origin<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub stage: usize,
}

/// The value of a record of `wallet-command-results`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CommandResult<'a> {
    command_id: &'a str,
    status: u16,
    body: &'a RawValue,
}

/// Makes the result for the command's sender; none while there is no result, or no known sender.
pub(super) fn result(handled: &Handled, now: DateTime<Utc>) -> Option<Copied> {
    let id = handled.id.as_deref()?;
    let told = |problem: &crate::answer::Problem| {
        let problem = problem.clone().with_request_id(id);
        (problem.status(), problem.to_json())
    };
    let (status, body) = match &handled.fate {
        Fate::Answered(decision) => (decision.status, decision.body.to_string()),
        Fate::Invalid(unread) => told(&unread.problem),
        Fate::Undecided { .. } if !handled.is_set_aside => return None,
        Fate::Undecided { partly: Some(decision), .. } => {
            (decision.status, decision.body.to_string())
        }
        Fate::Undecided { problem, partly: None } => told(problem),
    };
    let value = value_of(id, status, &body)?;
    let mut headers = BTreeMap::new();
    let context = &handled.context;
    for (name, text) in
        [("correlation-id", &context.correlation_id), ("traceparent", &context.traceparent)]
    {
        let text = text.as_deref().unwrap_or("");
        headers.insert(name.to_owned(), text.as_bytes().to_vec());
    }
    let key = Some(id.as_bytes().to_vec());
    Some(Copied { key, value: Some(value), headers, timestamp: now })
}

pub(super) fn value_of(id: &str, status: u16, body: &str) -> Option<Vec<u8>> {
    let body: &RawValue = serde_json::from_str(body).ok()?;
    serde_json::to_vec(&CommandResult { command_id: id, status, body }).ok()
}

/// The record as it was, with what is known of its failure in the headers. None: it has not failed.
pub(super) fn failed(handled: &Handled, origin: &Origin, now: DateTime<Utc>) -> Option<Copied> {
    let (class, message) = match &handled.fate {
        Fate::Answered(_) => return None,
        Fate::Invalid(unread) => (unread.class, &unread.problem.detail),
        Fate::Undecided { problem, .. } => (problem.code.as_str(), &problem.detail),
    };
    let record = handled.record;
    let mut headers = record.headers.clone();
    let place = [
        ("original-topic", origin.topic.to_owned()),
        ("original-partition", origin.partition.to_string()),
        ("original-offset", record.offset.to_string()),
    ];
    for (name, text) in place {
        // From a retry topic on it keeps the place where it was first read.
        if origin.stage == 0 || !headers.contains_key(name) {
            headers.insert(name.to_owned(), text.into_bytes());
        }
    }
    let replays = headers.get(REPLAY_COUNT).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
    let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
    let facts = [
        ("failed-at", timestamp(now)),
        ("error-class", class.to_owned()),
        ("error-message", message),
        ("attempts", (origin.stage + 1).to_string()),
        (REPLAY_COUNT, replays.unwrap_or(0_u32).to_string()),
    ];
    headers.extend(facts.map(|(name, text)| (name.to_owned(), text.into_bytes())));
    let (key, value) = (record.key.clone(), record.value.clone());
    Some(Copied { key, value, headers, timestamp: now })
}

/// The same dead letter for a topic that does not take it: first without its value, then without all
/// that is not ours. None: there is nothing more to leave out. Where it came from stands in it still.
pub(super) fn lighter_letter(letter: &Copied) -> Option<Copied> {
    let mut lighter = letter.clone();
    if letter.headers.contains_key(VALUE_LEFT_OUT) {
        let is_ours = |name: &str| {
            ADDED_HEADERS.contains(&name) || [REPLAY_COUNT, VALUE_LEFT_OUT].contains(&name)
        };
        lighter.key = None;
        lighter.headers.retain(|name, _| is_ours(name));
        return (lighter != *letter).then_some(lighter);
    }
    let bytes = letter.value.as_ref().map_or(0, Vec::len);
    lighter.headers.insert(VALUE_LEFT_OUT.to_owned(), bytes.to_string().into_bytes());
    lighter.value = None;
    Some(lighter)
}
