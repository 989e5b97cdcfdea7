//! Connections that wait, and more of them than there are descriptors.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{PATIENCE, ask, connect, get, status};
use crate::support::app::{App, Setup};
use crate::support::eventually;

/// How long it takes until the service closes; what it says before.
async fn end_of(stream: &mut TcpStream) -> (Duration, String) {
    let (begun, mut said) = (Instant::now(), Vec::new());
    let read = timeout(Duration::from_secs(60), stream.read_to_end(&mut said)).await;
    read.expect("it is never closed").unwrap();
    (begun.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_balancer_idle_connections_are_kept_as_long_as_is_announced() {
    let app = Setup::without_kafka().start().await;
    let mut stream = connect(&app).await;
    let answer = ask(&mut stream, &get("/livez")).await.unwrap();
    assert!(answer.contains("\r\nkeep-alive: timeout=75\r\n"), "above 60 s: {answer}");
    drop((stream, app));

    let app = Setup::without_kafka().with("HTTP_KEEP_ALIVE_SECONDS", 2).start().await;
    app.open("w", "1").await;
    let mut stream = connect(&app).await;
    let answer = ask(&mut stream, &get("/livez")).await.unwrap();
    assert!(answer.contains("\r\nconnection: keep-alive\r\n"), "{answer}");
    assert!(answer.contains("\r\nkeep-alive: timeout=2\r\n"), "{answer}");
    // Up to the last moment that was announced it is there.
    sleep(Duration::from_millis(1900)).await;
    let credit = "POST /wallets/w/credit HTTP/1.1\r\nhost: wallex\r\ncontent-length: 14\r\n\
                  content-type: application/json\r\n\r\n{\"amount\":\"1\"}";
    assert_eq!(status(&ask(&mut stream, credit).await.unwrap()), 201);
    // The empty line of an old client begins no request.
    stream.write_all(b"\r\n").await.unwrap();
    let (took, said) = end_of(&mut stream).await;
    assert!((2..5).contains(&took.as_secs()) && said.is_empty(), "{took:?} {said}");
    // Who never speaks is not kept for longer.
    let (took, said) = end_of(&mut connect(&app).await).await;
    assert!((2..5).contains(&took.as_secs()) && said.is_empty(), "{took:?} {said}");
    // The time for headers is another: a request that has begun is not cut off by the idle time.
    let mut stream = connect(&app).await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: wal").await.unwrap();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(status(&ask(&mut stream, "lex\r\n\r\n").await.unwrap()), 200);
    // Whoever will close is not told how long the connection is kept.
    let last = get("/livez").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let answer = ask(&mut stream, &last).await.unwrap();
    assert!(answer.contains("\r\nconnection: close\r\n") && !answer.contains("timeout="));
    let metrics = app.get("/metrics").await.text;
    let closed = metric(&metrics, "http_connections_closed_total{reason=\"idle\"}");
    assert!(closed >= 2, "{closed}");
}

#[ignore = "a minute of silence; scripts/test --full"]
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_balancer_a_minute_of_silence_is_no_end_and_slow_headers_are() {
    let app = Setup::without_kafka().start().await;
    let silent = async {
        let mut stream = connect(&app).await;
        ask(&mut stream, &get("/livez")).await.unwrap();
        sleep(Duration::from_secs(61)).await;
        ask(&mut stream, &get("/livez")).await.unwrap()
    };
    let slow = async {
        let mut stream = connect(&app).await;
        let begun = Instant::now();
        while stream.write_all(b"x").await.is_ok() && begun.elapsed() < Duration::from_secs(25) {
            sleep(Duration::from_secs(1)).await;
        }
        let (_, said) = end_of(&mut stream).await;
        (begun.elapsed(), said)
    };
    let (answer, (took, said)) = tokio::join!(silent, slow);
    assert_eq!(status(&answer), 200);
    assert!((29..33).contains(&took.as_secs()), "{took:?}");
    assert_eq!(status(&said), 408, "{said}");
    assert!(said.contains("\"code\":\"request_timeout\""), "{said}");
}

/// Files that the process has open, and how many it may have.
fn descriptors(app: &App) -> (usize, String) {
    let folder = format!("/proc/{}", app.pid());
    let open = std::fs::read_dir(format!("{folder}/fd")).unwrap().count();
    let limits = std::fs::read_to_string(format!("{folder}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    (open, line.split_whitespace().skip(3).take(2).collect::<Vec<_>>().join(" "))
}

fn metric(text: &str, name: &str) -> usize {
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// Connections that have had an answer and keep silent.
async fn idle(app: &App, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = connect(app).await;
        assert_eq!(status(&ask(&mut stream, &get("/livez")).await.unwrap()), 200);
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_are_raised_to_what_the_system_grants() {
    let setup = Setup::without_kafka().limited("ulimit -S -n 256 && ulimit -H -n 4096");
    let app = setup.start().await;
    app.open("w", "1").await;
    assert_eq!(descriptors(&app).1, "4096 4096");
    let _idle = idle(&app, 400).await;
    let begun = Instant::now();
    let credit = app.post("/wallets/w/credit", json!({"amount": 1})).await;
    assert_eq!((credit.status, begun.elapsed() < Duration::from_secs(5)), (201, true));
    let metrics = app.get("/metrics").await.text;
    assert!(metric(&metrics, "http_connections_open") > 400, "{metrics}");
    assert!(metric(&metrics, "http_connections_max") < 4096, "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_that_clients_hold_are_never_those_of_postgres_and_kafka() {
    let setup = Setup::shared().limited("ulimit -n 256").with("DATABASE_MAX_CONNECTIONS", 20);
    let mut app = setup.start().await;
    app.open("w", "0").await;
    let mut idle = idle(&app, 400).await;
    // Pools and connections that open only now find their descriptors, too.
    let credits = (0..40).map(|_| app.post("/wallets/w/credit", json!({"amount": 1})));
    for credit in futures_util::future::join_all(credits).await {
        assert_eq!(credit.status, 201, "{}", credit.text);
    }
    let reads = (0..40).map(|_| app.get("/ledger/transactions"));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read.status, 200, "{}", read.text);
    }
    app.drain().await;
    assert_eq!(app.get("/health/kafka").await.json()["status"], "healthy");
    let metrics = app.get("/metrics").await.text;
    let (open, most) =
        (metric(&metrics, "http_connections_open"), metric(&metrics, "http_connections_max"));
    assert!(open <= most && most < 200, "{open} of {most}");
    let (files, limit) = descriptors(&app);
    println!("{files} descriptors, {open} of {most} connections");
    assert!(limit == "256 256" && files < 256, "{files} of {limit}");
    // The oldest had to go, the youngest stayed, and the service is what it was before.
    assert!(ask(&mut idle[0], &get("/livez")).await.is_err());
    assert_eq!(status(&ask(&mut idle[399], &get("/livez")).await.unwrap()), 200);
    assert!(!app.log_text().contains("no connection can be taken"));
    assert!(tokio::task::block_in_place(|| app.stop()).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_that_are_gone_make_no_busy_loop() {
    let app = Setup::without_kafka().start().await;
    let kept = app.get("/livez").await;
    assert_eq!(kept.status, 200);
    let pid = app.pid().to_string();
    let limit = |soft: usize| {
        let nofile = format!("--nofile={soft}:");
        let set = std::process::Command::new("prlimit").args(["--pid", &pid, &nofile]).status();
        assert!(set.unwrap().success());
    };
    let (open, _) = descriptors(&app);
    limit(open);
    let mut waiting = connect(&app).await;
    waiting.write_all(get("/livez").as_bytes()).await.unwrap();
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (before, said) = (spent(), "no connection can be taken");
    eventually("a complaint", PATIENCE, async || app.log_text().contains(said).then_some(())).await;
    sleep(Duration::from_secs(2)).await;
    assert!(spent() - before < 50, "half a second of CPU in two that were idle");
    assert_eq!(app.log_text().matches(said).count(), 1, "one line for all of it");
    limit(1024);
    assert_eq!(status(&ask(&mut waiting, "").await.unwrap()), 200);
}
