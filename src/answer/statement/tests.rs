//! A statement of three events in each form, and those that do not add up.

use std::sync::Arc;

use chrono::DateTime;
use uuid::Uuid;

use super::*;
use crate::wallet::{
    Booking, Change, EventBody, EventType, Facts, Form as DataForm, Origin, Status, TenantId,
    WalletState,
};

const T0: i64 = 1_774_746_000_000; // 2026-03-29T01:00:00Z, when clocks in Berlin went from 02:00 to 03:00

fn cents(n: i64) -> Decimal {
    Decimal::new(n, 2)
}

fn event(version: i64, kind: EventType, before: i64, amount: i64, reason: Option<&str>) -> Event {
    let after = match kind.direction() {
        crate::wallet::ChangeType::Credit => before + amount,
        crate::wallet::ChangeType::Debit => before - amount,
    };
    Event {
        tenant: TenantId::default_tenant(),
        wallet_id: WalletId::stored("w<1>"),
        version,
        event_id: Uuid::from_u128(u128::try_from(version).unwrap()),
        transaction_id: Uuid::from_u128(7),
        partition: 0,
        created_at: DateTime::from_timestamp_millis(T0 + (version - 3) * 1000).unwrap(),
        origin: Arc::new(Origin::default()),
        body: EventBody {
            kind,
            facts: match kind.form() {
                DataForm::Transfer => Facts::Transfer { other: WalletId::stored("=b") },
                _ => Facts::Balance,
            },
            change: Change {
                previous_balance: cents(before),
                amount: cents(amount),
                direction: kind.direction(),
            },
            after: WalletState {
                balance: cents(after),
                held_balance: Decimal::new(0, 2),
                available_balance: None,
                status: Status::Active,
            },
            currency: Currency::USD,
            reason: reason.map(str::to_owned),
            reference: None,
            metadata: None,
            booking: Booking::default(),
        },
    }
}

fn events() -> Vec<Event> {
    vec![
        event(2, EventType::WalletCredited, 100, 123_456_789, Some("=1+1, \"a\"")),
        event(3, EventType::WalletTransferInitiated, 123_456_889, 889, None),
        event(4, EventType::WalletDebited, 123_456_000, 223_456_000, Some("<rent>")),
    ]
}

fn heading(closing: i64) -> Heading {
    Heading {
        wallet_id: WalletId::stored("w<1>"),
        owner_id: "ann".to_owned(),
        currency: Currency::USD,
        basis: "recorded",
        zone: TimeZone::get("Europe/Berlin").unwrap(),
        from: DateTime::from_timestamp_millis(T0 - 3_600_000).unwrap(),
        to: DateTime::from_timestamp_millis(T0 + 3_600_000).unwrap(),
        opening_version: 1,
        closing_version: 4,
        opening_balance: cents(100),
        closing_balance: cents(closing),
        is_final: true,
    }
}

fn written(form: Form) -> String {
    let mut statement = Statement::new(heading(-100_000_000));
    let mut text = form.open(&statement.heading);
    let mut is_first = true;
    for event in &events() {
        for line in statement.take(event).unwrap() {
            form.line(&statement.heading, &line, is_first, &mut text);
            is_first = false;
        }
    }
    assert!(statement.is_at_its_end());
    text + &form.close(&statement.close().unwrap())
}

#[test]
fn the_document_has_the_balances_the_entries_and_their_sums() {
    let document: serde_json::Value = serde_json::from_str(&written(Form::Json)).unwrap();
    assert_eq!(document["openingBalance"], "1.00");
    assert_eq!(document["closingBalance"], "-1000000.00");
    assert_eq!((&document["openingVersion"], &document["closingVersion"]), (&1.into(), &4.into()));
    let entries = document["entries"].as_array().unwrap();
    let local: Vec<_> = entries.iter().map(|entry| entry["localTime"].as_str().unwrap()).collect();
    assert_eq!(local[0], "2026-03-29T01:59:59.000+01:00");
    assert_eq!(local[1], "2026-03-29T03:00:00.000+02:00");
    assert_eq!(entries[1]["balance"], "1234560.00");
    let totals = &document["totals"];
    assert_eq!(
        (&totals["credits"], &totals["debits"]),
        (&"1234567.89".into(), &"2234568.89".into())
    );
    let kinds: Vec<_> =
        totals["byType"].as_array().unwrap().iter().map(|of| &of["transactionType"]).collect();
    assert_eq!(kinds, ["CREDIT", "DEBIT", "TRANSFER_OUT"]);
}

#[test]
fn lines_say_what_they_are() {
    let text = written(Form::Ndjson);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let words: Vec<_> = lines.iter().map(|line| line["line"].as_str().unwrap()).collect();
    assert_eq!(words, ["opening", "entry", "entry", "entry", "closing"]);
    assert_eq!(lines[4]["closingBalance"], "-1000000.00");
}

#[test]
fn a_table_has_no_formulas_and_a_row_for_each_end() {
    let text = written(Form::Csv);
    let rows: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(rows.len(), 7);
    assert!(
        rows[1].starts_with("opening,1,2026-03-29T00:00:00.000Z,2026-03-29T01:00:00.000+01:00")
    );
    assert!(rows[2].contains(",1234567.89,1234568.89,USD,\"'=1+1, \"\"a\"\"\","), "{}", rows[2]);
    assert!(rows[3].contains(",'=b,"), "{}", rows[3]);
    assert!(rows[5].starts_with("closing,4,"), "{}", rows[5]);
    assert!(rows[5].contains(",-1000000.00,USD,"), "{}", rows[5]);
    assert_eq!(rows[6], "");
}

#[test]
fn a_page_is_whole_and_shows_texts_as_they_are() {
    let text = written(Form::Html);
    assert!(text.starts_with("<!doctype html>") && text.ends_with("</html>\n"), "{text}");
    assert!(text.contains("Statement of w&lt;1&gt;") && text.contains("&lt;rent&gt;"), "{text}");
    assert!(text.contains("<td class=\"n\">&minus;1,000,000.00</td>"), "{text}");
    assert!(!text.contains("src=") && !text.contains("href="), "{text}");
}

#[test]
fn what_does_not_add_up_has_no_end() {
    let mut gap = Statement::new(heading(0));
    let found = gap.take(&events()[1]).unwrap_err();
    assert_eq!(found, Mismatch::Version { expected: 2, found: 3 });
    let mut altered = Statement::new(heading(0));
    let mut event = events().remove(0);
    event.body.after.balance += cents(1);
    assert_eq!(altered.take(&event).unwrap_err(), Mismatch::Balance { version: 2 });
    let mut other_end = Statement::new(heading(-99_999_999));
    for event in &events() {
        other_end.take(event).unwrap();
    }
    assert!(matches!(other_end.close(), Err(Mismatch::Closing { .. })));
}

#[test]
fn sums_are_in_the_currencys_scale() {
    for (code, units, shown) in
        [("USD", 150_000_000, "1.50"), ("JPY", 500_000_000, "5"), ("KWD", 1_200_000, "0.012")]
    {
        let heading = Heading { currency: Currency::parse(code).unwrap(), ..heading(0) };
        let closing = Closing { heading: &heading, totals: &[] };
        assert_eq!(closing.text(units), shown);
    }
}
