//! A caller's JSON object, kept byte for byte but for white space between tokens.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Bytes that one metadata object may have.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Levels of nesting that Postgres and every JSON reader manage.
const DEPTH_MAX: usize = 32;

/// A JSON object of at most 16 KiB and 32 levels, without duplicate keys or NUL characters.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(Box<RawValue>);

/// Why a value is not taken as metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    #[error("must be a JSON object")]
    NotAnObject,
    #[error("must not exceed 16384 bytes")]
    TooLarge,
    #[error(
        "must be plain JSON: at most 32 levels, no duplicate key, no NUL character, no lone surrogate"
    )]
    NotPlain,
}

impl Metadata {
    /// Checks one JSON token from a request.
    pub fn parse(token: &str) -> Result<Self, MetadataError> {
        let token = token.trim_ascii();
        if !token.starts_with('{') {
            return Err(MetadataError::NotAnObject);
        }
        if token.len() > METADATA_BYTES_MAX {
            return Err(MetadataError::TooLarge);
        }
        let mut reader = serde_json::Deserializer::from_str(token);
        Plain { depth: 0 }.deserialize(&mut reader).map_err(|_| MetadataError::NotPlain)?;
        reader.end().map_err(|_| MetadataError::NotPlain)?;
        RawValue::from_string(minified(token)).map(Self).map_err(|_| MetadataError::NotPlain)
    }

    /// Metadata read back from where only valid metadata is written.
    pub fn stored(raw: Box<RawValue>) -> Self {
        Self(raw)
    }

    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    pub fn raw(&self) -> &RawValue {
        &self.0
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
impl Eq for Metadata {}

impl schemars::JsonSchema for Metadata {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Metadata".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object"})
    }
    fn inline_schema() -> bool {
        true
    }
}

/// Walks a JSON value and accepts it only if every reader downstream can take it.
struct Plain {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > DEPTH_MAX {
            return Err(de::Error::custom("too deep"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') { Err(E::custom("NUL")) } else { Ok(()) }
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self { depth: self.depth + 1 })?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = std::collections::HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key.contains('\0') || !keys.insert(key) {
                return Err(de::Error::custom("key"));
            }
            entries.next_value_seed(Self { depth: self.depth + 1 })?;
        }
        Ok(())
    }
}

/// The same tokens without white space between them. The text is known to be valid JSON.
fn minified(token: &str) -> String {
    let mut text = String::with_capacity(token.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in token.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_strings_survive_to_the_byte() {
        let token = r#"{ "n": 12345678901234567890.10, "s": "a \" b\\", "l": [1, 2] }"#;
        let kept = r#"{"n":12345678901234567890.10,"s":"a \" b\\","l":[1,2]}"#;
        assert_eq!(Metadata::parse(token).unwrap().as_str(), kept);
    }

    #[test]
    fn what_postgres_or_a_reader_would_choke_on_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let refused = [
            r#"{"a":1,"a":2}"#,
            r#"{"a":"\u0000"}"#,
            r#"{"\u0000":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e999999}"#,
            "{",
            "{}x",
            deep.as_str(),
        ];
        for token in refused {
            let error = Metadata::parse(token).unwrap_err();
            assert!(
                matches!(error, MetadataError::NotPlain | MetadataError::TooLarge),
                "{error:?}"
            );
        }
        assert_eq!(Metadata::parse("[]").unwrap_err(), MetadataError::NotAnObject);
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(METADATA_BYTES_MAX));
        assert_eq!(Metadata::parse(&large).unwrap_err(), MetadataError::TooLarge);
    }
}
