//! A statement as a page for people: one file, no script, nothing fetched, fit to be printed.

use std::fmt::Write as _;

use rust_decimal::Decimal;

use super::{Closing, Heading, Line, local_time, zone_name};
use crate::ledger::Side;

const STYLE: &str = include_str!("page.css");

pub(super) fn open(heading: &Heading) -> String {
    let wallet = escaped(heading.wallet_id.as_str());
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Statement of {wallet}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>Account statement</h1>\n<dl>\n"
    );
    let zone = &heading.zone;
    let versions = match heading.closing_version - heading.opening_version {
        0 => format!("none; at {}", heading.closing_version),
        _ => format!("{} to {}", heading.opening_version + 1, heading.closing_version),
    };
    let period = format!(
        "{} up to, not with, {}",
        day_and_time(heading.from, zone),
        day_and_time(heading.to, zone)
    );
    for (name, value) in [
        ("Wallet", wallet.as_str()),
        ("Owner", &escaped(&heading.owner_id)),
        ("Currency", heading.currency.code()),
        ("Period", &period),
        ("Time zone", &escaped(zone_name(zone))),
        ("Versions", &versions),
        ("State", if heading.is_final { "final" } else { "not final: entries may still come" }),
    ] {
        _ = writeln!(text, "<dt>{name}</dt><dd>{value}</dd>");
    }
    _ = write!(
        text,
        "</dl>\n</header>\n<table>\n<thead>\n<tr><th>Date</th><th>Entry</th><th>Reference</th>\
         <th class=\"n\">Debit</th><th class=\"n\">Credit</th><th class=\"n\">Balance</th></tr>\n\
         </thead>\n<tbody>\n<tr class=\"end\"><td>{}</td><td colspan=\"4\">Opening balance</td>\
         <td class=\"n\">{}</td></tr>\n",
        day_and_time(heading.from, zone),
        grouped(heading.opening_balance),
    );
    text
}

pub(super) fn row(heading: &Heading, line: &Line<'_>, text: &mut String) {
    let Line { event, posting } = line;
    let amount = grouped(posting.amount);
    let (debit, credit) = match posting.side {
        Side::Debit => (amount.as_str(), ""),
        Side::Credit => ("", amount.as_str()),
    };
    let kind = posting.transaction_type.as_str().to_lowercase().replace('_', " ");
    let with = posting.related_wallet_id.as_deref().map(|id| format!(" &middot; {}", escaped(id)));
    let note = posting.description.as_deref().map(|text| format!("<br>{}", escaped(text)));
    _ = writeln!(
        text,
        "<tr><td>{}</td><td>{kind}{}{}</td><td>{}</td><td class=\"n\">{debit}</td>\
         <td class=\"n\">{credit}</td><td class=\"n\">{}</td></tr>",
        day_and_time(event.created_at, &heading.zone),
        with.unwrap_or_default(),
        note.unwrap_or_default(),
        escaped(&posting.reference_id),
        grouped(posting.balance_after),
    );
}

pub(super) fn close(closing: &Closing<'_>) -> String {
    let heading = closing.heading;
    let all = closing.all();
    let mut text = format!(
        "<tr class=\"end\"><td>{}</td><td colspan=\"2\">Closing balance</td><td class=\"n\">{}</td>\
         <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n</tbody>\n</table>\n\
         <footer>\n<table>\n<thead>\n<tr><th>Entries of the period</th><th class=\"n\">Number</th>\
         <th class=\"n\">Sum</th></tr>\n</thead>\n<tbody>\n",
        day_and_time(heading.to, &heading.zone),
        grouped_text(&closing.text(all.debits)),
        grouped_text(&closing.text(all.credits)),
        grouped(heading.closing_balance),
    );
    for (kind, amount, count) in closing.by_type() {
        let (kind, amount) = (kind.to_lowercase().replace('_', " "), grouped_text(&amount));
        _ = writeln!(
            text,
            "<tr><td>{kind}</td><td class=\"n\">{count}</td><td class=\"n\">{amount}</td></tr>"
        );
    }
    _ = writeln!(
        text,
        "<tr class=\"end\"><td>all</td><td class=\"n\">{}</td><td class=\"n\"></td></tr>\n</tbody>\n\
         </table>\n<p>Opening balance, credits and debits come to the closing balance.</p>\n\
         </footer>\n</body>\n</html>",
        all.entries
    );
    text
}

fn day_and_time(at: chrono::DateTime<chrono::Utc>, zone: &jiff::tz::TimeZone) -> String {
    let text = local_time(at, zone);
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time}"),
        _ => text,
    }
}

fn grouped(value: Decimal) -> String {
    grouped_text(&value.to_string())
}

/// A decimal with commas between thousands.
fn grouped_text(text: &str) -> String {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("&minus;", digits),
        None => ("", text),
    };
    let whole = digits.split('.').next().unwrap_or_default();
    let fraction = digits.get(whole.len()..).unwrap_or_default();
    let mut grouped = sign.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// A caller's text as it may stand in a page.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // No mark may turn the order of what is shown after it.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_grouped_and_texts_cannot_leave_their_place() {
        for (text, shown) in [
            ("0.00", "0.00"),
            ("999.5", "999.5"),
            ("1000", "1,000"),
            ("-1234567.891", "&minus;1,234,567.891"),
        ] {
            assert_eq!(grouped_text(text), shown);
        }
        assert_eq!(escaped("<b>'\"&\u{202e}x"), "&lt;b&gt;&#39;&quot;&amp;\u{fffd}x");
    }
}
