//! Opaque cursors: where a page ended, so that the next begins there whatever came in between.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Datelike as _, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::problem::{HttpError, HttpResult};
use super::query::Parameters;
use crate::answer::ProblemCode;

/// The last row of a page that is full: there may be more behind it.
pub(super) fn last_of_full<T>(rows: &[T], limit: i64) -> Option<&T> {
    rows.last().filter(|_| i64::try_from(rows.len()) == Ok(limit))
}

/// The cursor of a position.
pub(super) fn encode(position: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

/// The position of a cursor, if it is one.
pub(super) fn decode<T: DeserializeOwned>(cursor: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

/// The position in `?cursor=`, none where there is no cursor.
pub(super) fn position<T: DeserializeOwned>(parameters: &Parameters) -> HttpResult<Option<T>> {
    let Some(cursor) = parameters.text("cursor") else { return Ok(None) };
    decode(cursor).map(Some).ok_or_else(invalid)
}

/// The problem with a cursor that no answer gave.
pub(super) fn invalid() -> HttpError {
    HttpError::at(ProblemCode::InvalidValue, "?cursor", "must come from a former answer")
}

/// A time in a cursor: anybody can make one up that Postgres does not know.
#[derive(Debug, Deserialize)]
#[serde(try_from = "DateTime<Utc>")]
pub(super) struct Moment(pub DateTime<Utc>);

impl TryFrom<DateTime<Utc>> for Moment {
    type Error = &'static str;

    fn try_from(at: DateTime<Utc>) -> Result<Self, Self::Error> {
        if (0..=9999).contains(&at.year()) { Ok(Self(at)) } else { Err("year") }
    }
}
