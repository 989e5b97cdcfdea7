//! HTTP as no library sends it, over a bare socket: nothing of it moves money, crosses into another
//! request, or is answered without end.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::effects;
use crate::support::app::{App, Setup};

const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(app: &App) -> TcpStream {
    TcpStream::connect(app.base.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Everything that is answered to `bytes` until the connection is closed.
async fn exchange(app: &App, bytes: &[u8]) -> String {
    let mut stream = connect(app).await;
    // The service may answer and close before it has read all of it.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no end");
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answer: &str) -> Vec<u16> {
    let lines = answer.split("HTTP/1.").skip(1);
    lines.filter_map(|line| line.get(2..5)?.parse().ok()).collect()
}

/// A credit of 1 with further header lines, closing.
fn credit(headers: &str) -> Vec<u8> {
    let body = r#"{"amount":"1"}"#;
    format!(
        "POST /wallets/w/credit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Connection: close\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_framing_is_in_doubt_are_refused() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let before = effects(&app).await;
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let length = "Content-Length: 14\r\n";
    for (what, headers, status) in [
        ("two lengths", format!("{length}Content-Length: 13\r\n"), 400),
        ("no length", String::new(), 400),
        ("negative length", "Content-Length: -14\r\n".to_owned(), 400),
        ("unknown coding", "Transfer-Encoding: gzip\r\n".to_owned(), 400),
        ("chunked not last", "Transfer-Encoding: chunked, gzip\r\n".to_owned(), 400),
        ("folded header", format!("{length}X-A: 1\r\n  2\r\n"), 400),
        ("space before the colon", format!("{length}X-A : 1\r\n"), 400),
        ("bare CR", format!("{length}X-A: 1\rX-B: 2\r\n"), 400),
        ("NUL", format!("{length}X-A: \0\r\n"), 400),
        ("64 KiB of header", format!("{length}X-A: {}\r\n", "x".repeat(65_536)), 431),
        ("200 headers", format!("{length}{many}"), 431),
    ] {
        assert_eq!(statuses(&exchange(&app, &credit(&headers)).await), [status], "{what}");
    }
    for (line, status) in [
        ("GET /wallets", 400),
        ("GET  /wallets HTTP/1.1", 400),
        ("GET /wallets HTTP/9.9", 400),
        ("\u{16}\u{3}\u{1}\u{2} TLS hello", 400),
        ("GET /wallets/ HTTP/1.1", 404),
        ("GET //wallets HTTP/1.1", 404),
        ("GET /%2e%2e/wallets HTTP/1.1", 404),
        ("GET /wallets/../wallets HTTP/1.1", 404),
        ("GET /wallets//events HTTP/1.1", 400),
        ("get /wallets HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 204),
    ] {
        let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(statuses(&exchange(&app, request.as_bytes()).await), [status], "{line}");
    }
    assert_eq!(effects(&app).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunks_cannot_smuggle_a_request() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let before = effects(&app).await;
    let inner = String::from_utf8(credit("Content-Length: 14\r\n")).unwrap();
    let chunk = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    // By its length the body ends early and a credit follows; by its chunks all of it is body.
    let outer = format!(
        "POST /wallets/w/debit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunk}",
        format!("{:x}\r\n", inner.len()).len()
    );
    assert_eq!(statuses(&exchange(&app, outer.as_bytes()).await), [400]);
    assert_eq!(effects(&app).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_end_are_cut_off() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let before = effects(&app).await;
    let expecting = credit("Content-Length: 2000000\r\nExpect: 100-continue\r\n");
    let head = expecting.len() - 14;
    let answer = exchange(&app, &expecting[..head]).await;
    assert_eq!(statuses(&answer), [413], "refused before the body, without 100 Continue");
    assert!(answer.contains("body_too_large"));

    // A client that is still sending must hear the refusal: a reset is an error of the connection.
    let late = async |_| {
        let request = app.request(Method::POST, "/wallets/w/credit");
        let request = request.header("content-type", "application/json");
        request.body(vec![b' '; 4_000_000]).send().await.map(|answer| answer.status().as_u16())
    };
    for answer in join_all((0..30).map(late)).await {
        assert_eq!(answer.unwrap(), 413);
    }

    let (mut reader, mut writer) = connect(&app).await.into_split();
    let chunked = credit("Transfer-Encoding: chunked\r\n");
    writer.write_all(&chunked[..chunked.len() - 14]).await.unwrap();
    let endless = async {
        let chunk =
            [format!("{:x}\r\n", 65_536).into_bytes(), vec![b' '; 65_536], b"\r\n".to_vec()];
        let (chunk, mut sent) = (chunk.concat(), 0_usize);
        while writer.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
            assert!(sent < 64 << 20, "it is still being read");
        }
    };
    let answer = async {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes).await;
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let both = async { tokio::join!(endless, answer).1 };
    let answer = tokio::time::timeout(PATIENCE, both).await.expect("no end");
    assert_eq!(statuses(&answer), [413], "{answer}");
    assert_eq!(effects(&app).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn framing_is_right_for_old_and_for_hasty_clients() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let old = exchange(&app, b"GET /wallets/w HTTP/1.0\r\n\r\n").await;
    assert_eq!(statuses(&old), [200]);
    assert!(!old.to_lowercase().contains("transfer-encoding"), "{old}");

    let credit = String::from_utf8(credit("Content-Length: 14\r\n")).unwrap();
    let first = credit.replace("Connection: close\r\n", "");
    let read = "GET /wallets/w HTTP/1.1\r\nHost: x\r\n\r\n";
    let answers = exchange(&app, format!("{first}{read}{first}{credit}").as_bytes()).await;
    assert_eq!(statuses(&answers), [201, 200, 201, 201], "in the order of the requests");
    let balances = answers.split("\"balance\":\"").skip(1).map(|rest| rest.split('"').next());
    assert_eq!(balances.flatten().collect::<Vec<_>>(), ["11.00", "11.00", "12.00", "13.00"]);

    app.drain().await;
    let other = "GET http://evil.example/wallets?limit=1 HTTP/1.1\r\nHost: evil.example\r\n\
                 X-Forwarded-Host: evil.example\r\nRange: bytes=0-1\r\nConnection: close\r\n\r\n";
    let answer = exchange(&app, other.as_bytes()).await;
    assert_eq!(statuses(&answer), [200]);
    assert!(answer.to_lowercase().contains("link: </wallets?limit=1&cursor="), "{answer}");
    assert!(answer.contains("\"balance\":\"13.00\""), "the whole of it, whatever the range");
    assert!(!answer.contains("evil"));
}
