//! The AsyncAPI 3.0 document: the topics by their names here, what is in them, who writes and reads.

use serde_json::{Map, Value, json};

use super::channels::{Channel, Description, Operation};
use super::{Schema, all};

/// Version of the Kafka bindings.
const BINDING: &str = "0.5.0";

/// The topics as they are to be here.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Those that the document shows, in its order.
    pub by_channel: Vec<(Channel, ChannelTopic)>,
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

impl Topics {
    pub fn of(&self, channel: Channel) -> Option<&ChannelTopic> {
        self.by_channel.iter().find(|(of, _)| *of == channel).map(|(_, topic)| topic)
    }
}

/// The document, for these topics.
pub fn document(topics: &Topics) -> Value {
    let schemas = all();
    let channels = map(&topics.by_channel, |(channel, topic)| {
        (channel.describe().id, show(*channel, topic, &schemas))
    });
    let operations = map(&topics.by_channel, |(channel, _)| {
        (channel.describe().operation.name, operation(*channel, topics, &schemas))
    });
    let mut messages = map(&schemas, |schema| (schema.name, message(schema)));
    messages.insert(DEAD_LETTER.to_owned(), dead_letter());
    let mut parts = map(&schemas, |schema| (schema.name, part(schema)));
    parts.extend(map(&topics.by_channel, |(channel, _)| {
        let (name, headers) = channel.describe().headers;
        (name, headers())
    }));
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

fn show(channel: Channel, topic: &ChannelTopic, schemas: &[Schema]) -> Value {
    let messages = map(of_channel(channel, schemas), |name| {
        (name, json!({"$ref": format!("#/components/messages/{name}")}))
    });
    json!({
        "address": topic.name,
        "description": channel.describe().about,
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
    let Description { id, operation: Operation { action, about, .. }, .. } = channel.describe();
    let messages: Vec<Value> = of_channel(channel, schemas)
        .into_iter()
        .map(|name| json!({"$ref": format!("#/channels/{id}/messages/{name}")}))
        .collect();
    let mut operation = json!({
        "action": action,
        "summary": about,
        "channel": {"$ref": format!("#/channels/{id}")},
        "messages": messages,
    });
    if channel == Channel::Commands
        && let Some(fields) = operation.as_object_mut()
    {
        let group = json!({"type": "string", "enum": [topics.commands_group]});
        let bindings = json!({"kafka": {"groupId": group, "bindingVersion": BINDING}});
        fields.insert("bindings".to_owned(), bindings);
        let results = Channel::Results.describe().id;
        let reply = json!({"channel": {"$ref": format!("#/channels/{results}")}});
        fields.insert("reply".to_owned(), reply);
    }
    operation
}

fn message(schema: &Schema) -> Value {
    let Description { key, headers: (headers, _), .. } = schema.channel.describe();
    json!({
        "name": schema.name,
        "headers": {"$ref": format!("#/components/schemas/{headers}")},
        "payload": {"$ref": format!("#/components/schemas/{}", schema.name)},
        "bindings": {"kafka": {
            "key": {"type": "string", "description": key},
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
                "description": Channel::DeadLetters.describe().key,
            },
            "bindingVersion": BINDING,
        }},
    })
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
