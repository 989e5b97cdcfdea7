//! The accept loop. axum's own has no timer for headers: a silent client would hold its connection
//! for ever and shutdown would wait for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// From a connection's first byte, or its last answer, to the end of the next request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Line and headers of one request, together.
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 100;
const CONNECTIONS_MAX: usize = 16_384;
/// Requests that run when shutdown begins may take this long: less than the 10 s after which
/// container engines kill.
const GRACE: Duration = Duration::from_secs(8);

/// The next connection, as soon as there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(places).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            // Out of file descriptors: wait for some to come back instead of spinning.
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves until `shutdown`, then finishes what is running and returns.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let running = GracefulShutdown::new();
    let cut = CancellationToken::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = shutdown.run_until_cancelled(accept(&listener, &places)).await;
        let Some((stream, place)) = accepted else { break };
        // An answer is one small write: it must not wait for the next.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = running.watch(server.serve_connection(TokioIo::new(stream), service));
        let cut = cut.clone();
        #[allow(clippy::disallowed_methods, reason = "connections end by themselves or by `cut`")]
        tokio::spawn(async move {
            if let Some(Err(error)) = cut.run_until_cancelled(connection).await {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, running.shutdown()).await.is_err() {
        tracing::warn!("connections still open after {} s are cut off", GRACE.as_secs());
    }
    // What is left has sent no whole request: it holds nothing but a way to the lanes.
    cut.cancel();
}
