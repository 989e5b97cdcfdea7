//! Query strings: known parameters are checked, unknown ones ignored.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

use super::problem::{HttpError, HttpResult};
use crate::answer::ProblemCode;

const LIMIT_MAX: i64 = 1000;

/// The decoded pairs of a query string, in order.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> HttpResult<Self> {
        let pairs = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let invalid = || HttpError::at(ProblemCode::InvalidValue, "?", "the query is not UTF-8");
        let Query(pairs) = pairs.map_err(|_| invalid())?;
        if pairs.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
            return Err(HttpError::at(ProblemCode::InvalidValue, "?", "has a NUL character"));
        }
        Ok(Self(pairs))
    }
}

impl Parameters {
    /// The first value under a name; an empty one is as good as none.
    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// The parameters whose name begins with `prefix`: the rest of their names, and their values.
    pub fn with_prefix(&self, prefix: &str) -> Vec<(String, String)> {
        let pairs = self.0.iter();
        pairs
            .filter_map(|(name, value)| {
                Some((name.strip_prefix(prefix)?.to_owned(), value.clone()))
            })
            .collect()
    }

    /// The same query on `path` with another cursor.
    pub fn with_cursor(&self, path: &str, cursor: &str) -> String {
        let kept = self.0.iter().filter(|(name, _)| name != "cursor");
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(kept).append_pair("cursor", cursor);
        format!("{path}?{}", query.finish())
    }

    /// `limit`, 1 to 1000.
    pub fn limit(&self, default: i64) -> HttpResult<i64> {
        self.number("limit", default, 1, LIMIT_MAX)
    }

    pub fn number(&self, name: &str, default: i64, least: i64, most: i64) -> HttpResult<i64> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse::<i64>().ok().filter(|n| (least..=most).contains(n));
        number
            .ok_or_else(|| invalid(name, &format!("must be a whole number from {least} to {most}")))
    }

    /// One of a closed set of words.
    pub fn one_of<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> HttpResult<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| invalid(name, "is not one of the known values"))
    }

    /// A switch: off where it is left out.
    pub fn is_set(&self, name: &str) -> HttpResult<bool> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(name, "must be true or false")),
        }
    }

    /// A time with its offset, or a date: its first moment, or with `end` its last.
    pub fn time(&self, name: &str, end: bool) -> HttpResult<Option<DateTime<Utc>>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        let date = || {
            let plain = text.len() == 10 && text.starts_with(|c: char| c.is_ascii_digit());
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| plain)?;
            let last = NaiveTime::from_hms_milli_opt(23, 59, 59, 999)?;
            Some(date.and_time(if end { last } else { NaiveTime::MIN }).and_utc())
        };
        let rule = "must be a date such as 2026-01-31 or a time such as 2026-01-31T12:00:00Z";
        time.ok().or_else(date).map(Some).ok_or_else(|| {
            // In a query a + stands for a space: the offset was lost on the way.
            let parts = text.rsplit_once(' ').filter(|(time, offset)| {
                DateTime::parse_from_rfc3339(&format!("{time}+{offset}")).is_ok()
            });
            match parts {
                Some((time, offset)) => {
                    invalid(name, &format!("write the + of an offset as %2B: {time}%2B{offset}"))
                }
                None => invalid(name, rule),
            }
        })
    }
}

fn invalid(name: &str, rule: &str) -> HttpError {
    HttpError::at(ProblemCode::InvalidValue, format!("?{name}"), rule)
}
