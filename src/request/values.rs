//! The values that fields hold. Each has its reader and its schema beside each other: what one takes,
//! the other describes, as far as a schema can say it.

use chrono::{DateTime, FixedOffset, Utc};
use rust_decimal::Decimal;
use serde::de::DeserializeOwned;
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{
    ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use uuid::Uuid;

use super::{Fault, Value};
use crate::answer::ProblemCode;
use crate::wallet::{
    Amount, AmountError, Currency, ID_CHARS_MAX, Metadata, WalletId, is_addressable, is_visible,
    parse_decimal,
};

const DESCRIPTION_CHARS_MAX: usize = 1024;
const REFERENCE_CHARS_MAX: usize = 255;
const KEY_BYTES_MAX: usize = 255;
/// Characters of an amount that is sent as text.
const AMOUNT_CHARS_MAX: usize = 40;
/// What requests may write an amount as: at most 10^15, at most 8 decimals that count, JSON's number
/// grammar without sign and exponent.
const AMOUNT: &str = r"(0|[1-9][0-9]{0,14})(\.[0-9]{1,8}0*)?|10{15}(\.0+)?";
const AMOUNT_MAX: i64 = 1_000_000_000_000_000;

/// The id of a wallet to be opened: narrower than what may be asked for.
#[derive(Debug)]
pub struct NewWalletId(pub WalletId);

/// The id of a wallet's owner.
#[derive(Debug)]
pub struct OwnerId(pub String);

/// A decimal of at least zero.
#[derive(Debug)]
pub struct NonNegative(pub Decimal);

/// What a caller says about a movement.
#[derive(Debug)]
pub struct Description(pub String);

/// The caller's own id of something: visible characters with single spaces between them.
#[derive(Debug)]
pub struct Reference(pub String);

/// An idempotency key.
#[derive(Debug, Clone)]
pub struct Key(pub String);

/// Any text but a blank one.
#[derive(Debug)]
pub struct Text(pub String);

/// Ids of rows.
#[derive(Debug)]
pub struct Ids(pub Vec<i64>);

/// A time with its offset.
#[derive(Debug)]
pub struct Time(pub DateTime<Utc>);

/// The id of a hold.
#[derive(Debug, Clone, Copy)]
pub struct HoldId(pub Uuid);

/// A time span, up to a leap year.
#[derive(Debug, Clone, Copy)]
pub struct Seconds(pub u32);

/// Yes or no, where leaving it out means either.
#[derive(Debug, Clone, Copy)]
pub struct Switch(pub bool);

impl HoldId {
    /// As UUIDs are written, with hyphens; none of the other ways to write one.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().filter(|_| text.len() == 36).map(Self)
    }
}

impl Value for HoldId {
    fn read(token: &str) -> Result<Self, Fault> {
        let invalid = || Fault::new(ProblemCode::InvalidId, "must be a UUID");
        Self::parse(&text(token)?).ok_or_else(invalid)
    }

    fn schema() -> Schema {
        let pattern = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$";
        ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into()
    }
}

/// Seconds of 366 days.
const SECONDS_MAX: u32 = 31_622_400;

impl Value for Seconds {
    fn read(token: &str) -> Result<Self, Fault> {
        let rule = "must be a whole number from 1 to 31622400";
        let seconds = token.parse::<u32>().ok().filter(|n| (1..=SECONDS_MAX).contains(n));
        seconds.map(Self).ok_or_else(|| Fault::value(rule))
    }

    fn schema() -> Schema {
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        number.minimum(Some(1_i64)).maximum(Some(i64::from(SECONDS_MAX))).into()
    }
}

impl Value for Switch {
    fn read(token: &str) -> Result<Self, Fault> {
        match token {
            "true" => Ok(Self(true)),
            "false" => Ok(Self(false)),
            _ => Err(Fault::value("must be true or false")),
        }
    }

    fn schema() -> Schema {
        ObjectBuilder::new().schema_type(Type::Boolean).into()
    }
}

impl Value for Amount {
    fn read(token: &str) -> Result<Self, Fault> {
        Ok(Self::from_decimal(decimal(token)?)?)
    }

