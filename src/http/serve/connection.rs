//! One connection from its first byte to its end. hyper has one clock, for idle time and headers
//! together; proxies need the first to be long, and a slow sender needs the second to be short.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::wire::Wire;

/// How long a client is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// For the first byte of a request, and for an answer to be read on.
    pub idle: Duration,
    /// From there to the end of the headers.
    pub header: Duration,
}

/// What a connection is doing, and since when. Its own task writes it; others look.
#[derive(Debug)]
pub(super) struct Pulse {
    begun: Instant,
    /// Milliseconds from `begun` to the last change, and two bits for what it is doing.
    word: AtomicU64,
    room: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Nothing, or an answer is on its way out.
    Resting,
    /// The client has begun a request.
    Listening,
    /// A request is being answered.
    Answering,
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum End {
    /// For hyper, or for the client.
    Done(hyper::Result<()>),
    /// No request came.
    Idle,
    /// A request began and did not come to the end of its headers.
    Slow,
    /// Another connection needs the place.
    Room,
    /// The service stops.
    Stopped,
}

impl Pulse {
    pub fn new() -> Self {
        Self { begun: Instant::now(), word: AtomicU64::new(0), room: Notify::new() }
    }

    /// Bytes of a request came.
    pub fn listens(&self) {
        if self.now().0 == Doing::Resting {
            self.set(Doing::Listening);
        }
    }

    /// Bytes of an answer went.
    pub fn sends(&self) {
        if self.now().0 == Doing::Resting {
            self.set(Doing::Resting);
        }
    }

    /// The headers of a request are complete.
    pub fn takes_in_hand(&self) {
        self.set(Doing::Answering);
    }

    /// The answer is made.
    pub fn rests(&self) {
        self.set(Doing::Resting);
    }

    /// How long the client has been waited for; none while a request is being answered.
    pub fn resting(&self) -> Option<Duration> {
        let (doing, since) = self.now();
        (doing != Doing::Answering).then(|| since.elapsed())
    }

    /// Asks the connection to end, unless a request has come by then.
    pub fn ask_to_go(&self) {
        self.room.notify_one();
    }

    fn set(&self, doing: Doing) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(0);
        let code = match doing {
            Doing::Resting => 0,
            Doing::Listening => 1,
            Doing::Answering => 2,
        };
        self.word.store(millis << 2 | code, Ordering::Relaxed);
    }

    fn now(&self) -> (Doing, Instant) {
        let word = self.word.load(Ordering::Relaxed);
        let doing = match word & 3 {
            0 => Doing::Resting,
            1 => Doing::Listening,
            _ => Doing::Answering,
        };
        (doing, self.begun + Duration::from_millis(word >> 2))
    }

    /// When the client's time is up, and why.
    fn due(&self, terms: Terms) -> (Instant, End) {
        let (doing, since) = self.now();
        match doing {
            Doing::Resting => (since + terms.idle, End::Idle),
            Doing::Listening => (since + terms.header, End::Slow),
            // Requests have a clock of their own: look again later.
            Doing::Answering => (Instant::now() + terms.idle, End::Idle),
        }
    }
}

/// Serves until the client, a clock, another connection or `stop` ends it.
pub(super) async fn drive<S>(
    server: &http1::Builder,
    stream: TcpStream,
    service: S,
    pulse: &Arc<Pulse>,
    terms: Terms,
    stop: &CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Unpin,
{
    let wire = TokioIo::new(Wire::new(stream, Arc::clone(pulse)));
    let mut connection = server.serve_connection(wire, service);
    let mut clock = pin!(sleep_until(pulse.due(terms).0));
    let mut room = pin!(pulse.room.notified());
    let mut stop = pin!(stop.cancelled());
    let mut stopped = false;
    let end = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(End::Done(ended));
        }
        if !stopped && stop.as_mut().poll(cx).is_ready() {
            stopped = true;
            // What is idle is over by that; hyper would wait for the rest of a header.
            Pin::new(&mut connection).graceful_shutdown();
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(End::Done(ended));
            }
            if pulse.now().0 == Doing::Listening {
                return Poll::Ready(End::Stopped);
            }
        }
        while room.as_mut().poll(cx).is_ready() {
            if pulse.now().0 != Doing::Answering {
                return Poll::Ready(End::Room);
            }
            room.set(pulse.room.notified());
        }
        loop {
            let (due, end) = pulse.due(terms);
            // A clock that goes off too early is wound again; no request has to touch it.
            if due <= Instant::now() {
                return Poll::Ready(end);
            }
            if due < clock.deadline() {
                clock.as_mut().reset(due);
            }
            if clock.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            clock.as_mut().reset(due);
        }
    })
    .await;
    let parts = connection.into_parts();
    parts.io.into_inner().end(&end, &parts.read_buf).await;
}
