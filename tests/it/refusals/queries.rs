//! Queries, cursors and tokens that somebody made up.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::json;

use super::{assert_problem, start};
use crate::support::app::Answer;

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_make_no_sense_are_refused_and_odd_ones_match_nothing() {
    let app = start().await;
    // Positions as a cursor has them, of times and texts that Postgres does not know.
    let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let nul = encode(r#"["2026-01-01T00:00:00Z","a\u0000"]"#);
    let early = encode(r#"["-200000-01-01T00:00:00Z","a"]"#);
    let early_event =
        encode(r#"["-200000-01-01T00:00:00Z","00000000-0000-0000-0000-000000000000"]"#);
    let ledger = "/ledger/wallet/w";
    let mut refused = vec![
        (format!("/wallets?cursor={nul}"), "?cursor"),
        (format!("/wallets?cursor={early}"), "?cursor"),
        (format!("/ledger/transactions?cursor={early_event}"), "?cursor"),
        (format!("/wallets?cursor={}", encode("7")), "?cursor"),
        (format!("{ledger}?cursor={nul}"), "?cursor"),
        ("/wallets?currency=usd".to_owned(), "?currency"),
        ("/wallets?status=ACTIVE".to_owned(), "?status"),
        ("/wallets?ownerId=a%00".to_owned(), "?"),
        ("/wallets?metadata.a%00=1".to_owned(), "?"),
        ("/wallets/w/events?afterVersion=-1".to_owned(), "?afterVersion"),
        ("/wallets/w/events?afterVersion=99999999999999999999".to_owned(), "?afterVersion"),
        (format!("{ledger}?transactionType=credit"), "?transactionType"),
        (format!("{ledger}?offset=-1"), "?offset"),
        (format!("{ledger}?offset=1e3"), "?offset"),
    ];
    for limit in ["0", "-1", "1001", "1e9", "abc", "9999999999999999999999", "1.5"] {
        for path in ["/wallets", "/wallets/w/events", ledger, "/ledger/transactions"] {
            refused.push((format!("{path}?limit={limit}"), "?limit"));
        }
    }
    for date in [
        "2026-02-30",
        "9999999-01-01",
        "-9999-1-01",
        "2026-1-1",
        "yesterday",
        "2026-01-01T00:00:00",
    ] {
        refused.push((format!("{ledger}?startDate={date}"), "?startDate"));
        refused.push((format!("/ledger/transactions?endDate={date}"), "?endDate"));
    }
    for (path, pointer) in refused {
        assert_problem(&path, &app.get(&path).await, 400, "invalid_value", &[pointer]);
    }
    for path in [
        "/wallets?ownerId='%3B%20DROP%20TABLE%20wallets%3B--",
        "/wallets?metadata.a'%20or%20'1'%3D'1=x",
        "/wallets?metadata.=",
        "/wallets?ownerId=%ff",
        "/ledger/wallet/w?reference='%20or%201%3D1",
        "/ledger/wallet/w?endDate=0000-01-01",
        "/ledger/wallet/w?startDate=9999-12-31T23:59:60Z",
        "/ledger/wallet/w?startDate=2030-01-01&endDate=2020-01-01",
    ] {
        let answer = app.get(path).await;
        let (body, empty) = (answer.json(), json!([]));
        let found = if body.is_array() { &body } else { &body["transactions"] };
        assert_eq!((answer.status, found), (200, &empty), "{path}");
    }
    let nonsense = encode(r#"[["w\u0000",1],["w",9]]"#);
    for token in ["", "x", &nonsense] {
        let request = app.request(Method::GET, "/wallets").header("consistency-token", token);
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "a token that is none of ours asks for nothing");
    }
}
