//! The tour of the ledger routes.

use serde_json::{Value, json};

use super::{Golden, Setup, get, post, with};
use crate::support::app::App;

/// `a` has four entries and `b` one: opening balance, credit, debit, and a transfer between them.
async fn history(app: &App) {
    let body = json!({"walletId": "a", "ownerId": "ann", "initialBalance": "10"});
    post(app, "/wallets", body).await;
    post(app, "/wallets", json!({"walletId": "b", "ownerId": "ann"})).await;
    let body = json!({
        "amount": "5", "description": "tip", "reference": "ref/1 ü", "metadata": {"n": 1},
    });
    post(app, "/wallets/a/credit", body).await;
    post(app, "/wallets/a/debit", json!({"amount": "0.5"})).await;
    post(app, "/wallets/a/transfer", json!({"toWalletId": "b", "amount": "4"})).await;
    app.drain().await;
}

/// The entry of one version of `a`; its ids are named as the first page shows them.
fn entry(version: i64) -> Value {
    let (kind, amount, before, after) = [
        ("CREDIT", "10.00", "0.00", "10.00"),
        ("CREDIT", "5.00", "10.00", "15.00"),
        ("DEBIT", "0.50", "15.00", "14.50"),
        ("TRANSFER_OUT", "4.00", "14.50", "10.50"),
    ][usize::try_from(version).unwrap() - 2];
    // Fields are walked in the order of their names, newest entry first.
    let [event, id, reference] = match version {
        5 => ["#1", "#2", "#3"],
        4 => ["#4", "#5", "#6"],
        3 => ["#7", "#8", "ref/1 ü"],
        _ => ["#9", "#10", "#11"],
    };
    let base = json!({
        "id": id, "walletId": "a", "transactionType": kind, "amount": amount,
        "balanceBefore": before, "balanceAfter": after, "currency": "USD", "description": null,
        "referenceId": reference, "relatedWalletId": null, "metadata": null, "eventId": event,
        "version": version, "createdAt": "<time>",
        "direction": if kind == "CREDIT" { "CREDIT" } else { "DEBIT" },
    });
    match version {
        2 => with(base, json!({"description": "initial balance"})),
        3 => with(base, json!({"description": "tip", "metadata": {"n": 1}})),
        5 => with(base, json!({"relatedWalletId": "b"})),
        _ => base,
    }
}

