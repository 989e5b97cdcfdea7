//! Records that are no commands, and commands that could not be decided, for the operators' desk: the
//! same table that holds what is no event. They are written with the move of the place, so that each
//! that is behind it is there, once, whichever instance was killed or came second.

use std::collections::BTreeMap;

use super::Shared;
use super::batch::{Fate, Handled};
use super::record::ADDED_HEADERS;
use crate::envelope::{DEAD_LETTER_ID, REPLAY_COUNT};
use crate::kafka::Fetched;
use crate::status::COMMANDS;
use crate::store::checkpoints::Subscription;
use crate::store::dead_letters::letter::{self, Original};
use crate::store::dead_letters::{self, DeadLetter, Source};
use crate::store::{self, Connection};

const SOURCE: Source = Source::Commands;

/// By the topic that each was first read from.
pub(super) type Letters = BTreeMap<String, Vec<DeadLetter>>;

/// Those of a chunk that go no further.
pub(super) fn letters(
    shared: &Shared,
    stage: usize,
    partition: i32,
    handled: &[Handled<'_>],
) -> Letters {
    let topic = shared.stages.get(stage).map_or("", |stage| stage.topic.name.as_str());
    let mut letters = Letters::new();
    for one in handled {
        let (class, message) = match &one.fate {
            Fate::Invalid(unread) => (unread.class, &unread.problem.detail),
            Fate::Undecided { problem, .. } if one.is_set_aside => {
                (problem.code.as_str(), &problem.detail)
            }
            Fate::Answered(_) | Fate::Undecided { .. } => continue,
        };
        let (topic, original) = original(one.record, topic, stage, partition);
        let letter = DeadLetter::of(original, class, message.clone());
        letters.entry(topic).or_default().push(letter);
    }
    letters
}

/// The record as its sender wrote it, and where. A retry topic has a copy, which says where it was.
fn original(record: &Fetched, topic: &str, stage: usize, partition: i32) -> (String, Original) {
    let mut headers = record.headers.clone();
    let text = |name: &str| std::str::from_utf8(record.headers.get(name)?).ok();
    let place = || {
        let partition = text("original-partition")?.parse().ok()?;
        Some((text("original-topic")?, partition, text("original-offset")?.parse().ok()?))
    };
    let first = place().filter(|_| stage > 0);
    if stage > 0 {
        headers.retain(|name, _| !ADDED_HEADERS.contains(&name.as_str()));
        // The service has added this one, too, unless the record is a replay.
        if !headers.contains_key(DEAD_LETTER_ID) {
            headers.remove(REPLAY_COUNT);
        }
    }
    let written_at = first.is_none().then(|| record.timestamp.timestamp_millis());
    let (topic, partition, offset) = first.unwrap_or((topic, partition, record.offset));
    let (key, value) = (record.key.clone(), record.value.clone());
    (topic.to_owned(), Original { partition, offset, key, value, headers, written_at })
}

/// Keeps them; inside the caller's transaction. Returns those that are news.
pub(super) async fn keep<'a>(
    connection: &mut Connection,
    letters: &'a Letters,
) -> store::Result<Vec<(&'a str, Vec<&'a DeadLetter>)>> {
    let mut news = Vec::new();
    for (topic, letters) in letters {
        let of = Subscription { projector: COMMANDS, topic: topic.clone() };
        let letters: Vec<&DeadLetter> = letters.iter().collect();
        let inserted = dead_letters::insert(connection, &of, SOURCE, &letters).await?;
        news.push((topic.as_str(), inserted.news));
    }
    Ok(news)
}

/// After their transaction.
pub(super) fn tell(news: &[(&str, Vec<&DeadLetter>)]) {
    for (topic, letters) in news {
        letter::tell(SOURCE, topic, letters);
    }
}
