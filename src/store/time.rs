//! Times as answers and statements have them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serializer;

use crate::envelope::timestamp;

pub(super) fn time<S: Serializer>(at: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&timestamp(*at))
}

pub(super) fn optional_time<S: Serializer>(
    at: &Option<DateTime<Utc>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, to),
        None => to.serialize_none(),
    }
}

/// As a statement's parameter: `$1 * interval '1 ms'`.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
