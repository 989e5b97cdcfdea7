//! Times in answers that are made of rows: as every time that leaves the service.

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
