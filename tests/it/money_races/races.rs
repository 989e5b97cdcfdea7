//! What meets at once.

use std::collections::BTreeMap;

use serde_json::json;

use super::{all, app, is, numbers, on, open, place, rounds, tally};

#[tokio::test(flavor = "multi_thread")]
async fn race_01_capture_or_release() {
    let app = app().await;
    let other = app.second_instance().await;
    for round in 0..rounds() {
        let wallet = format!("w-{round}");
        open(&app, &wallet, "100", "0").await;
        let hold = place(&app, &wallet, json!({"amount": "30"})).await;
        let (captured, released) = tokio::join!(
            on(&app, &hold, "capture", json!({"amount": "30"})),
            on(&other, &hold, "release", json!({})),
        );
        match captured.status {
            201 => {
                is(&released, 409, "hold_closed");
                assert_eq!(released.json()["holdStatus"], "captured");
                assert_eq!(released.json()["closedBy"], "capture");
                assert_eq!(numbers(&app, &wallet).await, ["70.00", "0.00", "70.00"]);
            }
            _ => {
                is(&released, 201, "");
                is(&captured, 409, "hold_closed");
                assert_eq!(captured.json()["holdStatus"], "released");
                assert_eq!(numbers(&app, &wallet).await, ["100.00", "0.00", "100.00"]);
            }
        }
    }
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn race_02_a_hundred_captures_of_one_hold() {
    let app = app().await;
    open(&app, "w", "100", "0").await;
    let hold = place(&app, "w", json!({"amount": "30"})).await;
    let captures = (0..100).map(|_| on(&app, &hold, "capture", json!({"amount": "30"})));
    let expected = BTreeMap::from([("201".to_owned(), 1), ("409 hold_closed".to_owned(), 99)]);
    assert_eq!(tally(&all(captures).await), expected);
    assert_eq!(numbers(&app, "w").await, ["70.00", "0.00", "70.00"]);
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn race_03_a_hundred_captures_under_one_key() {
    let app = app().await;
    let other = app.second_instance().await;
    open(&app, "w", "100", "0").await;
    let hold = place(&app, "w", json!({"amount": "30"})).await;
    let paths = [format!("/holds/{hold}/capture"), format!("/wallets/w/holds/{hold}/capture")];
    let body = json!({"amount": "30"});
    let capture = async |n: usize| {
        let app = if n.is_multiple_of(3) { &other } else { &app };
        app.post_with_key(&paths[n % 2], "k", &body).await.unwrap()
    };
    let answers = all((0..100).map(capture)).await;
    assert_eq!(tally(&answers), BTreeMap::from([("201".to_owned(), 100)]));
    let firsts = answers.iter().filter(|a| a.header("idempotency-replayed").is_empty()).count();
    assert_eq!(firsts, 1);
    assert!(answers.iter().all(|answer| answer.text == answers[0].text));
    assert!(answers.iter().all(|a| a.header("etag") == answers[0].header("etag")));
    assert_eq!(numbers(&app, "w").await, ["70.00", "0.00", "70.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn race_23_freeze_and_capture() {
    let app = app().await;
    for round in 0..rounds() {
        let wallet = format!("w-{round}");
        open(&app, &wallet, "100", "0").await;
        let hold = place(&app, &wallet, json!({"amount": "30"})).await;
        let freeze = format!("/wallets/{wallet}/freeze");
        let (captured, frozen) = tokio::join!(
            on(&app, &hold, "capture", json!({})),
            app.post(&freeze, json!({"reason": "r"})),
        );
        is(&frozen, 201, "");
        match captured.status {
            201 => assert_eq!(numbers(&app, &wallet).await, ["70.00", "0.00", "70.00"]),
            _ => {
                is(&captured, 409, "wallet_frozen");
                assert_eq!(numbers(&app, &wallet).await, ["100.00", "30.00", "70.00"]);
            }
        }
    }
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn race_25_close_and_credit() {
    let app = app().await;
    for round in 0..rounds() {
        let wallet = format!("w-{round}");
        open(&app, &wallet, "0", "0").await;
        let (close, credit) =
            (format!("/wallets/{wallet}/close"), format!("/wallets/{wallet}/credit"));
        let (closed, credited) = tokio::join!(
            app.post(&close, json!({"reason": "r"})),
            app.post(&credit, json!({"amount": "5"})),
        );
        match closed.status {
            201 => is(&credited, 409, "wallet_closed"),
            _ => {
                is(&credited, 201, "");
                is(&closed, 409, "wallet_not_empty");
            }
        }
    }
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn race_26_close_with_a_sweep_and_debit() {
    let app = app().await;
    open(&app, "W", "0", "0").await;
    let mut swept = rust_decimal::Decimal::ZERO;
    for round in 0..rounds() {
        let wallet = format!("w-{round}");
        open(&app, &wallet, "12.34", "0").await;
        let (close, debit) =
            (format!("/wallets/{wallet}/close"), format!("/wallets/{wallet}/debit"));
        let (closed, debited) = tokio::join!(
            app.post(&close, json!({"reason": "r", "sweepTo": "W"})),
            app.post(&debit, json!({"amount": "5"})),
        );
        is(&closed, 201, "");
        swept += match debited.status {
            201 => "7.34",
            _ => {
                is(&debited, 409, "wallet_closed");
                "12.34"
            }
        }
        .parse::<rust_decimal::Decimal>()
        .unwrap();
        assert_eq!(numbers(&app, "W").await[0], swept.to_string());
        assert_eq!(numbers(&app, &wallet).await[0], "0.00");
    }
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn race_29_a_capture_and_a_transfer_the_other_way() {
    let app = app().await;
    let other = app.second_instance().await;
    open(&app, "a", "1000", "0").await;
    open(&app, "b", "1000", "0").await;
    for _ in 0..rounds() {
        let hold = place(&app, "a", json!({"amount": "3", "toWalletId": "b"})).await;
        let back = json!({"toWalletId": "a", "amount": "3"});
        let (captured, moved) = tokio::join!(
            on(&app, &hold, "capture", json!({})),
            other.post("/wallets/b/transfer", back),
        );
        is(&captured, 201, "");
        is(&moved, 201, "");
    }
    assert_eq!(numbers(&app, "a").await[0], "1000.00");
    app.drain().await;
    app.assert_reconciled();
}
