//! Headers and queries as RFC 9110 has them, whichever client writes them.

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{ask, connect, status, tell};
use crate::support::app::{Answer, App, Setup};

const CREDIT: &str = "/wallets/w/credit";

async fn send(app: &App, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    let request = app.request(method.clone(), path).headers(map);
    let request = if method == Method::POST { request.body(r#"{"amount":"1"}"#) } else { request };
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn http_manners_of_content_types_and_codings() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let json = ("content-type", "application/json");
    for headers in [
        vec![("content-type", "application/json; charset=utf8")],
        vec![("content-type", "application/json;charset=UTF-8")],
        vec![("content-type", "application/json; Charset=\"utf-8\"")],
        vec![("content-type", "Application/JSON ; charset=Utf8; profile=x")],
        vec![("content-type", "application/json; charset=us-ascii")],
        vec![json, ("content-encoding", "identity")],
        vec![json, ("content-encoding", "Identity")],
        vec![json, ("content-encoding", "")],
        vec![json, ("accept", "text/turtle")],
    ] {
        let answer = send(&app, Method::POST, CREDIT, &headers).await;
        assert_eq!(answer.status, 201, "{headers:?} {}", answer.text);
    }
    for headers in [
        vec![("content-type", "application/json; charset=utf-16")],
        vec![("content-type", "text/json")],
        vec![json, ("content-type", "text/plain")],
        vec![json, ("content-encoding", "gzip")],
        vec![json, ("content-encoding", "identity, gzip")],
        vec![json, ("content-encoding", "identity"), ("content-encoding", "br")],
    ] {
        let answer = send(&app, Method::POST, CREDIT, &headers).await;
        assert_eq!(answer.status, 415, "{headers:?}");
    }
    assert_eq!(app.get("/wallets/w").await.json()["version"], 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_manners_of_preconditions() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let json = ("content-type", "application/json");
    // The wallet is at version 2; each success makes the next.
    for (tags, expected) in [
        (vec!["\"2\""], 201),
        (vec!["\"9\", \"3\""], 201),
        (vec!["\"9\"", "\"4\""], 201),
        (vec![",\"a,b\" ,, W/\"1\",\"5\","], 201),
        (vec!["*"], 201),
        (vec!["W/\"7\""], 412),
        (vec!["W/\"7\", \"6\""], 412),
        (vec!["\"seven\""], 412),
        (vec!["\"7.0\""], 412),
        (vec!["\"\""], 412),
        (vec!["7"], 400),
        (vec!["\"7"], 400),
        (vec!["\"7\" \"8\""], 400),
        (vec![""], 400),
    ] {
        let mut headers = vec![json];
        headers.extend(tags.iter().map(|tag| ("if-match", *tag)));
        let answer = send(&app, Method::POST, CREDIT, &headers).await;
        assert_eq!(answer.status, expected, "{tags:?} {}", answer.text);
        if expected == 412 {
            assert_eq!(answer.code(), "version_mismatch");
        }
    }
    for (tags, expected) in [
        (vec!["\"7\""], 304),
        (vec!["W/\"7\""], 304),
        (vec!["\"a,b\", W/\"7\""], 304),
        (vec!["\"6\"", "\"7\""], 304),
        (vec!["*"], 304),
        (vec!["\"6\", W/\"8\""], 200),
        (vec!["7"], 200),
    ] {
        let headers: Vec<_> = tags.iter().map(|tag| ("if-none-match", *tag)).collect();
        let answer = send(&app, Method::GET, "/wallets/w", &headers).await;
        assert_eq!((answer.status, answer.header("etag")), (expected, "\"7\""), "{tags:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_manners_of_methods_and_expectations() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let head = send(&app, Method::HEAD, "/wallets/w", &[]).await;
    assert_eq!((head.status, head.text.as_str(), head.header("etag")), (200, "", "\"2\""));
    assert_ne!(head.header("content-length"), "0");
    for (path, allow) in [("/wallets", "GET,HEAD,POST"), (CREDIT, "POST"), ("/", "GET,HEAD")] {
        for (method, expected) in [(Method::OPTIONS, 204), (Method::DELETE, 405)] {
            let answer = send(&app, method, path, &[("origin", "http://evil.example")]).await;
            let mut allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
            allowed.sort_unstable();
            assert_eq!((answer.status, allowed.join(",").as_str()), (expected, allow), "{path}");
            assert!(!answer.headers.contains_key("access-control-allow-origin"));
        }
    }
    assert_eq!(send(&app, Method::OPTIONS, "/nowhere", &[]).await.status, 404);
    let star = tell(&app, "OPTIONS * HTTP/1.1", "Host: x\r\n").await;
    assert!(status(&star) == 204 && star.contains("allow: GET,HEAD,POST"), "{star}");
    let lower = tell(&app, "get /wallets/w HTTP/1.1", "Host: x\r\n").await;
    assert!(status(&lower) == 405 && lower.contains("upper case"), "{lower}");

    let mut stream = connect(&app).await;
    let head = "POST /wallets/w/credit HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 14\r\nexpect: 100-Continue\r\n\r\n";
    let answer = ask(&mut stream, head).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(status(&ask(&mut stream, "{\"amount\":\"1\"}").await.unwrap()), 201);
    // Of HTTP/1.0, which knows no interim answers, none is sent.
    stream = connect(&app).await;
    let old = head.replace("HTTP/1.1", "HTTP/1.0") + "{\"amount\":\"1\"}";
    stream.write_all(old.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(status(&said), 201, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_manners_of_a_plus_in_a_query() {
    let app = Setup::without_kafka().start().await;
    for path in ["/ledger/transactions", "/ledger/wallet/w"] {
        for name in ["startDate", "endDate"] {
            let query = format!("{path}?{name}=2026-01-31T12:00:00");
            let refused = app.get(&format!("{query}+02:00")).await;
            assert_eq!((refused.status, refused.code()), (400, "invalid_value".to_owned()));
            let detail = refused.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("2026-01-31T12:00:00%2B02:00"), "{detail}");
            assert_eq!(app.get(&format!("{query}%2B02:00")).await.status, 200);
            assert_eq!(app.get(&format!("{query}-02:00")).await.status, 200);
            // What would be no time with a + either is told the rule.
            let refused = app.get(&format!("{query}+2")).await.text;
            assert!(refused.contains("such as 2026-01-31"), "{refused}");
        }
    }
}
