//! What belongs to every request: its ids, its span and line in the log, its time limit, its metrics,
//! and the form of its errors.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::problem::{HttpError, render};
use super::{Caller, Callers};
use crate::answer::ProblemCode;
use crate::execute::Context;
use crate::request::{is_plain_id, is_traceparent};

/// No request is waited for longer; what it started goes on.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A request that takes longer than this has its line in the log at `info`, whatever its answer.
const SLOW: Duration = Duration::from_secs(1);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const CAUSATION_ID: HeaderName = HeaderName::from_static("x-causation-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What every request is handled with.
#[derive(Debug, Clone)]
struct Terms {
    callers: Callers,
    time_limit: Duration,
}

/// Wraps every handler.
pub(super) fn wrap<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    callers: Callers,
    time_limit: Duration,
) -> Router<S> {
    router.layer(from_fn_with_state(Terms { callers, time_limit }, handle))
}

/// Handles one request from its ids to its line in the log. One stage for all of it: as a layer each,
/// they cost more than the command's own share of the work (docs/ARCHITECTURE.md, Choices).
async fn handle(State(terms): State<Terms>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let caller = terms.callers.of(request.headers());
    let context = context_of(request.headers(), &caller);
    let span = span_of(&context, &caller);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let (id, correlation_id) = (context.request_id.clone(), context.correlation_id.clone());
    let refused = one_host(&request).err();
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(caller);
    let handled = async {
        let response = match refused {
            Some(detail) => HttpError::new(ProblemCode::MalformedRequest, detail).into_response(),
            None => run(next, request, &method, terms.time_limit).await,
        };
        let mut response = as_document(response, &id);
        for (name, id) in [(REQUEST_ID, Some(&id)), (CORRELATION_ID, correlation_id.as_ref())] {
            if let Some(value) = id.and_then(|id| HeaderValue::try_from(id).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
        write_line(&method, route.as_ref(), response.status(), began.elapsed());
        response
    };
    handled.instrument(span).await
}

/// Runs the handler within the time limit. What breaks or takes too long is a problem, and never ends
/// the connection's task.
async fn run(next: Next, request: Request, method: &Method, time_limit: Duration) -> Response {
    let handler = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(time_limit, handler).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => panicked(&panic),
        Err(_) => timed_out(method).into_response(),
    }
}

/// Where the request came from. Its id is always made here: the log must not have one twice. It is the
/// correlation id, too, where the client sends none. Another id that is not plain counts as absent.
fn context_of(headers: &HeaderMap, caller: &Caller) -> Context {
    let sent = |name: HeaderName, fits: fn(&str) -> bool| {
        Some(headers.get(name)?.to_str().ok().filter(|value| fits(value))?.to_owned())
    };
    let request_id = Uuid::now_v7().to_string();
    Context {
        actor: caller.actor.clone(),
        correlation_id: sent(CORRELATION_ID, is_plain_id).or_else(|| Some(request_id.clone())),
        causation_id: sent(CAUSATION_ID, is_plain_id),
        traceparent: sent(TRACEPARENT, is_traceparent),
        request_id,
    }
}

/// Every line that is written while the request is worked on carries these.
fn span_of(context: &Context, caller: &Caller) -> Span {
    tracing::info_span!(
        "request",
        request_id = context.request_id.as_str(),
        correlation_id = context.correlation_id.as_deref(),
        tenant = caller.tenant.as_str(),
    )
}

/// A caller that names no host, or two, means another than it reaches: a proxy before us may have
/// read the request in another way (RFC 9112, 3.2).
fn one_host(request: &Request) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => {
            Err("a request of HTTP/1.1 has a Host")
        }
        (None, _) => Ok(()),
        (Some(_), Some(_)) => Err("there must not be two Host headers"),
        (Some(host), None) => {
            let fits = |byte: &u8| byte.is_ascii_graphic() && !b"/\\?#@,\"<>".contains(byte);
            let fits = host.as_bytes().iter().all(fits);
            if fits { Ok(()) } else { Err("the Host is no name and no address") }
        }
    }
}

