//! The AsyncAPI 3.0 document: the topics by their names here, what is in them, who writes and reads.

use serde_json::{Map, Value, json};

use super::{Channel, Schema, all, events, names};

/// Version of the Kafka bindings.
const BINDING: &str = "0.5.0";

/// The topics as they are to be here.
#[derive(Debug, Clone)]
pub struct Topics {
    pub events: ChannelTopic,
    pub dead_letters: ChannelTopic,
    pub commands: ChannelTopic,
    pub results: ChannelTopic,
    /// The group that reads the commands.
    pub commands_group: String,
}

/// One of them. Its configurations are the broker's, by name.
#[derive(Debug, Clone)]
pub struct ChannelTopic {
    pub name: String,
    pub partitions: i32,
    pub replicas: i16,
    pub configs: Vec<(&'static str, String)>,
}

impl Channel {
    const ALL: [Self; 4] = [Self::Events, Self::DeadLetters, Self::Commands, Self::Results];

    /// In the document, whatever the topic is called.
    fn id(self) -> &'static str {
        match self {
            Self::Events => "walletEvents",
            Self::DeadLetters => "walletEventsDeadLetters",
            Self::Commands => "walletCommands",
            Self::Results => "walletCommandResults",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Events => {
                "Every event of every wallet. A wallet's events are in one partition, in the order \
                 of aggregateVersion; a copy of an earlier one may come again"
            }
            Self::DeadLetters => "Records of the events topic that are no events, byte for byte",
            Self::Commands => "Commands from other services; one effect for each commandId",
            Self::Results => "What became of each command, a refusal included",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Events | Self::Commands => "The wallet's id, UTF-8",
            Self::DeadLetters => "The key of the original, null where it had none",
            Self::Results => "The commandId",
        }
    }

    /// The name, direction and meaning of what the service does with it.
    fn operation(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Events => ("publishWalletEvents", "send", "Published from the outbox"),
            Self::DeadLetters => {
                ("setDeadLettersAside", "send", "What the projectors cannot take for an event")
            }
            Self::Commands => ("receiveWalletCommands", "receive", "Carried out"),
            Self::Results => ("answerWalletCommands", "send", "Answered"),
        }
    }
}

impl Topics {
    pub fn of(&self, channel: Channel) -> &ChannelTopic {
        match channel {
            Channel::Events => &self.events,
            Channel::DeadLetters => &self.dead_letters,
            Channel::Commands => &self.commands,
            Channel::Results => &self.results,
        }
    }
}

/// The document, for these topics.
pub fn document(topics: &Topics) -> Value {
    let schemas = all();
    let channels = map(Channel::ALL, |channel| (channel.id(), show(channel, topics, &schemas)));
    let operations =
        map(Channel::ALL, |channel| (channel.operation().0, operation(channel, topics, &schemas)));
    let mut messages = map(&schemas, |schema| (schema.name, message(schema)));
    messages.insert(DEAD_LETTER.to_owned(), dead_letter());
    let mut parts = map(&schemas, |schema| (schema.name, part(schema)));
    parts.insert("WalletEventHeaders".to_owned(), events::headers());
    parts.insert("DeadLetterHeaders".to_owned(), dead_letter_headers());
    parts.insert("WalletCommandHeaders".to_owned(), command_headers());
    parts.insert("WalletCommandResultHeaders".to_owned(), result_headers());
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Wallex",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What Wallex writes to Kafka and reads from it. The form of a record is \
                            a JSON Schema, draft-07; docs/EVENTS.md has the rules for consumers.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": parts},
    })
}

const DEAD_LETTER: &str = "DeadLetter";

fn map<T>(
    items: impl IntoIterator<Item = T>,
    pair: impl Fn(T) -> (&'static str, Value),
) -> Map<String, Value> {
    items.into_iter().map(pair).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The names of a channel's messages.
fn of_channel(channel: Channel, schemas: &[Schema]) -> Vec<&'static str> {
    if channel == Channel::DeadLetters {
        return vec![DEAD_LETTER];
    }
    let own = schemas.iter().filter(|schema| schema.channel == channel);
    own.map(|schema| schema.name).collect()
}

fn show(channel: Channel, topics: &Topics, schemas: &[Schema]) -> Value {
    let topic = topics.of(channel);
    let messages = map(of_channel(channel, schemas), |name| {
        (name, json!({"$ref": format!("#/components/messages/{name}")}))
    });
    json!({
        "address": topic.name,
        "description": channel.about(),
        "messages": messages,
        "bindings": {"kafka": {
            "topic": topic.name,
            "partitions": topic.partitions,
            "replicas": topic.replicas,
            "topicConfiguration": configuration(topic),
            "bindingVersion": BINDING,
        }},
    })
}

/// Those configurations that the binding knows.
fn configuration(topic: &ChannelTopic) -> Map<String, Value> {
    let known = topic.configs.iter().filter_map(|(name, value)| match *name {
        "cleanup.policy" => Some((*name, json!(value.split(',').collect::<Vec<_>>()))),
        "retention.ms" | "max.message.bytes" => Some((*name, json!(value.parse::<i64>().ok()?))),
        _ => None,
    });
    map(known, |pair| pair)
}

fn operation(channel: Channel, topics: &Topics, schemas: &[Schema]) -> Value {
    let (_, action, summary) = channel.operation();
    let id = channel.id();
    let messages: Vec<Value> = of_channel(channel, schemas)
        .into_iter()
        .map(|name| json!({"$ref": format!("#/channels/{id}/messages/{name}")}))
        .collect();
    let mut operation = json!({
        "action": action,
        "summary": summary,
        "channel": {"$ref": format!("#/channels/{id}")},
        "messages": messages,
    });
    if channel == Channel::Commands
        && let Some(fields) = operation.as_object_mut()
    {
        let group = json!({"type": "string", "enum": [topics.commands_group]});
        let bindings = json!({"kafka": {"groupId": group, "bindingVersion": BINDING}});
        fields.insert("bindings".to_owned(), bindings);
        let results = Channel::Results.id();
        let reply = json!({"channel": {"$ref": format!("#/channels/{results}")}});
        fields.insert("reply".to_owned(), reply);
    }
    operation
}

fn message(schema: &Schema) -> Value {
    let headers = match schema.channel {
        Channel::Events => "WalletEventHeaders",
        Channel::DeadLetters => "DeadLetterHeaders",
        Channel::Commands => "WalletCommandHeaders",
        Channel::Results => "WalletCommandResultHeaders",
    };
    json!({
        "name": schema.name,
        "headers": {"$ref": format!("#/components/schemas/{headers}")},
        "payload": {"$ref": format!("#/components/schemas/{}", schema.name)},
        "bindings": {"kafka": {
            "key": {"type": "string", "description": schema.channel.key()},
            "bindingVersion": BINDING,
        }},
    })
}

fn dead_letter() -> Value {
    json!({
        "name": DEAD_LETTER,
        "contentType": "application/octet-stream",
        "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
        "payload": {"description": "The original value, also null"},
        "bindings": {"kafka": {
            "key": {
                "type": ["string", "null"],
                "description": Channel::DeadLetters.key(),
            },
            "bindingVersion": BINDING,
        }},
    })
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

/// A schema as a part of another document: no document of its own.
fn part(schema: &Schema) -> Value {
    let mut part = schema.value.clone();
    if let Some(fields) = part.as_object_mut() {
        fields.remove("$schema");
        fields.remove("$id");
    }
    part
}
