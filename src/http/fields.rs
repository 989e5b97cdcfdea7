//! A JSON object from a request, taken apart field by field: numbers keep their token, every wrong
//! field is reported at once, and what nobody asked for is refused.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use chrono::{DateTime, FixedOffset, Utc};
use futures_util::StreamExt as _;
use rust_decimal::Decimal;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problem::{HttpError, HttpResult};
use crate::answer::{FieldError, Problem, ProblemCode};
use crate::wallet::{Amount, AmountError, Currency, Details, Metadata, WalletId, parse_decimal};

/// Bytes of one request's body.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Larger bodies are not read to their end just to be refused.
const DISCARDED_MAX: u64 = 8 * 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const DESCRIPTION_CHARS_MAX: usize = 1024;
const REFERENCE_CHARS_MAX: usize = 255;
/// Unknown fields that a problem names: an answer must not be larger than what it answers.
const UNKNOWN_NAMED_MAX: usize = 10;

/// The fields that are left, and what was wrong with those already taken.
#[derive(Debug)]
pub(super) struct Fields {
    left: Vec<(String, Box<RawValue>)>,
    errors: Vec<(ProblemCode, FieldError)>,
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = HttpError;

    async fn from_request(request: Request, _: &S) -> HttpResult<Self> {
        let headers = request.headers();
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        if !content_type.is_some_and(is_json) || headers.contains_key(header::CONTENT_ENCODING) {
            return Err(HttpError::new(
                ProblemCode::UnsupportedMediaType,
                "send Content-Type: application/json in UTF-8, without Content-Encoding",
            ));
        }
        let too_large = || {
            let detail = format!("at most {BODY_BYTES_MAX} bytes");
            HttpError::new(ProblemCode::BodyTooLarge, detail)
        };
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        let declared = declared.and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        if declared > BODY_BYTES_MAX as u64 {
            if declared <= DISCARDED_MAX && !headers.contains_key(header::EXPECT) {
                discard(request.into_body()).await;
            }
            return Err(too_large());
        }
        let bytes = read(request.into_body()).await?.ok_or_else(too_large)?;
        Self::parse(&bytes)
    }
}

/// Reads on for nothing: a client that is still sending when its connection is closed would often
/// see a reset instead of the answer.
async fn discard(body: Body) {
    let mut chunks = body.into_data_stream();
    let all = async { while let Some(Ok(_)) = chunks.next().await {} };
    let _ = tokio::time::timeout(BODY_TIMEOUT, all).await;
}

/// The body, or none where it is too large.
async fn read(body: Body) -> HttpResult<Option<bytes::Bytes>> {
    let malformed = |detail: &str| HttpError::new(ProblemCode::MalformedJson, detail);
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Err(_) => Err(malformed("the body did not arrive in time")),
        Ok(Ok(bytes)) => Ok(Some(bytes)),
        Ok(Err(error)) => {
            let limit = std::error::Error::source(&error)
                .is_some_and(|cause| cause.to_string().contains("length limit"));
            if limit { Ok(None) } else { Err(malformed("the body could not be read")) }
        }
    }
}

/// `application/json`, with no charset but UTF-8.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

