//! The accept loop. axum's own has no timer for headers: a silent client would hold its connection
//! for ever and shutdown would wait for it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request};
use axum::response::Response;
use futures_util::TryFutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// From a connection's first byte, or its last answer, to the end of the next request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Line and headers of one request, together.
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 100;
const CONNECTIONS_MAX: usize = 16_384;
/// Requests that run when shutdown begins may take this long: less than the 10 s after which
/// container engines kill.
const GRACE: Duration = Duration::from_secs(8);
/// When shutdown begins, clients are told to close with their next answer: to close on them would
/// lose what they are just sending. Whoever sends nothing for this long is closed on.
const DRAIN: Duration = Duration::from_millis(500);

/// Serves until `shutdown`, then finishes what is running and returns.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let running = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut drained = pin!(async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    });
    let take = |stream: TcpStream, place: Option<OwnedSemaphorePermit>| {
        let in_hand = TaskTracker::new();
        let service = service(router.clone(), in_hand.clone(), shutdown.clone());
        let connection = running.watch(server.serve_connection(TokioIo::new(stream), service));
        let stopping = shutdown.clone();
        #[allow(
            clippy::disallowed_methods,
            reason = "connections end by themselves or with `running`"
        )]
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                }
                () = silent(in_hand, stopping) => tracing::debug!("no request came: cut off"),
            }
            drop(place);
        });
    };
    loop {
        // In this order: a connection that the system has taken for us is not dropped.
        let (stream, place) = tokio::select! {
            biased;
            accepted = accept(&listener, &places) => accepted,
            () = &mut drained => break,
        };
        take(stream, place);
    }
    // The reactor may not know yet of the last ones that the system has taken: ask the system.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, _)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                take(stream, None);
            }
        }
    }
    // Whoever was taken last has its request on the way, too.
    tokio::time::sleep(DRAIN).await;
    if tokio::time::timeout(GRACE, running.shutdown()).await.is_err() {
        tracing::warn!("connections still open after {} s are cut off", GRACE.as_secs());
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // An answer is one small write: it must not wait for the next.
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            Err(error) => {
                // Out of file descriptors: wait for some to come back instead of spinning.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// The routes for one connection; `in_hand` holds the request that is being answered.
fn service(
    router: Router,
    in_hand: TaskTracker,
    shutdown: CancellationToken,
) -> impl Service<
    Request<Incoming>,
    Response = Response,
    Error = Infallible,
    Future = impl Future<Output = Result<Response, Infallible>> + Send,
> {
    let routes = TowerToHyperService::new(router);
    service_fn(move |request| {
        let shutdown = shutdown.clone();
        let answer = routes.call(request).map_ok(move |mut response| {
            if shutdown.is_cancelled() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        });
        in_hand.track_future(answer)
    })
}

/// Ends once the service stops and nothing is being answered. hyper closes idle connections by
/// itself, but would wait for the rest of a header that has begun.
async fn silent(in_hand: TaskTracker, shutdown: CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(DRAIN * 2).await;
    if !in_hand.is_empty() {
        std::future::pending().await
    }
}
