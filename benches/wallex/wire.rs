//! A keep-alive connection with one request in flight. It reads of an answer what it must: the
//! status, and the length of the body.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    head: usize,
    end: usize,
}

impl Wire {
    pub async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.context("the service")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 16 * 1024], head: 0, end: 0 })
    }

    /// Sends one request and reads its answer whole: the status.
    pub async fn call(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        timeout(LIMIT, self.exchange(request)).await.context("no answer within a minute")?
    }

    /// The body of the last answer.
    pub fn body(&self) -> &[u8] {
        &self.buffer[self.head..self.end]
    }

    /// A header of the last answer, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.buffer[..self.head]).ok()?;
        let headers = head.lines().filter_map(|line| line.split_once(':'));
        { headers }.find(|(found, _)| *found == name).map(|(_, value)| value.trim())
    }

    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let (head, length) = loop {
            filled += self.read(filled).await?;
            if let Some(found) = head(&self.buffer[..filled])? {
                break found;
            }
        };
        (self.head, self.end) = (head, head + length);
        if self.buffer.len() < self.end {
            self.buffer.resize(self.end, 0);
        }
        while filled < self.end {
            filled += self.read(filled).await?;
        }
        ensure!(filled == self.end, "more than one answer to one request");
        let status = std::str::from_utf8(&self.buffer[9..12])?;
        status.parse().context("no status")
    }

    async fn read(&mut self, filled: usize) -> anyhow::Result<usize> {
        ensure!(filled < self.buffer.len(), "an answer's head is too long");
        match self.stream.read(&mut self.buffer[filled..]).await? {
            0 => bail!("the service closed the connection"),
            count => Ok(count),
        }
    }
}

/// Where the head ends and how long the body is, once the head is complete.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    const NAME: &[u8] = b"content-length:";
    let mut at = 0;
    let mut length = None;
    while let Some(line) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let text = bytes[at..at + line].trim_ascii();
        at += line + 1;
        if text.is_empty() {
            return Ok(Some((at, length.context("an answer without content-length")?)));
        }
        if text.len() > NAME.len() && text[..NAME.len()].eq_ignore_ascii_case(NAME) {
            length = Some(std::str::from_utf8(text[NAME.len()..].trim_ascii())?.parse()?);
        }
    }
    Ok(None)
}
