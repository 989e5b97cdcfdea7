//! A JSON object taken apart field by field: numbers keep their token, every wrong field is
//! reported at once, and what nobody asked for is refused.

use std::collections::HashSet;
use std::fmt;

use chrono::{DateTime, FixedOffset, Utc};
use rust_decimal::Decimal;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::answer::{FieldError, Problem, ProblemCode};
use crate::wallet::{
    Amount, AmountError, Currency, Details, Metadata, WalletId, is_addressable, is_visible,
    parse_decimal,
};

pub const DESCRIPTION_CHARS_MAX: usize = 1024;
pub const REFERENCE_CHARS_MAX: usize = 255;
pub const KEY_BYTES_MAX: usize = 255;
const NEW_ID_RULE: &str = "must be 1 to 255 visible characters, and not . or ..";
/// Unknown fields that a problem names: an answer must not be larger than what it answers.
const UNKNOWN_NAMED_MAX: usize = 10;

/// The fields that are left, and what was wrong with those already taken.
#[derive(Debug)]
pub struct Fields {
    /// Where the object stands in the request: a JSON Pointer, empty for the whole body.
    place: String,
    left: Vec<(String, Box<RawValue>)>,
    errors: Vec<(ProblemCode, FieldError)>,
}

impl Fields {
    /// The object that is the whole of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let malformed = |detail: &str| Problem::new(ProblemCode::MalformedJson, detail);
        let text = std::str::from_utf8(bytes)
            .map_err(|_| malformed("the body is not UTF-8"))?
            .trim_ascii();
        if text.is_empty() {
            return Err(malformed("the body is empty"));
        }
        Self::at(text, String::new())
    }

    /// The object `text`, which stands at `place` in the request.
    pub(super) fn at(text: &str, place: String) -> Result<Self, Problem> {
        let malformed = |detail: String| Problem::new(ProblemCode::MalformedJson, detail);
        if !text.starts_with('{') {
            // `RawValue` takes any one JSON value: what is valid but no object gets its own code.
            let valid = serde_json::from_str::<&RawValue>(text).is_ok();
            let detail = match place.is_empty() {
                true => "the body must be one JSON object",
                false => "must be a JSON object",
            };
            return Err(if valid {
                Problem::at(ProblemCode::InvalidValue, place, detail)
            } else {
                malformed(detail.to_owned())
            });
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let left = reader.deserialize_map(Object).and_then(|left| reader.end().map(|()| left));
        let left = left.map_err(|error| malformed(error.to_string()))?;
        Ok(Self { place, left, errors: Vec::new() })
    }

    /// Every field taken, or the problem with all that is wrong. Call last.
    pub fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.left).into_iter().take(UNKNOWN_NAMED_MAX) {
            self.fail(&name, ProblemCode::UnknownField, "is not a field of this route");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(self.refuse()) }
    }

    /// The problem with what is wrong so far.
    pub(super) fn refuse(self) -> Problem {
        let code = self.errors.first().map_or(ProblemCode::InvalidValue, |(code, _)| *code);
        let mut problem = Problem::new(code, "");
        problem.errors = self.errors.into_iter().map(|(_, error)| error).collect();
        let all = problem.errors.iter().map(|e| format!("{}: {}", e.pointer, e.detail));
        problem.detail = all.collect::<Vec<_>>().join("; ");
        problem
    }

    /// Where the object stands in the request: a JSON Pointer, empty for the whole body.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// A required positive amount. What is missing or wrong stands as 1 until `finish` refuses.
    pub fn amount(&mut self, name: &str) -> Amount {
        self.optional_amount(name, false).unwrap_or(Amount::ONE)
    }

    /// An amount that may be left out; with `zero_is_none`, 0 is as good as leaving it out.
    pub fn optional_amount(&mut self, name: &str, zero_is_none: bool) -> Option<Amount> {
        let value = match self.decimal(name) {
            None if !zero_is_none => {
                self.missing(name);
                None
            }
            value => value,
        }?;
        let amount = match value {
            Ok(value) if zero_is_none && value.is_zero() => return None,
            Ok(value) => Amount::from_decimal(value),
            Err(error) => Err(error),
        };
        self.or_amount_error(name, amount)
    }

    /// A limit of at least 0; left out, it is 0.
    pub fn limit(&mut self, name: &str) -> Decimal {
        let value = self.decimal(name).unwrap_or(Ok(Decimal::ZERO));
        self.or_amount_error(name, value).unwrap_or_default()
    }

    /// The decimal in a JSON string or number, read from its token.
    fn decimal(&mut self, name: &str) -> Option<Result<Decimal, AmountError>> {
        let raw = self.take(name)?;
        let token = raw.get();
        if token.starts_with('"') {
            let text: Result<String, _> = serde_json::from_str(token);
            return Some(text.map_err(|_| AmountError::NotDecimal).and_then(|t| parse_decimal(&t)));
        }
        Some(parse_decimal(token))
    }

    fn or_amount_error<T>(&mut self, name: &str, value: Result<T, AmountError>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(error) => {
                let code = match error {
                    AmountError::TooFine => ProblemCode::AmountScale,
                    _ => ProblemCode::InvalidAmount,
                };
                self.fail(name, code, &error.to_string());
                None
            }
        }
    }

    /// The id of a wallet that should exist.
    pub fn wallet_id(&mut self, name: &str) -> Option<WalletId> {
        let text = self.string(name)?;
        let id = WalletId::parse(&text);
        if id.is_none() {
            self.fail(name, ProblemCode::InvalidId, "must be 1 to 255 visible characters");
        }
        id
    }

    /// The id of a wallet to be opened, or of an owner.
    pub fn new_id(&mut self, name: &str) -> Option<WalletId> {
        let text = self.string(name)?;
        let id = WalletId::parse_new(&text);
        if id.is_none() {
            self.fail(name, ProblemCode::InvalidId, NEW_ID_RULE);
        }
        id
    }

    /// A wallet's id that must be there.
    pub fn required_wallet_id(&mut self, name: &str) -> WalletId {
        self.required_id(name, Self::wallet_id)
    }

    pub fn owner_id(&mut self, name: &str) -> String {
        self.required_id(name, Self::new_id).as_str().to_owned()
    }

    fn required_id(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self, &str) -> Option<WalletId>,
    ) -> WalletId {
        let before = self.errors.len();
        let id = read(self, name);
        if id.is_none() && self.errors.len() == before {
            self.missing(name);
        }
        id.unwrap_or_else(|| WalletId::stored(""))
    }

    pub fn currency(&mut self, name: &str) -> Currency {
        let Some(code) = self.string(name) else { return Currency::USD };
        Currency::parse(&code).unwrap_or_else(|| {
            self.fail(name, ProblemCode::InvalidCurrency, "must be an ISO 4217 code such as USD");
            Currency::USD
        })
    }

    pub fn metadata(&mut self, name: &str) -> Option<Metadata> {
        let raw = self.take(name)?;
        match Metadata::parse(raw.get()) {
            Ok(metadata) => Some(metadata),
            Err(error) => {
                self.fail(name, ProblemCode::InvalidValue, &error.to_string());
                None
            }
        }
    }

    /// `description`, `reference` and `metadata`.
    pub fn details(&mut self) -> Details {
        let description = self.string("description");
        if description.as_ref().is_some_and(|d| d.chars().count() > DESCRIPTION_CHARS_MAX) {
            self.fail("description", ProblemCode::InvalidValue, "must not exceed 1024 characters");
        }
        let reference = self.string("reference");
        if reference.as_deref().is_some_and(|reference| !is_reference(reference)) {
            let rule = "must be 1 to 255 visible characters or inner spaces, and not . or ..";
            self.fail("reference", ProblemCode::InvalidValue, rule);
        }
        Details { description, reference, metadata: self.metadata("metadata") }
    }

    /// An idempotency key as a string: 1–255 visible ASCII characters.
    pub fn key(&mut self, name: &str) -> Option<String> {
        let key = self.string(name)?;
        if !is_key(&key) {
            let rule = "must be 1 to 255 visible ASCII characters";
            self.fail(name, ProblemCode::InvalidIdempotencyKey, rule);
        }
        Some(key)
    }

    /// An idempotency key that must be there; none where it is missing or cannot be used.
    pub fn required_key(&mut self, name: &str) -> Option<String> {
        let before = self.errors.len();
        let key = self.key(name);
        if key.is_none() && self.errors.len() == before {
            self.missing(name);
        }
        key.filter(|key| is_key(key))
    }

    /// One of a few words that must be there; each stands for a value.
    pub fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let before = self.errors.len();
        let Some(text) = self.string(name) else {
            if self.errors.len() == before {
                self.missing(name);
            }
            return None;
        };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let rule = format!("must be one of {}", words.join(", "));
            self.fail(name, ProblemCode::InvalidValue, &rule);
        }
        found
    }

    /// An array of 1 to `max` values that must be there; each value as it was sent.
    pub fn list(&mut self, name: &str, max: usize) -> Vec<Box<RawValue>> {
        let Some(raw) = self.take(name) else {
            self.missing(name);
            return Vec::new();
        };
        let list: Vec<Box<RawValue>> = serde_json::from_str(raw.get()).unwrap_or_default();
        if list.is_empty() || list.len() > max {
            let rule = format!("must be an array of 1 to {max} values");
            self.fail(name, ProblemCode::InvalidValue, &rule);
        }
        list
    }

    /// A text that must be there.
    pub fn text(&mut self, name: &str) -> String {
        let before = self.errors.len();
        let text = self.string(name).filter(|text| !text.trim_ascii().is_empty());
        if text.is_none() && self.errors.len() == before {
            self.missing(name);
        }
        text.unwrap_or_default()
    }

    pub fn optional_text(&mut self, name: &str) -> Option<String> {
        self.string(name)
    }

    /// One of some words that may be left out.
    pub fn optional_word(&mut self, name: &str, words: &[&'static str]) -> Option<&'static str> {
        let text = self.string(name)?;
        let found = words.iter().copied().find(|word| *word == text);
        if found.is_none() {
            let rule = format!("must be one of {}", words.join(", "));
            self.fail(name, ProblemCode::InvalidValue, &rule);
        }
        found
    }

    /// True or false; left out, it is false.
    pub fn flag(&mut self, name: &str) -> bool {
        self.value(name, "must be true or false").unwrap_or(false)
    }

    /// Whole numbers that may be left out.
    pub fn ids(&mut self, name: &str) -> Option<Vec<i64>> {
        self.value(name, "must be an array of whole numbers")
    }

    /// A time with its offset that may be left out.
    pub fn time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let rule = "must be a time such as 2026-01-31T12:00:00Z";
        self.value::<DateTime<FixedOffset>>(name, rule).map(|time| time.to_utc())
    }

    fn value<T: de::DeserializeOwned>(&mut self, name: &str, rule: &str) -> Option<T> {
        let raw = self.take(name)?;
        let value = serde_json::from_str(raw.get()).ok();
        if value.is_none() {
            self.fail(name, ProblemCode::InvalidValue, rule);
        }
        value
    }

    fn string(&mut self, name: &str) -> Option<String> {
        let raw = self.take(name)?;
        match serde_json::from_str::<String>(raw.get()) {
            Ok(text) if !text.contains('\0') => Some(text),
            _ => {
                self.fail(
                    name,
                    ProblemCode::InvalidValue,
                    "must be a string without NUL characters",
                );
                None
            }
        }
    }

    /// Takes a field out; JSON null is as good as leaving it out.
    fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        let at = self.left.iter().position(|(field, _)| field == name)?;
        let (_, raw) = self.left.remove(at);
        (raw.get() != "null").then_some(raw)
    }

    /// Notes that a field's value cannot be used; of the whole object with an empty name.
    pub fn reject(&mut self, name: &str, rule: &str) {
        self.fail(name, ProblemCode::InvalidValue, rule);
    }

    /// Notes that a field is required.
    fn missing(&mut self, name: &str) {
        self.missing_unless(name, "is required");
    }

    /// Notes that a field is missing, and what would do instead of it.
    pub fn missing_unless(&mut self, name: &str, rule: &str) {
        self.fail(name, ProblemCode::MissingField, rule);
    }

    fn fail(&mut self, name: &str, code: ProblemCode, detail: &str) {
        // RFC 6901: ~ and / are escaped in a pointer.
        let name = name.replace('~', "~0").replace('/', "~1");
        let pointer = format!("{}/{name}", self.place);
        self.errors.push((code, FieldError { pointer, detail: detail.to_owned() }));
    }
}

fn is_key(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Visible characters with single spaces between them, as one segment of a path.
fn is_reference(text: &str) -> bool {
    text.chars().count() <= REFERENCE_CHARS_MAX
        && is_addressable(text)
        && text.split(' ').all(|word| !word.is_empty() && word.chars().all(is_visible))
}

/// The fields of an object, each once.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        let mut names = HashSet::new();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if !names.insert(name.clone()) {
                return Err(de::Error::custom("a field stands twice"));
            }
            fields.push((name, value));
        }
        Ok(fields)
    }
}
