//! Whole answers compared: ids and times, which differ from run to run, under names.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

/// Gives each id a name by its first appearance, so that equal ids stay equal across answers.
#[derive(Debug, Default)]
pub struct Golden {
    names: HashMap<String, String>,
}

impl Golden {
    /// The same JSON with ids as `#1`, `#2`, … and times as `<time>`.
    pub fn of(&mut self, mut value: Value) -> Value {
        self.rename(&mut value);
        value
    }

    fn rename(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(name) = self.name(text) {
                    *text = name;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.rename(item)),
            // In the order of their names: what is numbered first does not depend on a hash.
            Value::Object(fields) => fields.values_mut().for_each(|field| self.rename(field)),
            _ => {}
        }
    }

    fn name(&mut self, text: &str) -> Option<String> {
        if is_time(text) {
            return Some("<time>".to_owned());
        }
        Uuid::parse_str(text).ok().filter(|id| id.to_string() == text)?;
        let next = format!("#{}", self.names.len() + 1);
        Some(self.names.entry(text.to_owned()).or_insert(next).clone())
    }
}

/// `2026-01-31T12:00:00.123Z` and nothing else.
fn is_time(text: &str) -> bool {
    text.len() == 24
        && text.as_bytes()[19] == b'.'
        && text.ends_with('Z')
        && chrono::DateTime::parse_from_rfc3339(text).is_ok()
}