/// `b`'s side of the transfer. Its time and transfer are those of `a`'s.
fn arrival() -> Value {
    let fields = json!({
        "id": "#13", "eventId": "#12", "walletId": "b", "transactionType": "TRANSFER_IN",
        "balanceBefore": "0.00", "balanceAfter": "4.00", "relatedWalletId": "a", "version": 2,
        "direction": "CREDIT",
    });
    with(entry(5), fields)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_shows_every_entry_by_wallet_reference_and_time() {
    let app = Setup::shared().start().await;
    history(&app).await;
    let mut golden = Golden::default();
    let page = golden.of(get(&app, "/ledger/wallet/a").await);
    let entries = [entry(5), entry(4), entry(3), entry(2)];
    let expected = json!({
        "walletId": "a", "count": 4, "transactions": entries, "nextCursor": null,
        "projectedVersion": 5,
    });
    assert_eq!(page, expected);
    let page = golden.of(get(&app, "/ledger/wallet/b").await);
    assert_eq!(page["transactions"], json!([arrival()]));
    let unknown = get(&app, "/ledger/wallet/nobody").await;
    let expected = json!({
        "walletId": "nobody", "count": 0, "transactions": [], "nextCursor": null,
        "projectedVersion": 0,
    });
    assert_eq!(unknown, expected);

    let summary = golden.of(get(&app, "/ledger/wallet/a/summary").await);
    let expected = json!({
        "walletId": "a", "totalCredits": "15.00", "totalDebits": "4.50", "transactionCount": 4,
        "lastTransaction": entry(5),
    });
    assert_eq!(summary, expected);
    let unknown = get(&app, "/ledger/wallet/nobody/summary").await;
    let expected = json!({
        "walletId": "nobody", "totalCredits": "0.00", "totalDebits": "0.00",
        "transactionCount": 0, "lastTransaction": null,
    });
    assert_eq!(unknown, expected);

    let found = golden.of(get(&app, "/ledger/reference/ref%2F1%20%C3%BC").await);
    let expected = json!({
        "referenceId": "ref/1 ü", "count": 1, "transactions": [entry(3)], "nextCursor": null,
    });
    assert_eq!(found, expected);
    let transfer = get(&app, "/ledger/wallet/b").await["transactions"][0]["referenceId"].clone();
    let both = get(&app, &format!("/ledger/reference/{}", transfer.as_str().unwrap())).await;
    // Both sides are of one moment: the later made event stands first.
    let expected = json!({
        "referenceId": "#3", "count": 2, "transactions": [arrival(), entry(5)],
        "nextCursor": null,
    });
    assert_eq!(golden.of(both), expected);
    let none = get(&app, "/ledger/reference/none").await;
    let expected =
        json!({"referenceId": "none", "count": 0, "transactions": [], "nextCursor": null});
    assert_eq!(none, expected);

    let all = golden.of(get(&app, "/ledger/transactions").await);
    let entries = [arrival(), entry(5), entry(4), entry(3), entry(2)];
    assert_eq!(all, json!({"count": 5, "transactions": entries, "nextCursor": null}));
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_pages_are_filtered_and_follow_on_each_other() {
    let app = Setup::without_kafka().start().await;
    history(&app).await;
    let a = get(&app, "/ledger/wallet/a").await;
    let created_at =
        |at: usize| a["transactions"][at]["createdAt"].as_str().unwrap().replace(':', "%3A");
    let (newest, oldest) = (created_at(0), created_at(3));
    let (today, day) = (&oldest[..10], chrono::Days::new(1));
    let today: chrono::NaiveDate = today.parse().unwrap();
    let tomorrow = today.checked_add_days(day).unwrap();
    let versions = async |query: &str| {
        let page = get(&app, &format!("/ledger/wallet/a?{query}")).await;
        let entries = page["transactions"].as_array().unwrap();
        assert_eq!(page["count"], entries.len());
        assert_eq!(page["projectedVersion"], 5);
        entries.iter().map(|entry| entry["version"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    for (query, expected) in [
        ("transactionType=CREDIT".to_owned(), vec![3, 2]),
        ("transactionType=DEBIT".to_owned(), vec![4]),
        ("transactionType=TRANSFER_OUT".to_owned(), vec![5]),
        ("transactionType=TRANSFER_IN".to_owned(), vec![]),
        ("reference=ref%2F1%20%C3%BC".to_owned(), vec![3]),
        ("limit=2".to_owned(), vec![5, 4]),
        ("limit=2&offset=1".to_owned(), vec![4, 3]),
        ("offset=4".to_owned(), vec![]),
        (format!("startDate={oldest}&endDate={newest}"), vec![5, 4, 3, 2]),
        (format!("startDate={newest}&transactionType=TRANSFER_OUT"), vec![5]),
        (format!("endDate={oldest}&reference=none"), vec![]),
        (format!("startDate={today}&endDate={tomorrow}"), vec![5, 4, 3, 2]),
        (format!("endDate={}", today.checked_sub_days(day).unwrap()), vec![]),
        (format!("startDate={}", tomorrow.checked_add_days(day).unwrap()), vec![]),
    ] {
        assert_eq!(versions(&query).await, expected, "{query}");
    }
    for (path, expected) in
        [("/ledger/wallet/a", "a5 a4 a3 a2"), ("/ledger/transactions", "b2 a5 a4 a3 a2")]
    {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = get(&app, &format!("{path}?limit=2{cursor}")).await;
            for entry in page["transactions"].as_array().unwrap() {
                seen.push(format!("{}{}", entry["walletId"].as_str().unwrap(), entry["version"]));
            }
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen.join(" "), expected);
    }
}
