//! A JSON object taken apart field by field: numbers keep their token, every wrong field is
//! reported at once, and unknown fields are refused.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Body, Field};
use crate::answer::{FieldError, Problem, ProblemCode};

/// Unknown fields that a problem names: an answer must not be larger than what it answers.
const UNKNOWN_NAMED_MAX: usize = 10;

/// The fields that are left, and what was wrong with those already taken.
#[derive(Debug)]
#[must_use = "what is wrong is known, and unknown fields are refused, only once `finish` is called"]
pub struct Fields {
    /// Where the object is in the request: a JSON Pointer, empty for the whole body.
    pointer: String,
    left: Vec<(String, Box<RawValue>)>,
    errors: Vec<(ProblemCode, FieldError)>,
}

/// Why a field's value cannot be used.
#[derive(Debug)]
pub struct Fault {
    code: ProblemCode,
    detail: Cow<'static, str>,
}

impl Fault {
    pub fn new(code: ProblemCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// The value is not what the field takes.
    pub fn value(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemCode::InvalidValue, detail)
    }

    pub(super) fn missing() -> Self {
        Self::new(ProblemCode::MissingField, "is required")
    }
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

    /// The object `text`, which is at `pointer` in the request.
    pub(super) fn at(text: &str, pointer: String) -> Result<Self, Problem> {
        let malformed = |detail: String| Problem::new(ProblemCode::MalformedJson, detail);
        if !text.starts_with('{') {
            // `RawValue` takes any one JSON value: what is valid but no object gets its own code.
            let valid = serde_json::from_str::<&RawValue>(text).is_ok();
            let detail = match pointer.is_empty() {
                true => "the body must be one JSON object",
                false => "must be a JSON object",
            };
            return Err(if valid {
                Problem::at(ProblemCode::InvalidValue, pointer, detail)
            } else {
                malformed(detail.to_owned())
            });
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let left = reader.deserialize_map(Object).and_then(|left| reader.end().map(|()| left));
        let left = left.map_err(|error| malformed(error.to_string()))?;
        Ok(Self { pointer, left, errors: Vec::new() })
    }

    /// The body that the object is, or the problem with all that is wrong with it.
    pub fn body<B: Body>(mut self) -> Result<B, Problem> {
        let body = B::take(&mut self);
        self.finish(body)
    }

    /// Takes a field out; JSON null is as good as leaving it out. None: it is wrong, which is noted.
    pub fn take<T: Field>(&mut self, name: &str) -> Option<T> {
        let at = self.left.iter().position(|(field, _)| field == name);
        let raw = at.map(|at| self.left.remove(at).1);
        let token = raw.as_deref().map(RawValue::get).filter(|token| *token != "null");
        T::of(token).map_err(|fault| self.note(name, fault)).ok()
    }

    /// What was made of the fields, if each was right and none is left.
    pub(super) fn finish<T>(mut self, made: Option<T>) -> Result<T, Problem> {
        for (name, _) in std::mem::take(&mut self.left).into_iter().take(UNKNOWN_NAMED_MAX) {
            self.note(&name, Fault::new(ProblemCode::UnknownField, "is not a field of this route"));
        }
        made.filter(|_| self.errors.is_empty()).ok_or_else(|| self.refuse())
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

    fn note(&mut self, name: &str, Fault { code, detail }: Fault) {
        // RFC 6901: ~ and / are escaped in a pointer.
        let name = name.replace('~', "~0").replace('/', "~1");
        let pointer = format!("{}/{name}", self.pointer);
        self.errors.push((code, FieldError { pointer, detail: detail.into_owned() }));
    }
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
