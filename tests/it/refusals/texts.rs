//! Ids, texts and metadata: what cannot be kept is refused, all else is kept exactly as sent.

use serde_json::json;

use super::{CREDIT, JSON, assert_problem, effects, post, start};

#[tokio::test(flavor = "multi_thread")]
async fn ids_texts_and_metadata_that_cannot_be_kept_are_refused() {
    let app = start().await;
    let before = effects(&app).await;
    let text = |n| "ä".repeat(n);
    let create = |field: &str, value: &str| json!({"ownerId": "a", field: value});
    let credit = |field: &str, value: &str| json!({"amount": 1, field: value});
    let note = |metadata| json!({"amount": 1, "metadata": metadata});
    let cases = [
        ("/wallets", create("walletId", ""), "invalid_id", "/walletId"),
        ("/wallets", create("walletId", &text(256)), "invalid_id", "/walletId"),
        ("/wallets", create("walletId", "a\u{202e}b"), "invalid_id", "/walletId"),
        ("/wallets", create("walletId", "a\u{200b}"), "invalid_id", "/walletId"),
        ("/wallets", create("walletId", "a\tb"), "invalid_id", "/walletId"),
        ("/wallets", create("walletId", "a\0"), "invalid_value", "/walletId"),
        ("/wallets", json!({"ownerId": 7}), "invalid_value", "/ownerId"),
        ("/wallets", json!({"ownerId": null}), "missing_field", "/ownerId"),
        ("/wallets", create("currency", "US"), "invalid_currency", "/currency"),
        ("/wallets", create("currency", "XXX"), "invalid_currency", "/currency"),
        ("/wallets", create("currency", ""), "invalid_currency", "/currency"),
        (
            "/wallets/w/transfer",
            json!({"amount": 1, "toWalletId": " "}),
            "invalid_id",
            "/toWalletId",
        ),
        (CREDIT, credit("description", "a\0b"), "invalid_value", "/description"),
        (CREDIT, credit("description", &text(1025)), "invalid_value", "/description"),
        (CREDIT, credit("reference", ""), "invalid_value", "/reference"),
        (CREDIT, credit("reference", " r"), "invalid_value", "/reference"),
        (CREDIT, credit("reference", &text(256)), "invalid_value", "/reference"),
        (CREDIT, credit("reference", "a\r\nSet-Cookie: x"), "invalid_value", "/reference"),
        (CREDIT, credit("reference", "a\u{202e}b"), "invalid_value", "/reference"),
        (CREDIT, note(json!([])), "invalid_value", "/metadata"),
        (CREDIT, note(json!("x")), "invalid_value", "/metadata"),
        (CREDIT, note(json!({"a": "\0"})), "invalid_value", "/metadata"),
        (CREDIT, note(json!({"\0": 1})), "invalid_value", "/metadata"),
        (CREDIT, note(json!({"a": text(8192)})), "invalid_value", "/metadata"),
    ];
    for (path, body, code, pointer) in cases {
        let answer = post(&app, path, JSON, body.to_string().into_bytes()).await;
        assert_problem(&body.to_string(), &answer, 400, code, &[pointer]);
    }
    for (path, code) in [
        ("/wallets/a%00b", "invalid_id"),
        ("/wallets/%ff", "invalid_id"),
        ("/wallets/%20", "invalid_id"),
        ("/ledger/wallet/a%0a", "invalid_id"),
        ("/ledger/reference/a%00", "invalid_id"),
        ("/ledger/reference/%c3%28", "invalid_id"),
    ] {
        assert_problem(path, &app.get(path).await, 400, code, &["path"]);
    }
    assert_eq!(effects(&app).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_ids_and_texts_are_kept_exactly_as_sent() {
    let app = start().await;
    let longest = "ä".repeat(255);
    for id in [
        "../../etc",
        "';DROP_TABLE--",
        "財布",
        "...",
        "%2e",
        "a?b#c",
        longest.as_str(),
        "00000000-0000-0000-0000-000000000000",
        "ABCDEF00-0000-4000-8000-00000000000A",
        "W",
    ] {
        let made = app.post("/wallets", json!({"walletId": id, "ownerId": id})).await;
        assert_eq!((made.status, &made.json()["id"]), (201, &json!(id)), "{}", made.text);
        // The id alone, with everything escaped that has a meaning in a path.
        let escaped: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(app.get(&format!("/wallets/{escaped}")).await.json()["ownerId"], id);
    }
    let many: serde_json::Map<_, _> = (0..1000).map(|n| (n.to_string(), json!(n))).collect();
    for (description, reference, metadata) in [
        ("'; DROP TABLE wallets; --", "';DROP", json!({"__proto__": {"a": 1}, "constructor": 0})),
        ("\u{202e}\u{200b}\u{1b}[31mred", "\u{e9}", json!(many)),
        ("", "e\u{301}", json!({})),
    ] {
        let body = json!({
            "amount": 1, "description": description, "reference": reference, "metadata": metadata,
        });
        let answer = post(&app, CREDIT, JSON, body.to_string().into_bytes()).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        app.drain().await;
        let path: String = reference.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let found = app.get(&format!("/ledger/reference/{path}")).await.json();
        // Composed and decomposed letters are two references.
        assert_eq!(found["count"], 1, "{found}");
        let entry = &found["transactions"][0];
        assert_eq!(
            (&entry["description"], &entry["referenceId"], &entry["metadata"]),
            (&json!(description), &json!(reference), &metadata)
        );
    }
    assert!(!app.log_text().contains("\u{1b}[31mred"), "escape codes reached the log");
    app.assert_reconciled();
}
