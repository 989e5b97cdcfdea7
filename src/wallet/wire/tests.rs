//! The data of events: to the byte, and read back.

use chrono::{DateTime, TimeDelta};

use super::*;
use crate::wallet::{
    Booking, CounterAccount, HoldStatus, Limits, Metadata, Slice, Status, WalletState,
};

fn facts(form: Form) -> Facts {
    let cents = |n| Decimal::new(n, 2);
    let slice = Slice { grant_id: Uuid::from_u128(5), amount: cents(100) };
    let taken = |status, to: Option<&str>| {
        Box::new(HoldTaken {
            hold_id: Uuid::from_u128(9),
            captured_total: cents(300),
            released: cents(200),
            remaining: cents(0),
            status,
            to: to.map(WalletId::stored),
        })
    };
    match form {
        Form::Creation => {
            Facts::Creation { owner_id: "ann".to_owned(), overdraft_limit: Decimal::ONE }
        }
        Form::Balance => Facts::Balance,
        Form::Transfer => Facts::Transfer { other: WalletId::stored("b") },
        Form::Hold => Facts::Hold(Box::new(HoldTerms {
            hold_id: Uuid::from_u128(9),
            amount: cents(500),
            previous_amount: Some(cents(400)),
            max_capture: cents(600),
            expires_at: DateTime::UNIX_EPOCH + TimeDelta::milliseconds(7),
            to: Some(WalletId::stored("b")),
            reserved: vec![slice],
        })),
        Form::Capture => Facts::Capture(taken(HoldStatus::Captured, Some("b"))),
        Form::Release => Facts::Release(taken(HoldStatus::Released, None)),
        Form::Expiry => Facts::Expiry(taken(HoldStatus::Expired, None)),
        Form::Status => Facts::Status { previous: Status::Frozen, actor: Some("ann".to_owned()) },
        Form::Limits => Facts::Limits(Box::new(LimitsChange {
            previous: Limits { overdraft_limit: cents(0) },
            new: Limits { overdraft_limit: cents(2000) },
        })),
        Form::Metadata => Facts::Metadata,
    }
}

fn body(kind: EventType, after: WalletState) -> EventBody {
    EventBody {
        kind,
        facts: facts(kind.form()),
        change: Change {
            previous_balance: Decimal::new(10_000, 2),
            amount: Decimal::new(250, 2),
            direction: ChangeType::Credit,
        },
        after,
        currency: Currency::USD,
        reason: Some("rent \"may\"".to_owned()),
        reference: None,
        metadata: Metadata::parse(r#"{"n":1.10}"#).ok(),
        booking: Booking::default(),
    }
}

fn plain() -> WalletState {
    WalletState {
        balance: Decimal::new(10_250, 2),
        held_balance: Decimal::new(0, 2),
        available_balance: None,
        status: Status::Active,
    }
}

fn written(body: &EventBody) -> String {
    body.to_data(&WalletId::stored("a"), Uuid::nil()).unwrap()
}

/// Pinned to the byte: consumers and stored events know this form.
#[test]
fn a_credit_is_written_as_it_always_was() {
    assert_eq!(
        written(&body(EventType::WalletCredited, plain())),
        r#"{"transactionId":"00000000-0000-0000-0000-000000000000","previousBalance":"100.00","newBalance":"102.50","changeAmount":"2.50","changeType":"CREDIT","reason":"rent \"may\"","currency":"USD","reference":null,"metadata":{"n":1.10}}"#
    );
    let out = written(&body(EventType::WalletTransferInitiated, plain()));
    assert!(out.contains(r#""fromWalletId":"a","toWalletId":"b""#), "{out}");
    let into = written(&body(EventType::WalletTransferCompleted, plain()));
    assert!(into.contains(r#""fromWalletId":"b","toWalletId":"a""#), "{into}");
}

#[test]
fn what_is_written_is_read_back_whatever_state_it_left() {
    let held = WalletState {
        held_balance: Decimal::new(3_000, 2),
        available_balance: Some(Decimal::new(9_250, 2)),
        status: Status::Frozen,
        ..plain()
    };
    for after in [plain(), held] {
        for kind in EventType::ALL {
            let mut event = body(*kind, after);
            if kind.form() == Form::Creation {
                event.reference = None;
            }
            let is_old = matches!(kind.form(), Form::Creation | Form::Balance | Form::Transfer);
            if !is_old {
                // These always say what is available.
                event.after.available_balance = after.available_balance.or(Some(after.balance));
            }
            let read =
                EventBody::from_data(kind.as_str(), SCHEMA_VERSION, &written(&event)).unwrap();
            assert_eq!(read, event);
            assert_eq!(read.after.overdraft_limit(), event.after.overdraft_limit());
        }
    }
    assert_eq!(held.overdraft_limit(), Some(Decimal::new(2_000, 2)));
}

#[test]
fn what_cannot_be_known_is_refused_by_name() {
    let data = written(&body(EventType::WalletCredited, plain()));
    let read = |name: &str, version, data: &str| {
        EventBody::from_data(name, version, data).map_err(|error| error.to_string())
    };
    assert!(read("WalletCredited", SCHEMA_VERSION, &data).is_ok());
    let newer = read("WalletCredited", SCHEMA_VERSION + 1, &data).unwrap_err();
    assert_eq!(newer, "schema version 2 is not yet known");
    assert_eq!(read("WalletFrozen", 1, &data).unwrap_err(), "unknown event type WalletFrozen");
    let strange = data.replace("USD", "XXX");
    assert_eq!(read("WalletCredited", 1, &strange).unwrap_err(), "unknown currency XXX");
    assert!(read("WalletCredited", 1, "{}").unwrap_err().contains("missing field"));
}

#[test]
fn how_an_event_is_booked_is_read_back_and_says_nothing_where_it_is_as_ever() {
    let plain_event = body(EventType::WalletDebited, plain());
    for word in ["drawn", "counterAccount", "effectiveAt"] {
        assert!(!written(&plain_event).contains(word), "{word}");
    }
    let drawn = vec![Slice { grant_id: Uuid::from_u128(5), amount: Decimal::new(150, 2) }];
    let effective_at = Some(DateTime::UNIX_EPOCH + TimeDelta::milliseconds(7));
    let counter_account = Some(CounterAccount::Receivables);
    let booking = Booking { drawn, counter_account, effective_at };
    let event = EventBody { booking, ..plain_event };
    let text = written(&event);
    assert!(text.contains(r#""effectiveAt":"1970-01-01T00:00:00.007Z""#), "{text}");
    assert!(text.contains(r#""counterAccount":"receivables""#), "{text}");
    assert_eq!(EventBody::from_data("WalletDebited", SCHEMA_VERSION, &text).unwrap(), event);
}