impl Fields {
    pub fn parse(bytes: &[u8]) -> HttpResult<Self> {
        let malformed = |detail: String| HttpError::new(ProblemCode::MalformedJson, detail);
        let text = std::str::from_utf8(bytes)
            .map_err(|_| malformed("the body is not UTF-8".to_owned()))?
            .trim_ascii();
        if text.is_empty() {
            return Err(malformed("the body is empty".to_owned()));
        }
        if !text.starts_with('{') {
            // `RawValue` takes any one JSON value: what is valid but no object gets its own code.
            let valid = serde_json::from_str::<&RawValue>(text).is_ok();
            let detail = "the body must be one JSON object";
            return Err(if valid {
                HttpError::at(ProblemCode::InvalidValue, "", detail)
            } else {
                malformed(detail.to_owned())
            });
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let left = reader.deserialize_map(Object).and_then(|left| reader.end().map(|()| left));
        let left = left.map_err(|error| malformed(error.to_string()))?;
        Ok(Self { left, errors: Vec::new() })
    }

    /// Every field taken, or the problem with all that is wrong. Call last.
    pub fn finish(mut self) -> HttpResult<()> {
        for (name, _) in std::mem::take(&mut self.left).into_iter().take(UNKNOWN_NAMED_MAX) {
            self.fail(&name, ProblemCode::UnknownField, "is not a field of this route");
        }
        let Some((code, _)) = self.errors.first() else { return Ok(()) };
        let mut problem = Problem::new(*code, "");
        problem.errors = self.errors.into_iter().map(|(_, error)| error).collect();
        let all = problem.errors.iter().map(|e| format!("{}: {}", e.pointer, e.detail));
        problem.detail = all.collect::<Vec<_>>().join("; ");
        Err(HttpError(problem))
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

    /// A wallet's id in the body.
    pub fn wallet_id(&mut self, name: &str) -> Option<WalletId> {
        let text = self.string(name)?;
        let id = WalletId::parse(&text);
        if id.is_none() {
            self.fail(name, ProblemCode::InvalidId, "must be 1 to 255 visible characters");
        }
        id
    }

    /// A wallet's id that must be there.
    pub fn required_wallet_id(&mut self, name: &str) -> WalletId {
        let before = self.errors.len();
        let id = self.wallet_id(name);
        if id.is_none() && self.errors.len() == before {
            self.missing(name);
        }
        id.unwrap_or_else(|| WalletId::stored(""))
    }

    pub fn owner_id(&mut self, name: &str) -> String {
        self.required_wallet_id(name).as_str().to_owned()
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
            let rule = "must be 1 to 255 visible characters or inner spaces";
            self.fail("reference", ProblemCode::InvalidValue, rule);
        }
        Details { description, reference, metadata: self.metadata("metadata") }
    }

    /// A switch that may be left out: off.
    pub fn switch(&mut self, name: &str) -> bool {
        self.parsed(name, "must be true or false").unwrap_or(false)
    }

    /// A list of whole numbers that may be left out.
    pub fn numbers(&mut self, name: &str) -> Option<Vec<i64>> {
        self.parsed(name, "must be an array of whole numbers")
    }

    /// A time with its offset.
    pub fn time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let time: DateTime<FixedOffset> =
            self.parsed(name, "must be a time such as 2026-01-31T12:00:00Z")?;
        Some(time.to_utc())
    }

    /// One of a closed set of words that must be there.
    pub fn one_of<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let before = self.errors.len();
        let Some(text) = self.string(name) else {
            if self.errors.len() == before {
                self.missing(name);
            }
            return None;
        };
        let found = parse(&text);
        if found.is_none() {
            self.refuse(name, "is not one of the known values");
        }
        found
    }

    /// Notes that a field's value cannot be used.
    pub fn refuse(&mut self, name: &str, rule: &str) {
        self.fail(name, ProblemCode::InvalidValue, rule);
    }

    fn parsed<T: DeserializeOwned>(&mut self, name: &str, rule: &str) -> Option<T> {
        let raw = self.take(name)?;
        let value = serde_json::from_str(raw.get()).ok();
        if value.is_none() {
            self.refuse(name, rule);
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

    fn missing(&mut self, name: &str) {
        self.fail(name, ProblemCode::MissingField, "is required");
    }

    fn fail(&mut self, name: &str, code: ProblemCode, detail: &str) {
        // RFC 6901: ~ and / are escaped in a pointer.
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        self.errors.push((code, FieldError { pointer, detail: detail.to_owned() }));
    }
}

/// Visible characters with single spaces between them.
fn is_reference(text: &str) -> bool {
    text.chars().count() <= REFERENCE_CHARS_MAX
        && text.split(' ').all(|word| WalletId::parse(word).is_some())
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
