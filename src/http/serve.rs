//! The accept loop. axum's own has no timer for headers: a silent client would hold its connection
//! for ever and shutdown would wait for it.

mod connection;
mod places;
mod refusal;
mod remainder;
mod wire;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, EXPECT, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Request, Version};
use axum::response::Response;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioTimer;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use connection::{Pulse, Terms};
use places::{Permit, Places};
use remainder::Remainder;

/// From the first byte of a request to the end of its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Line and headers of one request, together.
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 100;
/// Requests that run when shutdown begins may take this long: less than the 10 s after which
/// container engines kill.
const GRACE: Duration = Duration::from_secs(8);
/// When shutdown begins, clients are told to close with their next answer: to close on them would
/// lose what they are just sending. Whoever sends nothing for this long is closed on.
const DRAIN: Duration = Duration::from_millis(500);
/// A client that goes by the time it was told must never meet the end of its connection.
const MARGIN: Duration = Duration::from_secs(1);
/// Between two complaints that no connection can be taken.
const COMPLAINT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// What clients may have of this port.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// How long a connection is kept for a further request.
    pub keep_alive: Duration,
}

/// What the connections share.
struct Shared {
    server: http1::Builder,
    router: Router,
    places: Arc<Places>,
    terms: Terms,
    /// `timeout=75`
    keep_alive: HeaderValue,
    shutdown: CancellationToken,
    /// Fired when the clients have had their time to close.
    stop: CancellationToken,
    connections: TaskTracker,
}

/// Serves until `shutdown`, then finishes what is running and returns.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let shared = Arc::new(Shared::new(router, limits, shutdown.clone()));
    let mut drained = pin!(async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    });
    let mut complained = None::<Instant>;
    loop {
        // In this order: a connection that the system has taken for us is not dropped.
        let stream = tokio::select! {
            biased;
            stream = accept(&listener, &shared.places, &mut complained) => stream,
            () = &mut drained => break,
        };
        let permit = tokio::select! {
            biased;
            permit = shared.places.permit() => permit,
            () = &mut drained => {
                shared.take(stream, None);
                break;
            }
        };
        shared.take(stream, permit);
    }
    // The reactor may not know yet of the last ones that the system has taken: ask the system.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, _)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                shared.take(stream, None);
            }
        }
    }
    // Whoever was taken last has its request on the way, too.
    tokio::time::sleep(DRAIN).await;
    shared.stop.cancel();
    shared.connections.close();
    if tokio::time::timeout(GRACE, shared.connections.wait()).await.is_err() {
        tracing::warn!("connections still open after {} s are cut off", GRACE.as_secs());
    }
}

/// Takes the next connection. `complained` is kept over connections: while one descriptor at a time becomes
/// free, every other attempt fails, and one line says so for all of them.
async fn accept(
    listener: &TcpListener,
    places: &Places,
    complained: &mut Option<Instant>,
) -> TcpStream {
    loop {
        let error = match listener.accept().await {
            Ok((stream, _)) => {
                // An answer is one small write: it must not wait for the next.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => error,
        };
        // Out of file descriptors, most likely: some are made free, and waited for.
        if complained.is_none_or(|at| at.elapsed() > COMPLAINT) {
            tracing::warn!(%error, "no connection can be taken; trying on");
            *complained = Some(Instant::now());
        }
        places.make_room();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Shared {
    fn new(router: Router, limits: Limits, shutdown: CancellationToken) -> Self {
        let terms = Terms { idle: limits.keep_alive + MARGIN, header: HEADER_TIMEOUT };
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            // Its clock begins when the connection falls idle: only a net under our own two.
            .header_read_timeout(terms.idle + terms.header)
            .max_buf_size(HEADER_BYTES_MAX)
            .max_headers(HEADERS_MAX);
        let timeout = format!("timeout={}", limits.keep_alive.as_secs());
        Self {
            server,
            router,
            places: Places::new(limits.connections),
            terms,
            // Letters and digits are a valid header value.
            keep_alive: HeaderValue::try_from(timeout).unwrap_or(HeaderValue::from_static("")),
            shutdown,
            stop: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }

    /// Serves a connection in a task of its own.
    fn take(self: &Arc<Self>, stream: TcpStream, permit: Option<Permit>) {
        let pulse = Arc::new(Pulse::new());
        let place = self.places.enter(permit, &pulse);
        let (shared, service) = (Arc::clone(self), service(Arc::clone(self), Arc::clone(&pulse)));
        self.connections.spawn(async move {
            let Shared { server, terms, stop, .. } = &*shared;
            connection::drive(server, stream, service, &pulse, *terms, stop).await;
            drop(place);
        });
    }

    /// Says whether and for how long the connection is kept.
    fn announce(&self, headers: &mut HeaderMap, may_go_on: bool, is_whole: bool) {
        if !is_whole || self.shutdown.is_cancelled() || self.places.are_wanted() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        } else if may_go_on {
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
            headers.insert(KEEP_ALIVE, self.keep_alive.clone());
        }
    }
}

/// The routes for one connection.
fn service(
    shared: Arc<Shared>,
    pulse: Arc<Pulse>,
) -> impl Service<
    Request<Incoming>,
    Response = Response,
    Error = Infallible,
    Future = impl Future<Output = Result<Response, Infallible>> + Send,
> + Unpin
+ Send {
    let routes = TowerToHyperService::new(shared.router.clone());
    service_fn(move |request: Request<Incoming>| {
        pulse.takes_in_hand();
        let (shared, pulse) = (Arc::clone(&shared), Arc::clone(&pulse));
        let may_go_on = may_go_on(&request);
        // Who waits for 100 Continue is not sending yet.
        let is_sent = !request.headers().contains_key(EXPECT);
        let (parts, body) = request.into_parts();
        let (body, remainder) = match body.is_end_stream() {
            true => (Body::empty(), None),
            false => {
                let (body, remainder) = Remainder::of(body);
                (body, Some(remainder))
            }
        };
        let answer = routes.call(Request::from_parts(parts, body));
        async move {
            let mut response = answer.await?;
            let is_whole = match remainder {
                Some(remainder) => remainder.discard(is_sent).await,
                None => true,
            };
            shared.announce(response.headers_mut(), may_go_on, is_whole);
            pulse.rests();
            Ok(response)
        }
    })
}

/// Whether the client can send a further request on the same connection. What of HTTP/1.0 wants to
/// is hyper's to tell.
fn may_go_on(request: &Request<Incoming>) -> bool {
    let mut options = request.headers().get_all(CONNECTION).iter();
    let closes = |value: &HeaderValue| {
        let options = value.to_str().unwrap_or("").split(',');
        options.map(str::trim).any(|option| option.eq_ignore_ascii_case("close"))
    };
    request.version() == Version::HTTP_11 && !options.any(closes)
}
