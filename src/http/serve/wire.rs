//! The socket under hyper: it tells the pulse what moves, and it has the last word. hyper refuses
//! what it cannot read by a bare status; here that becomes a problem document.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::connection::{End, Pulse};
use super::refusal;

/// A client that is still sending when its socket is closed would often see a reset instead of the
/// answer: it gets this long to read it and to close.
const LINGER: Duration = Duration::from_secs(1);
/// And so much of what it is still sending is read.
const LINGER_BYTES: usize = 8 * 1024 * 1024;
const LINGER_BUFFER: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    /// The bare status that hyper has written last.
    refused: Option<u16>,
}

impl Wire {
    pub fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse, refused: None }
    }

    /// Says why, where the client still listens, and closes. `unread` came last and was no
    /// request.
    pub async fn end(mut self, end: &End, unread: &[u8]) {
        let last = match end {
            End::Done(Err(error)) if error.is_parse_version_h2() => Some(refusal::of_http2()),
            End::Done(_) => self.refused.map(|status| refusal::of_unread(status, unread)),
            End::Slow => Some(refusal::of_slow()),
            End::Idle | End::Room | End::Stopped => None,
        };
        let reason = match end {
            End::Done(_) if last.is_some() => "malformed",
            End::Idle => "idle",
            End::Slow => "slow",
            End::Room => "room",
            End::Done(_) | End::Stopped => "",
        };
        if !reason.is_empty() {
            metrics::counter!("http_connections_closed_total", "reason" => reason).increment(1);
        }
        tracing::debug!(?end, "connection ended");
        let just_answered = self.pulse.resting().is_some_and(|time| time < LINGER);
        let lingers = last.is_some() || just_answered && matches!(end, End::Done(Ok(())));
        let closing = async {
            self.stream.write_all(&last.unwrap_or_default()).await?;
            self.stream.shutdown().await?;
            let mut left = if lingers { LINGER_BYTES } else { 0 };
            let mut unread = vec![0; LINGER_BUFFER.min(left)];
            while left > 0 {
                match self.stream.read(&mut unread).await? {
                    0 => break,
                    read => left = left.saturating_sub(read),
                }
            }
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LINGER, closing).await;
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        // Old clients send an empty line behind a body: that begins no request (RFC 9112, 2.2).
        let came = buf.filled().get(before..).unwrap_or_default();
        if came.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.pulse.listens();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    /// Not vectored, so that a refusal stands at the end of one buffer.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = match refusal::bare(bytes) {
            Some((0, status)) => {
                self.refused = Some(status);
                return Poll::Ready(Ok(bytes.len()));
            }
            Some((at, _)) => bytes.get(..at).unwrap_or(bytes),
            None => bytes,
        };
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, sent))?;
        self.pulse.sends();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Not yet: [`Wire::end`] does it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
