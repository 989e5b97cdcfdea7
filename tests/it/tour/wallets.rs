//! The tour of the wallet routes.

use reqwest::Method;
use serde_json::json;

use super::{Golden, Setup, get, post, wallet, with};
use crate::support::app::Answer;

#[tokio::test(flavor = "multi_thread")]
async fn commands_answer_with_the_wallets_they_leave() {
    let app = Setup::without_kafka().start().await;
    let mut golden = Golden::default();

    let made = post(&app, "/wallets", json!({"ownerId": "ann"})).await;
    assert_eq!(made.header("etag"), "\"1\"");
    assert_eq!(golden.of(made.json()), wallet("#1", "USD", "0.00", 1));

    let body = json!({
        "walletId": "w", "ownerId": "ann", "initialBalance": "100", "overdraftLimit": 20,
        "currency": "USD", "metadata": {"tier": "gold", "n": 12_345_678_901_234_567_890_u64},
    });
    let opened = post(&app, "/wallets", body).await;
    assert_eq!(opened.header("etag"), "\"2\"");
    let w = with(
        wallet("w", "USD", "100.00", 2),
        json!({
            "availableBalance": "120.00", "overdraftLimit": "20.00",
            "metadata": {"tier": "gold", "n": 12_345_678_901_234_567_890_u64},
        }),
    );
    assert_eq!(golden.of(opened.json()), w);

    let body = json!({"ownerId": "ann", "walletId": "yen", "currency": "JPY", "initialBalance": 7});
    let yen = post(&app, "/wallets", body).await;
    assert_eq!(golden.of(yen.json()), wallet("yen", "JPY", "7", 2));
    let body = json!({"ownerId": "ann", "walletId": "v", "initialBalance": "0.00"});
    let zero = post(&app, "/wallets", body).await;
    assert_eq!(golden.of(zero.json()), wallet("v", "USD", "0.00", 1), "0 is no opening balance");

    let body = json!({"amount": 0.10, "description": "tip", "reference": "r 1", "metadata": {}});
    let credited = post(&app, "/wallets/w/credit", body).await;
    assert_eq!(credited.header("etag"), "\"3\"");
    let fields = json!({
        "balance": "100.10", "availableBalance": "120.10", "version": 3, "transactionId": "#2",
    });
    assert_eq!(golden.of(credited.json()), with(w.clone(), fields));

    let debited = post(&app, "/wallets/w/debit", json!({"amount": "110.10"})).await;
    assert_eq!(debited.header("etag"), "\"4\"");
    let fields = json!({
        "balance": "-10.00", "availableBalance": "10.00", "version": 4, "transactionId": "#3",
    });
    assert_eq!(golden.of(debited.json()), with(w.clone(), fields));

    let body = json!({"toWalletId": "v", "amount": "2.5", "description": "half"});
    let moved = post(&app, "/wallets/w/transfer", body).await;
    assert!(moved.headers.get("etag").is_none(), "a transfer speaks of two versions");
    let w = with(w, json!({"balance": "-12.50", "availableBalance": "7.50", "version": 5}));
    let v = wallet("v", "USD", "2.50", 2);
    let expected = json!({"transferId": "#4", "fromWallet": w, "toWallet": v});
    assert_eq!(golden.of(moved.json()), expected);

    assert_eq!(golden.of(get(&app, "/wallets/w").await), w);
    // A number is read from its token: a float would have made …99.25 or …99.375 of it.
    let request = app.request(Method::POST, "/wallets/v/credit");
    let request = request.header("content-type", "application/json");
    let exact = request.body(r#"{"amount": 900719925474099.31}"#).send().await.unwrap();
    assert_eq!(Answer::of(exact).await.json()["balance"], "900719925474101.81");
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_read_with_its_version_and_its_events() {
    let app = Setup::without_kafka().start().await;
    let mut golden = Golden::default();
    let body = json!({"walletId": "Ä/ö %", "ownerId": "ann", "metadata": {"tier": "gold"}});
    assert_eq!(app.post("/wallets", body).await.status, 400, "a space is not visible");
    let body = json!({
        "walletId": "Ä/ö%", "ownerId": "ann", "initialBalance": "3", "metadata": {"tier": "gold"},
    });
    post(&app, "/wallets", body).await;
    post(&app, "/wallets", json!({"walletId": "v", "ownerId": "ann"})).await;
    let path = "/wallets/%C3%84%2F%C3%B6%25";
    let body = json!({"toWalletId": "v", "amount": 1, "reference": "r", "metadata": {"a": [1]}});
    post(&app, &format!("{path}/transfer"), body).await;
    post(&app, &format!("{path}/debit"), json!({"amount": "0.01", "description": "fee"})).await;

    let shown = app.get(path).await;
    assert_eq!(shown.header("etag"), "\"4\"");
    let fields = json!({"metadata": {"tier": "gold"}});
    assert_eq!(golden.of(shown.json()), with(wallet("Ä/ö%", "USD", "1.99", 4), fields));
    for (tag, status) in
        [("\"4\"", 304), ("\"3\"", 200), ("W/\"4\"", 304), ("\"1\", \"4\"", 304), ("*", 304)]
    {
        let request = app.request(Method::GET, path).header("if-none-match", tag);
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!((answer.status, answer.text.is_empty()), (status, status == 304), "{tag}");
        assert_eq!(answer.header("etag"), "\"4\"");
    }
    let head = app.request(Method::HEAD, path).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.text().await.unwrap()), (200, String::new()));

    let envelope = |version: i64, event_type: &str, data| {
        json!({
            "eventId": format!("#{}", 2 * version - i64::from(version > 1)),
            "eventType": event_type, "aggregateType": "Wallet", "aggregateId": "Ä/ö%",
            "aggregateVersion": version, "schemaVersion": 1, "tenantId": "default",
            "timestamp": "<time>", "correlationId": "tour", "causationId": "first-steps",
            "data": data,
        })
    };
    let change = |id: &str, from: &str, to: &str, by: &str, kind: &str| {
        json!({
            "transactionId": id, "previousBalance": from, "newBalance": to, "changeAmount": by,
            "changeType": kind, "reason": null, "currency": "USD", "reference": null,
            "metadata": null,
        })
    };
    let mut created = with(
        change("#1", "0.00", "0.00", "0.00", "CREDIT"),
        json!({
            "ownerId": "ann", "overdraftLimit": "0.00", "reason": "wallet created",
            "metadata": {"tier": "gold"},
        }),
    );
    created.as_object_mut().unwrap().remove("reference");
    let opening = json!({"reason": "initial balance"});
    let opening = with(change("#1", "0.00", "3.00", "3.00", "CREDIT"), opening);
    let mut out = with(
        change("", "3.00", "2.00", "1.00", "DEBIT"),
        json!({
            "transferId": "#4", "fromWalletId": "Ä/ö%", "toWalletId": "v", "reference": "r",
            "metadata": {"a": [1]},
        }),
    );
    out.as_object_mut().unwrap().remove("transactionId");
    let fee = with(change("#6", "2.00", "1.99", "0.01", "DEBIT"), json!({"reason": "fee"}));
    let events = [
        envelope(1, "WalletCreated", created),
        envelope(2, "WalletCredited", opening),
        envelope(3, "WalletTransferInitiated", out),
        envelope(4, "WalletDebited", fee),
    ];
    let all = golden.of(get(&app, &format!("{path}/events")).await);
    assert_eq!(all, json!({"events": events, "nextAfterVersion": 4}));
    let page = golden.of(get(&app, &format!("{path}/events?afterVersion=1&limit=2")).await);
    assert_eq!(page, json!({"events": events[1..3], "nextAfterVersion": 3}));
    let end = get(&app, &format!("{path}/events?afterVersion=4")).await;
    assert_eq!(end, json!({"events": [], "nextAfterVersion": 4}));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_paged_newest_first() {
    let app = Setup::without_kafka().start().await;
    let mut token = String::new();
    for (id, owner, currency, tier) in [
        ("a", "ann", "USD", "gold"),
        ("b", "bob", "USD", "gold"),
        ("c", "ann", "JPY", "iron"),
        ("d", "ann", "USD", "gold"),
        ("e", "bob", "USD", "iron"),
    ] {
        let metadata = json!({"tier": tier, "level": 3});
        let body =
            json!({"walletId": id, "ownerId": owner, "currency": currency, "metadata": metadata});
        token = post(&app, "/wallets", body).await.header("consistency-token").to_owned();
    }
    let list = async |query: &str| {
        let request = app.request(Method::GET, &format!("/wallets{query}"));
        let answer = request.header("consistency-token", &token).send().await.unwrap();
        let answer = Answer::of(answer).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let wallets = answer.json();
        let ids = wallets.as_array().unwrap().iter().map(|w| w["id"].as_str().unwrap().to_owned());
        let link = answer.header("link").to_owned();
        (ids.collect::<String>(), link, wallets)
    };
    let (ids, link, wallets) = list("").await;
    assert_eq!((ids.as_str(), link.as_str()), ("edcba", ""));
    let fields = json!({"metadata": {"tier": "gold", "level": 3}});
    let newest_gold = Golden::default().of(wallets[1].clone());
    assert_eq!(newest_gold, with(wallet("d", "USD", "0.00", 1), fields));
    for (query, expected) in [
        ("?ownerId=ann", "dca"),
        ("?currency=JPY", "c"),
        ("?status=active", "edcba"),
        ("?status=frozen", ""),
        ("?metadata.tier=iron", "ec"),
        ("?metadata.level=3&ownerId=bob", "eb"),
        ("?metadata.tier=gold&ownerId=ann&currency=USD", "da"),
        ("?ownerId=nobody&unknown=1", ""),
        ("?ownerId=&limit=2", "ed"),
    ] {
        assert_eq!(list(query).await.0, expected, "{query}");
    }
    let (mut seen, mut next) = (String::new(), "/wallets?ownerId=ann&limit=2".to_owned());
    while !next.is_empty() {
        let (ids, link, _) = list(next.strip_prefix("/wallets").unwrap()).await;
        seen += &ids;
        let target = link.strip_suffix(">; rel=\"next\"").unwrap_or("");
        next = target.strip_prefix('<').unwrap_or("").to_owned();
    }
    assert_eq!(seen, "dca");
}
