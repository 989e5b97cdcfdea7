//! The JSON Schemas of what travels over Kafka, pure: what `schemas/` has committed, what a registry
//! is given and what `/asyncapi.json` shows.
//!
//! Draft-07: it is what registries can compare. Apicurio Registry 2 takes newer drafts too, but then
//! cannot say whether two versions are compatible.

mod asyncapi;
mod channels;
mod commands;
mod events;

use serde_json::Value;

pub use asyncapi::{ChannelTopic, Topics, document};
pub use channels::Channel;

const DRAFT: &str = "http://json-schema.org/draft-07/schema#";
const UUID: &str = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";

/// A kind of record and its form.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// Of the kind: `WalletCredited`. With the topic's name before it, it is the registry's subject.
    pub name: &'static str,
    pub channel: Channel,
    pub value: Value,
}

/// Every kind of record that has a form.
pub fn all() -> Vec<Schema> {
    let of_channel = |channel: Channel| {
        let records = (channel.describe().records)().into_iter();
        records.map(move |(name, value)| Schema { name, channel, value })
    };
    Channel::ALL.into_iter().flat_map(of_channel).collect()
}

/// `urn:wallex:KIND:NAME:1`, the root of every schema.
fn root(kind: &str, name: &str, mut schema: Value) -> Value {
    spell_out_ids(&mut schema);
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("$schema".to_owned(), DRAFT.into());
        fields.insert("$id".to_owned(), format!("urn:wallex:{kind}:{name}:1").into());
        fields.insert("title".to_owned(), name.into());
    }
    schema
}

/// This draft does not know the format `uuid`: no validator would check it.
fn spell_out_ids(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("format").is_some_and(|format| format == "uuid") {
                fields.insert("pattern".to_owned(), UUID.into());
            }
            fields.values_mut().for_each(spell_out_ids);
        }
        Value::Array(items) => items.iter_mut().for_each(spell_out_ids),
        _ => {}
    }
}

/// The names of an object's fields.
fn names(object: &Value) -> Vec<&String> {
    object.as_object().into_iter().flat_map(|fields| fields.keys()).collect()
}
