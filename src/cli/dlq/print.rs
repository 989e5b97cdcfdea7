//! Dead letters and parked wallets for people.

use crate::answer::{Bytes, DeadLetterStoryView, DeadLettersView};

/// Characters of a cause in a list; `show` has all of them.
const CAUSE_CHARS: usize = 60;

/// Two tables, or that there is nothing.
pub(super) fn list(view: &DeadLettersView) {
    if view.dead_letters.is_empty() && view.parked_wallets.is_empty() {
        println!("no dead letters, no parked wallets");
        return;
    }
    if !view.dead_letters.is_empty() {
        let mut rows = vec![
            [
                "id",
                "state",
                "source",
                "partition",
                "offset",
                "key",
                "class",
                "tries",
                "replays",
                "message",
            ]
            .map(str::to_owned),
        ];
        rows.extend(view.dead_letters.iter().map(|letter| {
            [
                letter.id.to_string(),
                letter.state.clone(),
                letter.source.clone(),
                letter.partition.to_string(),
                letter.offset.to_string(),
                letter.key.as_ref().map_or_else(|| "-".to_owned(), text),
                letter.error_class.clone(),
                letter.attempts.to_string(),
                letter.replay_count.to_string(),
                short(&letter.error_message),
            ]
        }));
        table(&rows);
    }
    if !view.parked_wallets.is_empty() {
        if !view.dead_letters.is_empty() {
            println!();
        }
        let mut rows = vec![
            ["parked wallet", "projector", "state", "version", "waiting", "tries", "next", "cause"]
                .map(str::to_owned),
        ];
        rows.extend(view.parked_wallets.iter().map(|wallet| {
            [
                wallet.wallet_id.clone(),
                wallet.projector.clone(),
                wallet.state.clone(),
                wallet.version.to_string(),
                wallet.events.to_string(),
                wallet.attempts.to_string(),
                wallet.next_retry_at.clone().unwrap_or_else(|| "-".to_owned()),
                short(&wallet.cause),
            ]
        }));
        table(&rows);
    }
}

/// How many of what.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// One dead letter, a fact a line.
pub(super) fn story(story: &DeadLetterStoryView) {
    let letter = &story.letter;
    let absent = || "-".to_owned();
    let time = |at: &Option<String>| at.clone().unwrap_or_else(absent);
    let bytes = |bytes: &Option<Bytes>| bytes.as_ref().map_or_else(|| "(none)".to_owned(), text);
    for (name, value) in [
        ("id", letter.id.to_string()),
        ("state", letter.state.clone()),
        ("source", letter.source.clone()),
        (
            "place",
            format!("{}, partition {}, offset {}", letter.topic, letter.partition, letter.offset),
        ),
        ("met by", story.projectors.join(", ")),
        ("class", letter.error_class.clone()),
        ("message", visible(&letter.error_message)),
        ("attempts", letter.attempts.to_string()),
        ("replays", letter.replay_count.to_string()),
        ("first failed", letter.created_at.clone()),
        ("last failed", letter.failed_at.clone()),
        ("published", time(&story.published_at)),
        ("requested", time(&story.replay_requested_at)),
        ("replayed", time(&story.replayed_at)),
        ("refused", story.refusal.as_deref().map_or_else(absent, visible)),
        ("quarantined", time(&story.quarantined_at)),
        ("note", story.note.as_deref().map_or_else(absent, visible)),
        ("key", bytes(&letter.key)),
    ] {
        println!("{name:<13} {value}");
    }
    for (name, value) in &story.headers {
        println!("{:<13} {}: {}", "header", visible(name), text(value));
    }
    println!("{:<13} {}", "value", bytes(&story.value));
}

fn text(bytes: &Bytes) -> String {
    match bytes {
        Bytes::Text(text) => visible(text),
        Bytes::Binary { base64 } => format!("base64:{base64}"),
    }
}

/// Foreign text must not steer the terminal.
fn visible(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

fn short(text: &str) -> String {
    let text = visible(text);
    if text.chars().count() <= CAUSE_CHARS {
        return text;
    }
    text.chars().take(CAUSE_CHARS - 1).chain(['…']).collect()
}

fn table<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    for row in rows {
        let cells = row.iter().enumerate();
        let cells = cells.map(|(at, cell)| format!("{cell:<0$}", width(at).unwrap_or(0)));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
