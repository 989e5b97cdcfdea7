//! HTTP as proxies, browsers and clients speak it.

mod connections;
mod edges;
mod ids;
mod manners;
mod pages;
mod projected;

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::app::App;

const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(app: &App) -> TcpStream {
    TcpStream::connect(app.base.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Sends `text`, and reads one answer: its head and its body, by its length.
async fn ask(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Ok(text);
            }
        }
        let mut bytes = [0; 4096];
        let read = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("no answer")?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&bytes[..read]);
    }
}

/// Everything that is answered to `bytes` on a connection of its own, to its end.
async fn exchange(app: &App, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(app).await;
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no end");
    read.unwrap();
    answer
}

/// The same as text, of a request without a body.
async fn tell(app: &App, line: &str, headers: &str) -> String {
    let request = format!("{line}\r\n{headers}Connection: close\r\n\r\n");
    String::from_utf8_lossy(&exchange(app, request.as_bytes()).await).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: wallex\r\n\r\n")
}
