//! What each topic is for, as the AsyncAPI document says it. What it is called is a setting.

use serde_json::{Value, json};

use super::{commands, events, names};

/// A topic by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    Events,
    DeadLetters,
    Commands,
    Results,
}

/// What the document says of a channel.
pub(super) struct Description {
    /// In the document, whatever the topic is called.
    pub id: &'static str,
    pub about: &'static str,
    /// Of its records.
    pub key: &'static str,
    /// What the service does with it.
    pub operation: Operation,
    /// Each kind of its records, by its name; none: they are whatever was there.
    pub records: fn() -> Vec<(&'static str, Value)>,
    /// The name and the schema of their headers.
    pub headers: (&'static str, fn() -> Value),
}

pub(super) struct Operation {
    pub name: &'static str,
    /// `send` or `receive`.
    pub action: &'static str,
    pub about: &'static str,
}

fn operation(name: &'static str, action: &'static str, about: &'static str) -> Operation {
    Operation { name, action, about }
}

impl Channel {
    pub(super) const ALL: [Self; 4] =
        [Self::Events, Self::DeadLetters, Self::Commands, Self::Results];

    pub(super) fn describe(self) -> Description {
        match self {
            Self::Events => Description {
                id: "walletEvents",
                about: "Every event of every wallet. A wallet's events are in one partition, in the order \
                        of aggregateVersion; a copy of an earlier one may come again",
                key: "The wallet's id, UTF-8",
                operation: operation("publishWalletEvents", "send", "Published from the outbox"),
                records: events::schemas,
                headers: ("WalletEventHeaders", events::headers),
            },
            Self::DeadLetters => Description {
                id: "walletEventsDeadLetters",
                about: "Records of the events topic that are no events, byte for byte",
                key: "The key of the original, null where it had none",
                operation: operation(
                    "setDeadLettersAside",
                    "send",
                    "What the projectors cannot take for an event",
                ),
                records: Vec::new,
                headers: ("DeadLetterHeaders", dead_letter_headers),
            },
            Self::Commands => Description {
                id: "walletCommands",
                about: "Commands from other services; one effect for each commandId",
                key: "The wallet's id, UTF-8",
                operation: operation("receiveWalletCommands", "receive", "Carried out"),
                records: || vec![commands::command()],
                headers: ("WalletCommandHeaders", command_headers),
            },
            Self::Results => Description {
                id: "walletCommandResults",
                about: "What became of each command, a refusal included",
                key: "The commandId",
                operation: operation("answerWalletCommands", "send", "Answered"),
                records: || vec![commands::result()],
                headers: ("WalletCommandResultHeaders", result_headers),
            },
        }
    }
}

fn header(about: &str) -> Value {
    json!({"type": "string", "description": about})
}

/// All may be left out.
fn command_headers() -> Value {
    let properties = json!({
        "correlation-id": header("Travels with the events; left out, it is the commandId"),
        "traceparent": header("W3C Trace Context; travels with the events"),
    });
    json!({"type": "object", "properties": properties})
}

fn result_headers() -> Value {
    let properties = json!({
        "correlation-id": header("That of the command, else the commandId"),
        "traceparent": header("That of the command; empty where it had none"),
    });
    let left_out = "Where the topic would not take the whole result: how many bytes it had";
    with_left_out(properties, left_out)
}

/// Beside the headers that the record had.
fn dead_letter_headers() -> Value {
    let properties = json!({
        "original-topic": header("Where it was first met"),
        "original-partition": header("Its partition there"),
        "original-offset": header("Its offset there"),
        "failed-at": header("When it failed last, RFC 3339"),
        "error-class": header("Why, in a word"),
        "error-message": header("Why"),
        "attempts": header("How often it has failed"),
        "replay-count": header("How often it has been replayed"),
        "dead-letter-id": header("Its id for `wallex dlq show`"),
    });
    let left_out = "Where the topic would not take it whole: how many bytes its value had";
    with_left_out(properties, left_out)
}

/// All of the headers are always there but for the one about what was left out.
fn with_left_out(mut properties: Value, about: &str) -> Value {
    let required = json!(names(&properties));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("value-left-out".to_owned(), header(about));
    }
    json!({"type": "object", "required": required, "properties": properties})
}
