//! What a wallet's status and limits allow.

use serde_json::json;

use super::{app, is, numbers, on, open, place};

#[tokio::test(flavor = "multi_thread")]
async fn race_19_a_limit_that_is_in_use() {
    let app = app().await;
    open(&app, "w", "10", "20").await;
    is(&app.post("/wallets/w/debit", json!({"amount": "30"})).await, 201, "");
    let lowered =
        app.post("/wallets/w/limits", json!({"overdraftLimit": "19.99", "reason": "r"})).await;
    is(&lowered, 409, "limit_in_use");
    assert_eq!(lowered.json()["used"], "20.00");
    is(
        &app.post("/wallets/w/limits", json!({"overdraftLimit": "20", "reason": "r"})).await,
        201,
        "",
    );
    is(
        &app.post("/wallets/w/limits", json!({"overdraftLimit": "0.001", "reason": "r"})).await,
        400,
        "amount_scale",
    );
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn race_21_and_22_frozen_and_suspended() {
    let app = app().await;
    open(&app, "w", "100", "0").await;
    let [one, two, three] = [
        place(&app, "w", json!({"amount": "10"})).await,
        place(&app, "w", json!({"amount": "10"})).await,
        place(&app, "w", json!({"amount": "10"})).await,
    ];
    is(&app.post("/wallets/w/freeze", json!({"reason": "r"})).await, 201, "");
    is(&app.post("/wallets/w/freeze", json!({"reason": "r"})).await, 409, "status_unchanged");
    is(&on(&app, &one, "capture", json!({})).await, 409, "wallet_frozen");
    is(&on(&app, &one, "release", json!({})).await, 201, "");
    is(&app.post("/wallets/w/credit", json!({"amount": "1"})).await, 409, "wallet_frozen");
    is(&app.post("/wallets/w/suspend", json!({"reason": "r"})).await, 201, "");
    is(&on(&app, &two, "capture", json!({})).await, 201, "");
    is(&app.post("/wallets/w/holds", json!({"amount": "1"})).await, 409, "wallet_suspended");
    is(&app.post("/wallets/w/debit", json!({"amount": "1"})).await, 409, "wallet_suspended");
    is(&app.post("/wallets/w/credit", json!({"amount": "1"})).await, 201, "");
    is(&app.post("/wallets/w/activate", json!({"reason": "r"})).await, 201, "");
    is(&on(&app, &three, "adjust", json!({"amount": "20"})).await, 201, "");
    is(&app.post("/wallets/w/activate", json!({})).await, 400, "missing_field");
    assert_eq!(numbers(&app, "w").await, ["91.00", "20.00", "71.00"]);
    app.drain().await;
    assert_eq!(app.get("/wallets?status=active").await.json()[0]["id"], "w");
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn race_24_and_27_what_keeps_a_wallet_open() {
    let app = app().await;
    open(&app, "w", "10", "20").await;
    open(&app, "other", "0", "0").await;
    let yen = json!({"walletId": "yen", "ownerId": "o", "currency": "JPY"});
    is(&app.post("/wallets", yen).await, 201, "");
    let close = async |body| app.post("/wallets/w/close", body).await;
    let hold = place(&app, "w", json!({"amount": "10"})).await;
    is(&close(json!({"reason": "r", "sweepTo": "other"})).await, 409, "wallet_has_holds");
    is(&on(&app, &hold, "release", json!({})).await, 201, "");
    is(&close(json!({"reason": "r"})).await, 409, "wallet_not_empty");
    is(&close(json!({"reason": "r", "sweepTo": "yen"})).await, 400, "currency_mismatch");
    is(&close(json!({"reason": "r", "sweepTo": "w"})).await, 400, "same_wallet");
    is(&app.post("/wallets/w/debit", json!({"amount": "10"})).await, 201, "");
    // Wrong, also where nothing is left to be swept.
    is(&close(json!({"reason": "r", "sweepTo": "yen"})).await, 400, "currency_mismatch");
    is(&close(json!({"reason": "r", "sweepTo": "none"})).await, 404, "wallet_not_found");
    is(&app.post("/wallets/w/debit", json!({"amount": "1"})).await, 201, "");
    is(&close(json!({"reason": "r", "sweepTo": "other"})).await, 409, "wallet_not_empty");
    is(&app.post("/wallets/w/credit", json!({"amount": "3"})).await, 201, "");
    let closed = close(json!({"reason": "r", "sweepTo": "other"})).await;
    is(&closed, 201, "");
    assert_eq!(
        (&closed.json()["status"], &closed.json()["balance"]),
        (&json!("closed"), &json!("0.00"))
    );
    assert_eq!(numbers(&app, "other").await[0], "2.00");
    for path in ["credit", "debit"] {
        is(
            &app.post(&format!("/wallets/w/{path}"), json!({"amount": "1"})).await,
            409,
            "wallet_closed",
        );
    }
    is(&close(json!({"reason": "r"})).await, 409, "wallet_closed");
    is(&app.post("/wallets/w/activate", json!({"reason": "r"})).await, 409, "wallet_closed");
    app.drain().await;
    app.assert_reconciled();
}
