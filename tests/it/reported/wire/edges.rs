//! Requests at the edge of HTTP/1.1: refused by a document that says why.

use tokio::io::AsyncReadExt as _;

use super::{ask, connect, exchange, get, status, tell};
use crate::support::app::Setup;

/// The problem's code in an answer read off the wire.
fn code(answer: &str) -> &str {
    answer.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_by_a_problem_document() {
    let app = Setup::without_kafka().start().await;
    let host = "Host: x\r\n";
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long = "x".repeat(20_000);
    for (line, headers, expected) in [
        ("GET /wallets", host.to_owned(), (400, "malformed_request")),
        ("GET /wallets HTTP/9.9", host.to_owned(), (400, "malformed_request")),
        ("GET /a b HTTP/1.1", host.to_owned(), (400, "malformed_request")),
        ("GET /livez HTTP/1.1", format!("{host}X : 1\r\n"), (400, "malformed_request")),
        ("\u{16}\u{3}\u{1}\u{2} TLS", String::new(), (400, "malformed_request")),
        ("GET /livez HTTP/1.1", format!("{host}{many}"), (431, "headers_too_large")),
        ("GET /livez HTTP/1.1", format!("{host}X: {long}\r\n"), (431, "headers_too_large")),
        (&format!("GET /wallets?cursor={long} HTTP/1.1"), host.to_owned(), (414, "uri_too_long")),
        (&format!("GET /{} HTTP/1.1", "x".repeat(100_000)), host.to_owned(), (414, "uri_too_long")),
        // Of whom, where two are named or none?
        ("GET /livez HTTP/1.1", String::new(), (400, "malformed_request")),
        ("GET /livez HTTP/1.1", "Host: x\r\nHost: y\r\n".to_owned(), (400, "malformed_request")),
        ("GET /livez HTTP/1.1", "Host: a b\r\n".to_owned(), (400, "malformed_request")),
        ("GET /livez HTTP/1.1", "Host: user@x\r\n".to_owned(), (400, "malformed_request")),
        ("GET /livez/ HTTP/1.1", host.to_owned(), (404, "route_not_found")),
        ("GET //livez HTTP/1.1", host.to_owned(), (404, "route_not_found")),
    ] {
        let answer = tell(&app, line, &headers).await;
        let shown: String = answer.chars().take(800).collect();
        assert_eq!((status(&answer), code(&answer)), expected, "{shown}");
        assert_eq!(answer.matches("HTTP/1.1 4").count(), 1, "one answer: {shown}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        for wanted in [
            "content-type: application/problem+json",
            "connection: close",
            "x-request-id: ",
            "date: ",
        ] {
            assert!(head.contains(wanted), "{shown}");
        }
        let document: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(document["requestId"].as_str().is_some_and(|id| head.contains(id)), "{shown}");
    }
    let slash = tell(&app, "GET /wallets/ HTTP/1.1", host).await;
    assert!(slash.contains("without a slash"), "{slash}");
    let double = tell(&app, "GET //wallets HTTP/1.1", host).await;
    assert!(double.contains("single slashes"), "{double}");
    let two = tell(&app, "GET /livez HTTP/1.0", "Host: x\r\nHost: y\r\n").await;
    assert_eq!((status(&two), code(&two)), (400, "malformed_request"));
    // HTTP/1.0 knows no Host; a proxy's form of the target is as good as ours.
    assert_eq!(status(&tell(&app, "GET /livez HTTP/1.0", "").await), 200);
    assert_eq!(status(&tell(&app, "GET http://x/livez HTTP/1.1", host).await), 200);
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("http_connections_closed_total{reason=\"malformed\"} 9"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_behind_an_answer_disturbs_neither() {
    let app = Setup::without_kafka().start().await;
    let read = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let all = exchange(&app, format!("{read}{read}GARBAGE\r\n\r\n{read}").as_bytes()).await;
    let all = String::from_utf8(all).unwrap();
    let statuses: Vec<&str> = all.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
    assert_eq!(statuses[..3], ["200", "200", "400"], "{all}");
    assert_eq!(code(&all), "malformed_request");
    assert_eq!(all.matches("requestId").count(), 1, "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_2_is_told_in_its_own_language() {
    let app = Setup::without_kafka().start().await;
    // The preface, empty settings, and a request's first frame.
    let preface =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x82";
    let answer = exchange(&app, preface).await;
    let (settings, goaway) = answer.split_at(9);
    assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0], "empty settings");
    assert_eq!(goaway[3], 7, "GOAWAY");
    assert_eq!(usize::from(goaway[2]), goaway.len() - 9, "its length");
    assert_eq!(goaway[9..17], [0, 0, 0, 0, 0, 0, 0, 0xd], "no stream; HTTP_1_1_REQUIRED");
    assert_eq!(&goaway[17..], b"this port speaks HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_reads_costs_neither_the_answer_nor_the_next_request() {
    let app = Setup::without_kafka().start().await;
    let with_body = |line: &str, headers: &str, bytes: usize| {
        let body = "x".repeat(bytes);
        format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {bytes}\r\n\r\n{body}")
    };
    let text = "Content-Type: text/plain\r\n";
    let json = "Content-Type: application/json\r\n";
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAE\r\n";
    for (line, headers, bytes, expected) in [
        ("POST /nowhere", "", 5_000_000, 404),
        ("PUT /wallets", "", 1_000_000, 405),
        ("POST /wallets", text, 1_000_000, 415),
        ("POST /wallets", json, 3_000_000, 413),
        ("GET /livez", "", 5, 200),
        ("GET /livez", "", 200_000, 200),
        // What Java's client offers with its first request.
        ("GET /livez", upgrade, 0, 200),
        ("POST /wallets", &format!("{json}{upgrade}"), 2, 400),
    ] {
        let mut stream = connect(&app).await;
        let answer = ask(&mut stream, &with_body(line, headers, bytes)).await.unwrap();
        assert_eq!(status(&answer), expected, "{line} {answer}");
        assert!(answer.contains("\r\nconnection: keep-alive\r\n"), "{line} {answer}");
        let next = ask(&mut stream, &get("/livez")).await;
        assert_eq!(next.map(|next| status(&next)).ok(), Some(200), "behind {line}");
    }
    // What is not read to its end is the connection's end, and that is said.
    let endless = "Transfer-Encoding: chunked\r\n\r\n";
    for (line, rest) in [
        ("POST /nowhere", "Content-Length: 100000000\r\n\r\n".to_owned() + &"x".repeat(1_000_000)),
        ("POST /wallets", format!("{json}{endless}2\r\n{{}}X0\r\n\r\n")),
        ("POST /wallets", format!("{json}{endless}zz\r\n{{}}\r\n0\r\n\r\n")),
        ("POST /nowhere", "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n".to_owned()),
    ] {
        let mut stream = connect(&app).await;
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\n{rest}");
        let answer = ask(&mut stream, &request).await.unwrap();
        assert!((400..500).contains(&status(&answer)), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(!answer.contains("timeout="), "{answer}");
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "it is closed");
    }
}