/// The response, a problem as the document that it is.
fn as_document(mut response: Response, request_id: &str) -> Response {
    let Some(HttpError(problem)) = response.extensions_mut().remove() else { return response };
    let allow = response.headers_mut().remove(header::ALLOW);
    let mut document = render(problem, request_id);
    // Set by the router beside a 405.
    if let Some(allow) = allow {
        document.headers_mut().insert(header::ALLOW, allow);
    }
    document
}

/// The process' hook has written what it said.
fn panicked(_: &(dyn Any + Send)) -> Response {
    tracing::error!("the request's handler panicked");
    HttpError::new(ProblemCode::Internal, "the log has the cause").into_response()
}

fn timed_out(method: &Method) -> HttpError {
    if method.is_safe() {
        return HttpError::new(ProblemCode::DatabaseUnavailable, "no answer in time");
    }
    crate::answer::Failure::OutcomeUnknown.into()
}

/// The request's one line: at `info` where it failed or was slow, else at `debug`. Nothing of its
/// body, its query or its ids in the path stands there.
fn write_line(method: &Method, route: Option<&MatchedPath>, status: StatusCode, took: Duration) {
    let route = route.map_or("none", MatchedPath::as_str);
    let status = status.as_u16();
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    // A refusal is the service at work; a request that was turned away, or that broke, is not.
    if status >= 500 || status == 429 || took > SLOW {
        tracing::info!(method = method.as_str(), route, status, ms, "answered");
    } else {
        tracing::debug!(method = method.as_str(), route, status, ms, "answered");
    }
    record(method, route, status, took);
}

fn record(method: &Method, route: &str, status: u16, took: Duration) {
    // Every value of a label is a series for ever: a client must not invent them.
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let method = if known.contains(method) { method.as_str() } else { "other" };
    metrics::histogram!(
        "http_server_request_duration_seconds",
        "method" => method.to_owned(),
        "route" => route.to_owned(),
        "status" => status.to_string(),
    )
    .record(took);
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    /// Answers `/waits` not in time, and breaks on `/panics`.
    async fn ask(method: Method, path: &str, correlation_id: &str) -> (Response, String) {
        async fn panics() {
            panic!("as it must");
        }
        async fn echoes(request: Request) -> String {
            request.extensions().get::<Context>().unwrap().correlation_id.clone().unwrap()
        }
        let waits = std::future::pending::<()>;
        let router = Router::new()
            .route("/waits", get(waits).post(waits))
            .route("/panics", get(panics))
            .route("/echoes", get(echoes));
        let router = wrap(router, Callers::default(), Duration::from_millis(20));
        let request = Request::builder().method(method).uri(path).header("host", "x");
        let request = request.header("x-request-id", "theirs");
        let request = request.header("x-correlation-id", correlation_id);
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 10_000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        (Response::from_parts(parts, Body::empty()), text)
    }

    #[tokio::test]
    async fn what_breaks_or_takes_too_long_is_a_problem_with_the_requests_id() {
        for (method, path, status, code) in [
            (Method::GET, "/panics", 500, "internal_error"),
            (Method::GET, "/waits", 503, "database_unavailable"),
            (Method::POST, "/waits", 503, "outcome_unknown"),
            (Method::PUT, "/waits", 405, ""),
        ] {
            let (response, text) = ask(method, path, "order-7").await;
            assert_eq!(response.status(), status, "{text}");
            let id = response.headers()["x-request-id"].to_str().unwrap();
            assert!(Uuid::parse_str(id).is_ok(), "{id}");
            assert_eq!(response.headers()["x-correlation-id"], "order-7");
            assert!(status == 405 || text.contains(id) && text.contains(code), "{text}");
        }
    }

    #[tokio::test]
    async fn ids_that_could_break_a_log_line_are_replaced() {
        let (response, correlation_id) = ask(Method::GET, "/echoes", "has space").await;
        assert_eq!(response.headers()["x-correlation-id"], correlation_id.as_str());
        assert_eq!(response.headers()["x-request-id"], correlation_id.as_str());
    }
}
