//! Time zones and local dates of a query.

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::problem::{HttpError, HttpResult};
use super::query::Parameters;
use crate::answer::ProblemCode;

/// `?tz=`: a name of the IANA database; UTC where there is none.
pub(super) fn zone(parameters: &Parameters) -> HttpResult<TimeZone> {
    let Some(name) = parameters.text("tz") else { return Ok(TimeZone::UTC) };
    let rule = "must be a time zone's name such as Europe/Berlin";
    TimeZone::get(name).map_err(|_| HttpError::at(ProblemCode::InvalidValue, "?tz", rule))
}

/// A time with its offset, or a date: its first moment in the zone.
pub(super) fn moment(
    parameters: &Parameters,
    name: &str,
    zone: &TimeZone,
) -> HttpResult<Option<DateTime<Utc>>> {
    match parameters.text(name).and_then(date) {
        // Where the night is left out, the first moment is after it.
        Some(date) => match date.to_zoned(zone.clone()).and_then(|day| day.start_of_day()) {
            Ok(day) => Ok(DateTime::from_timestamp_millis(day.timestamp().as_millisecond())),
            Err(_) => Err(HttpError::at(
                ProblemCode::InvalidValue,
                format!("?{name}"),
                "is no day of this calendar",
            )),
        },
        // What is no date either is refused by name there.
        None => parameters.time(name, false),
    }
}

fn date(text: &str) -> Option<Date> {
    let plain = text.len() == 10 && text.starts_with(|c: char| c.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_moment(day: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let day = date(day).unwrap().to_zoned(zone).unwrap().start_of_day().unwrap();
        day.timestamp().to_string()
    }

    #[test]
    fn a_day_begins_with_its_first_moment_whatever_clocks_do_then() {
        assert_eq!(first_moment("2027-03-28", "Europe/Berlin"), "2027-03-27T23:00:00Z");
        assert_eq!(first_moment("2027-03-29", "Europe/Berlin"), "2027-03-28T22:00:00Z");
        // Midnight was left out.
        assert_eq!(first_moment("2018-11-04", "America/Sao_Paulo"), "2018-11-04T03:00:00Z");
        // The hour before came twice, and here midnight itself: the first one counts.
        assert_eq!(first_moment("2018-02-18", "America/Sao_Paulo"), "2018-02-18T03:00:00Z");
        assert_eq!(first_moment("2023-11-05", "America/Havana"), "2023-11-05T04:00:00Z");
    }

    #[test]
    fn only_a_date_is_read_as_one() {
        for text in ["2027-3-28", "20270328", "2027-02-30", "-027-01-01", "2027-03-28T00:00"] {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
