//! Ids that clients and proxies rewrite, and ids that nobody can see.

use serde_json::json;

use super::{status, tell};
use crate::support::app::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_dots_and_without_ink_are_refused() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let hidden = [
        ".",
        "..",
        "\u{200b}",
        "a\u{200d}b",
        "\u{a0}",
        "a\u{202f}b",
        "\u{2028}",
        "\u{202e}a",
        "\u{2066}a",
        "\u{3164}",
        "a\u{115f}",
        "a\u{ffa0}",
        "a\u{34f}b",
        "a\u{fe0f}",
        "a\u{e0101}",
        "a\u{e0041}",
        "\u{2800}",
        "a\u{180b}",
        "\u{feff}a",
        "a\u{7f}",
        "a\u{85}",
        "a\u{ffff}",
        " a",
        "a ",
    ];
    for id in hidden {
        for (field, body) in [
            ("/walletId", json!({"walletId": id, "ownerId": "it"})),
            ("/ownerId", json!({"walletId": "new", "ownerId": id})),
        ] {
            let refused = app.post("/wallets", body).await;
            assert_eq!((refused.status, refused.code()), (400, "invalid_id".to_owned()), "{id:?}");
            assert_eq!(refused.json()["errors"][0]["pointer"], field, "{id:?}");
        }
        let create = json!({"op": "create", "walletId": id, "ownerId": "it"});
        let bulk = app.post("/bulk", json!({"operations": [create]})).await;
        assert_eq!(bulk.json()["results"][0]["body"]["code"], "invalid_id", "{id:?}");
        // `/ledger/reference/..` would be another page, or none.
        let credit = json!({"amount": 1, "reference": id});
        let refused = app.post("/wallets/w/credit", credit).await;
        assert_eq!((refused.status, refused.code()), (400, "invalid_value".to_owned()), "{id:?}");
        assert_eq!(refused.json()["errors"][0]["pointer"], "/reference", "{id:?}");
    }
    // What any client can ask for once it escapes it is stored as sent, twins apart.
    let kept = [
        "...", "a.", ".a", "%2e", "%2E%2e", "a/b", "/", "//", "a/../b", "a/.", "\\", "a\\b", "?",
        "#", "a%2Fb", ";", "&=+", "\u{e9}", "e\u{301}", "\u{fb01}", "fi", "財布", "💰",
    ];
    for id in kept {
        let made = app.post("/wallets", json!({"walletId": id, "ownerId": id})).await;
        assert_eq!((made.status, &made.json()["id"]), (201, &json!(id)), "{}", made.text);
        let escaped: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let shown = app.get(&format!("/wallets/{escaped}")).await;
        assert_eq!((shown.status, &shown.json()["ownerId"]), (200, &json!(id)), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_dots_that_are_there_already_can_be_read_and_emptied() {
    let app = Setup::without_kafka().start().await;
    for (id, was) in [(".", "w-1"), ("..", "w-2"), ("\u{3164}", "w-3")] {
        app.open(was, "10").await;
        // As an earlier release would have opened it.
        let rename = "update wallets set id = $1 where id = $2";
        sqlx::query(rename).bind(id).bind(was).execute(&app.pool).await.unwrap();
        let escaped: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let line = format!("GET /wallets/{escaped} HTTP/1.1");
        let shown = tell(&app, &line, "Host: x\r\n").await;
        assert_eq!(status(&shown), 200, "{shown}");
        app.open(&format!("to-{was}"), "0").await;
        let transfer = json!({
            "op": "transfer", "walletId": id, "toWalletId": format!("to-{was}"), "amount": 10,
        });
        let moved = app.post("/bulk", json!({"operations": [transfer]})).await;
        assert_eq!(moved.json()["results"][0]["status"], 201, "{}", moved.text);
        let again = app.post("/wallets", json!({"walletId": id, "ownerId": "it"})).await;
        assert_eq!(again.code(), "invalid_id");
    }
    let raw = tell(&app, "GET /wallets/.. HTTP/1.1", "Host: x\r\n").await;
    assert!(status(&raw) == 200 && raw.contains("\"balance\":\"0.00\""), "{raw}");
}
