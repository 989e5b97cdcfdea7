//! A statement as CSV (RFC 4180), for spreadsheets: the opening and the closing balance are rows as well, so that
//! the file says by itself whether it is whole.

use super::{Closing, Heading, Line, local_time, zone_name};
use crate::envelope::timestamp;

const COLUMNS: &str = "line,version,createdAt,localTime,transactionType,direction,amount,balance,currency,\
    description,referenceId,relatedWalletId,transactionId,eventId\r\n";

pub(super) fn open(heading: &Heading) -> String {
    let mut text = COLUMNS.to_owned();
    let period = format!(
        "{}, {} to {}, {}, versions {} to {}{}",
        heading.wallet_id,
        local_time(heading.from, &heading.zone),
        local_time(heading.to, &heading.zone),
        zone_name(&heading.zone),
        heading.opening_version + 1,
        heading.closing_version,
        if heading.is_final { "" } else { ", not final" },
    );
    let balance = heading.opening_balance.to_string();
    let moment = (timestamp(heading.from), local_time(heading.from, &heading.zone));
    let version = heading.opening_version.to_string();
    ends(&mut text, "opening", &version, &moment, &balance, heading, &period);
    text
}

pub(super) fn row(heading: &Heading, line: &Line<'_>, text: &mut String) {
    let Line { event, posting } = line;
    record(
        text,
        [
            "entry",
            &event.version.to_string(),
            &timestamp(event.created_at),
            &local_time(event.created_at, &heading.zone),
            posting.transaction_type.as_str(),
            posting.side.as_str(),
            &posting.amount.to_string(),
            &posting.balance_after.to_string(),
            heading.currency.code(),
            &harmless(posting.description.as_deref().unwrap_or("")),
            &harmless(&posting.reference_id),
            &harmless(posting.related_wallet_id.as_deref().unwrap_or("")),
            &event.transaction_id.to_string(),
            &event.event_id.to_string(),
        ],
    );
}

pub(super) fn close(closing: &Closing<'_>) -> String {
    let heading = closing.heading;
    let all = closing.all();
    let mut text = String::new();
    let sums = format!(
        "{} entries, credits {}, debits {}",
        all.entries,
        closing.text(all.credits),
        closing.text(all.debits)
    );
    let balance = heading.closing_balance.to_string();
    let moment = (timestamp(heading.to), local_time(heading.to, &heading.zone));
    let version = heading.closing_version.to_string();
    ends(&mut text, "closing", &version, &moment, &balance, heading, &sums);
    text
}

fn ends(
    text: &mut String,
    line: &str,
    version: &str,
    (at, local): &(String, String),
    balance: &str,
    heading: &Heading,
    about: &str,
) {
    let (currency, about) = (heading.currency.code(), harmless(about));
    record(text, [line, version, at, local, "", "", "", balance, currency, &about, "", "", "", ""]);
}

/// A spreadsheet takes a text that begins so for a formula, and a caller's text may be anybody's: an apostrophe
/// before it says that it is text.
fn harmless(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}

fn record(text: &mut String, fields: [&str; 14]) {
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        match field.contains(['"', ',', '\r', '\n']) {
            true => {
                text.push('"');
                text.push_str(&field.replace('"', "\"\""));
                text.push('"');
            }
            false => text.push_str(field),
        }
    }
    text.push_str("\r\n");
}
