//! Pages: of entries, and of a browser.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Setup};

/// All pages of a list of entries.
async fn walk(app: &App, path: &str) -> Vec<Value> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = app.get(&format!("{path}{cursor}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let page = answer.json();
        assert_eq!(page["count"], page["transactions"].as_array().unwrap().len());
        let next = page["nextCursor"].as_str().map(|next| format!("&cursor={next}"));
        pages.push(page);
        assert!(pages.len() < 20, "no end");
        let Some(next) = next else { return pages };
        cursor = next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_under_a_reference_are_paged_to_the_last() {
    let app = Setup::without_kafka().start().await;
    app.open("a", "1000").await;
    app.open("b", "0").await;
    // 60 transfers, of two entries each; those of one transfer have one time.
    let order = json!({
        "op": "transfer", "walletId": "a", "toWalletId": "b", "amount": 1, "reference": "r / 1",
    });
    let stranger = json!({"op": "credit", "walletId": "b", "amount": 1, "reference": "r"});
    let operations: Vec<Value> = (0..60).flat_map(|_| [order.clone(), stranger.clone()]).collect();
    let bulk = app.post("/bulk", json!({"operations": operations})).await;
    assert_eq!(bulk.status, 201, "{}", bulk.text);
    app.drain().await;

    let path = "/ledger/reference/r%20%2F%201?";
    for (limit, sizes) in [
        ("", vec![50, 50, 20]),
        ("limit=7", [[7; 17].to_vec(), vec![1]].concat()),
        ("limit=60", vec![60, 60, 0]),
        ("limit=1000", vec![120]),
    ] {
        let pages = walk(&app, &format!("{path}{limit}")).await;
        let counts: Vec<u64> = pages.iter().map(|page| page["count"].as_u64().unwrap()).collect();
        assert_eq!(counts, sizes, "{limit}");
        assert!(pages.iter().all(|page| page["referenceId"] == "r / 1"));
        let entries: Vec<&Value> =
            pages.iter().flat_map(|page| page["transactions"].as_array().unwrap()).collect();
        let ids: HashSet<&str> =
            entries.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
        assert_eq!((entries.len(), ids.len()), (120, 120), "each once");
        let times: Vec<&str> =
            entries.iter().map(|entry| entry["createdAt"].as_str().unwrap()).collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "newest first");
    }
    // What comes in between moves no page.
    let first = app.get(&format!("{path}limit=100")).await.json();
    app.post("/bulk", json!({"operations": [order]})).await;
    app.drain().await;
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = app.get(&format!("{path}limit=100&cursor={cursor}")).await.json();
    assert_eq!((&second["count"], &second["nextCursor"]), (&json!(20), &Value::Null));
    let refused = app.get(&format!("{path}cursor=x")).await;
    assert_eq!((refused.status, refused.code()), (400, "invalid_value".to_owned()));
    let none = app.get("/ledger/reference/none").await.json();
    assert_eq!((&none["count"], &none["nextCursor"]), (&json!(0), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_at_the_port_finds_its_way() {
    let app = Setup::without_kafka().start().await;
    let page = app.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    let links: Vec<&str> = page.text.split("href=\"").skip(1).collect();
    let mut links: Vec<&str> = links.iter().map(|rest| rest.split('"').next().unwrap()).collect();
    links.retain(|link| *link != "data:,");
    for wanted in ["docs", "openapi.json", "asyncapi.json", "api/health", "metrics"] {
        assert!(links.contains(&wanted), "{links:?}");
    }
    for link in links {
        // Relative, so that it holds below a proxy's prefix, too.
        assert!(!link.starts_with('/') && !link.contains("//"), "{link}");
        assert_eq!(app.get(&format!("/{link}")).await.status, 200, "{link}");
    }
    let style = app.get("/docs/home.css").await;
    assert!(style.text.contains("prefers-color-scheme: dark"));
    for text in [&page.text, &style.text] {
        assert!(!text.contains("http:") && !text.contains("https:"), "another host: {text}");
    }
    let head = Answer::of(app.request(Method::HEAD, "/").send().await.unwrap()).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    let icon = app.get("/favicon.ico").await;
    assert_eq!((icon.status, icon.text.as_str()), (204, ""));
    assert!(icon.header("cache-control").contains("max-age"));
}
