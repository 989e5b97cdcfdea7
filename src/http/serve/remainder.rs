//! What a handler has not read of a request's body. A client that is still sending it would not read
//! the answer, and would lose its next request on the same connection if that were closed unsaid:
//! so the rest is read for nothing, or the connection is announced to end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::future::poll_fn;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

/// More is not read just to be refused.
const DISCARDED_MAX: u64 = 8 * 1024 * 1024;
/// Nor for longer.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the body is put when its reader has had enough.
#[derive(Debug, Clone, Default)]
pub(super) struct Remainder(Arc<Mutex<Left>>);

#[derive(Debug, Default)]
enum Left {
    #[default]
    Nothing,
    Unread(Incoming),
    /// It cannot be read on.
    Broken,
}

/// A request's body on its way to its reader.
struct Upload {
    body: Option<Incoming>,
    remainder: Remainder,
}

impl Remainder {
    /// The body for a handler, and where its rest will be.
    pub fn of(body: Incoming) -> (Body, Self) {
        let remainder = Self::default();
        let upload = Upload { body: Some(body), remainder: remainder.clone() };
        (Body::new(upload), remainder)
    }

    /// Reads the rest, if there is one and the client is sending it. Whether the body is at its end.
    pub async fn discard(&self, is_sent: bool) -> bool {
        let left = std::mem::take(&mut *self.left());
        match left {
            Left::Nothing => true,
            Left::Unread(body) if is_sent && body.size_hint().lower() <= DISCARDED_MAX => {
                tokio::time::timeout(DISCARD_TIMEOUT, read_out(body)).await.unwrap_or(false)
            }
            Left::Unread(_) | Left::Broken => false,
        }
    }

    fn left(&self) -> std::sync::MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_out(mut body: Incoming) -> bool {
    let mut read: u64 = 0;
    while read <= DISCARDED_MAX {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, |data| data.len() as u64),
        }
    }
    false
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.body = None;
            *self.remainder.left() = Left::Broken;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.remainder.left() = Left::Unread(body);
        }
    }
}