    fn schema() -> Schema {
        let about = "Greater than zero, at most 10^15, no more decimals than the currency has; a \
                     string or a plain number";
        amount(about)
            .pattern(Some(format!(r"^(?!0(\.0+)?$)({AMOUNT})$")))
            .exclusive_minimum(Some(0_i64))
            .into()
    }
}

impl Value for NonNegative {
    fn read(token: &str) -> Result<Self, Fault> {
        Ok(Self(decimal(token)?))
    }

    fn schema() -> Schema {
        let about = "At least zero, at most 10^15, no more decimals than the currency has; left \
                     out, null and 0 mean none";
        amount(about).pattern(Some(format!("^({AMOUNT})$"))).minimum(Some(0_i64)).into()
    }
}

fn amount(about: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::String, Type::Number]))
        .max_length(Some(AMOUNT_CHARS_MAX))
        .maximum(Some(AMOUNT_MAX))
        .description(Some(about))
}

/// The decimal in a JSON string or number, read from its token and never through a float.
fn decimal(token: &str) -> Result<Decimal, AmountError> {
    match token.starts_with('"') {
        true => {
            let text: Result<String, _> = serde_json::from_str(token);
            text.map_err(|_| AmountError::NotDecimal).and_then(|text| parse_decimal(&text))
        }
        false => parse_decimal(token),
    }
}

impl From<AmountError> for Fault {
    fn from(error: AmountError) -> Self {
        let code = match error {
            AmountError::TooFine => ProblemCode::AmountScale,
            _ => ProblemCode::InvalidAmount,
        };
        Self::new(code, error.to_string())
    }
}

/// The id of a wallet that should exist.
impl Value for WalletId {
    fn read(token: &str) -> Result<Self, Fault> {
        let invalid = || Fault::new(ProblemCode::InvalidId, "must be 1 to 255 visible characters");
        Self::parse(&text(token)?).ok_or_else(invalid)
    }

    fn schema() -> Schema {
        id("w-1")
    }
}

impl Value for NewWalletId {
    fn read(token: &str) -> Result<Self, Fault> {
        new_id(token).map(Self)
    }

    fn schema() -> Schema {
        id("w-1")
    }
}

impl Value for OwnerId {
    fn read(token: &str) -> Result<Self, Fault> {
        Ok(Self(new_id(token)?.as_str().to_owned()))
    }

    fn schema() -> Schema {
        id("alice")
    }
}

fn new_id(token: &str) -> Result<WalletId, Fault> {
    let rule = "must be 1 to 255 visible characters, and not . or ..";
    WalletId::parse_new(&text(token)?).ok_or_else(|| Fault::new(ProblemCode::InvalidId, rule))
}

fn id(example: &str) -> Schema {
    string(1, ID_CHARS_MAX, r"^\S+$").examples([example]).into()
}

impl Value for Currency {
    fn read(token: &str) -> Result<Self, Fault> {
        let rule = "must be an ISO 4217 code such as USD";
        let invalid = || Fault::new(ProblemCode::InvalidCurrency, rule);
        Self::parse(&text(token)?).ok_or_else(invalid)
    }

    fn schema() -> Schema {
        let code = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Z]{3}$"));
        code.description(Some("ISO 4217 code")).examples(["USD"]).into()
    }
}

impl Value for Metadata {
    fn read(token: &str) -> Result<Self, Fault> {
        Self::parse(token).map_err(|error| Fault::value(error.to_string()))
    }

    fn schema() -> Schema {
        ObjectBuilder::new().description(Some("At most 16 KiB and 32 levels")).into()
    }
}

impl Value for Description {
    fn read(token: &str) -> Result<Self, Fault> {
        let text = text(token)?;
        match text.chars().count() <= DESCRIPTION_CHARS_MAX {
            true => Ok(Self(text)),
            false => Err(Fault::value("must not exceed 1024 characters")),
        }
    }

    fn schema() -> Schema {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.max_length(Some(DESCRIPTION_CHARS_MAX)).into()
    }
}

impl Value for Reference {
    fn read(token: &str) -> Result<Self, Fault> {
        let text = text(token)?;
        let fits = text.chars().count() <= REFERENCE_CHARS_MAX
            && is_addressable(&text)
            && text.split(' ').all(|word| !word.is_empty() && word.chars().all(is_visible));
        let rule = "must be 1 to 255 visible characters or inner spaces, and not . or ..";
        if fits { Ok(Self(text)) } else { Err(Fault::value(rule)) }
    }

    fn schema() -> Schema {
        string(1, REFERENCE_CHARS_MAX, r"^\S+( \S+)*$").into()
    }
}

impl Value for Key {
    fn read(token: &str) -> Result<Self, Fault> {
        let rule = "must be 1 to 255 visible ASCII characters";
        let invalid = || Fault::new(ProblemCode::InvalidIdempotencyKey, rule);
        Some(text(token)?).filter(|key| is_key(key)).map(Self).ok_or_else(invalid)
    }

    fn schema() -> Schema {
        string(1, KEY_BYTES_MAX, "^[!-~]+$").into()
    }
}

/// Whether the text can be an idempotency key: 1 to 255 visible ASCII characters.
pub fn is_key(text: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Value for Text {
    fn read(token: &str) -> Result<Self, Fault> {
        Some(text(token)?)
            .filter(|text| !text.trim_ascii().is_empty())
            .map(Self)
            .ok_or_else(Fault::missing)
    }

    fn schema() -> Schema {
        ObjectBuilder::new().schema_type(Type::String).into()
    }
}

impl Value for Ids {
    fn read(token: &str) -> Result<Self, Fault> {
        parsed(token, "must be an array of whole numbers").map(Self)
    }

    fn schema() -> Schema {
        let id = ObjectBuilder::new().schema_type(Type::Integer);
        let id = id.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
        ArrayBuilder::new().items(id).into()
    }
}

impl Value for Time {
    fn read(token: &str) -> Result<Self, Fault> {
        let rule = "must be a time such as 2026-01-31T12:00:00Z";
        parsed(token, rule).map(|time: DateTime<FixedOffset>| Self(time.to_utc()))
    }

    fn schema() -> Schema {
        let format = Some(SchemaFormat::KnownFormat(KnownFormat::DateTime));
        ObjectBuilder::new().schema_type(Type::String).format(format).into()
    }
}

/// Any text, a blank one too.
impl Value for String {
    fn read(token: &str) -> Result<Self, Fault> {
        text(token)
    }

    fn schema() -> Schema {
        ObjectBuilder::new().schema_type(Type::String).into()
    }
}

/// What a word stands for.
pub fn one_of<T>(
    token: &str,
    words: impl Iterator<Item = (&'static str, T)> + Clone,
) -> Result<T, Fault> {
    let text = text(token)?;
    let found = words.clone().find(|(word, _)| *word == text).map(|(_, meaning)| meaning);
    found.ok_or_else(|| {
        let words: Vec<&str> = words.map(|(word, _)| word).collect();
        Fault::value(format!("must be one of {}", words.join(", ")))
    })
}

/// The schema of one of a few words. A pattern, for an `enum` would have to name null as well.
pub fn words(words: impl Iterator<Item = &'static str>) -> Schema {
    let words: Vec<&str> = words.collect();
    let pattern = format!("^({})$", words.join("|"));
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into()
}

fn string(min: usize, max: usize, pattern: &str) -> ObjectBuilder {
    let string = ObjectBuilder::new().schema_type(Type::String);
    string.min_length(Some(min)).max_length(Some(max)).pattern(Some(pattern))
}

fn text(token: &str) -> Result<String, Fault> {
    let text = serde_json::from_str::<String>(token).ok().filter(|text| !text.contains('\0'));
    text.ok_or_else(|| Fault::value("must be a string without NUL characters"))
}

fn parsed<T: DeserializeOwned>(token: &str, rule: &'static str) -> Result<T, Fault> {
    serde_json::from_str(token).map_err(|_| Fault::value(rule))
}
