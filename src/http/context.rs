//! What belongs to every request: its ids, its span and line in the log, its time limit, its metrics,
//! and the form of its errors.

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{
    MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;
use uuid::Uuid;

use super::problem::{HttpError, render};
use super::{Caller, Callers};
use crate::answer::ProblemCode;
use crate::execute::Context;
use crate::request::{is_plain_id, is_traceparent};

/// No request is waited for longer; what it started goes on.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// What the time limit answers, until [`finish`] says it as a problem. No handler has it.
const TIMED_OUT: StatusCode = StatusCode::GATEWAY_TIMEOUT;
/// A request that takes longer than this has its line in the log at `info`, whatever its answer.
const SLOW: Duration = Duration::from_secs(1);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const CAUSATION_ID: HeaderName = HeaderName::from_static("x-causation-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Wraps every handler. A request goes through the layers from the first to the last, its answer back.
pub(super) fn wrap<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    callers: Callers,
    time_limit: Duration,
) -> Router<S> {
    let trace = TraceLayer::new_for_http()
        .make_span_with(span_of)
        .on_request(())
        .on_response(write_line)
        .on_body_chunk(())
        .on_eos(())
        .on_failure(());
    router.layer(
        ServiceBuilder::new()
            .map_request(drop_unfit_ids)
            .layer(SetRequestIdLayer::new(REQUEST_ID, Ids))
            .layer(SetRequestIdLayer::new(CORRELATION_ID, Ids))
            .layer(PropagateRequestIdLayer::new(CORRELATION_ID))
            .layer(PropagateRequestIdLayer::new(REQUEST_ID))
            .map_request(move |request| name_caller(request, &callers))
            .layer(trace)
            .layer(from_fn(finish))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(TimeoutLayer::with_status_code(TIMED_OUT, time_limit)),
    )
}

/// Makes a request's id, which is its correlation id where its client sends none.
#[derive(Clone, Copy)]
struct Ids;

impl MakeRequestId for Ids {
    fn make_request_id<B>(&mut self, request: &Request<B>) -> Option<RequestId> {
        let made = || HeaderValue::try_from(Uuid::now_v7().to_string()).ok().map(RequestId::new);
        request.extensions().get().cloned().or_else(made)
    }
}

/// A request's id is always made here: the log must not have it twice. Another id that is not plain
/// counts as absent.
fn drop_unfit_ids(mut request: Request) -> Request {
    let headers = request.headers_mut();
    headers.remove(REQUEST_ID);
    let fits = |value: &HeaderValue| value.to_str().is_ok_and(is_plain_id);
    for name in [CORRELATION_ID, CAUSATION_ID] {
        if headers.get(&name).is_some_and(|value| !fits(value)) {
            headers.remove(name);
        }
    }
    request
}

/// Gives a request its caller and its context.
fn name_caller(mut request: Request, callers: &Callers) -> Request {
    let caller = callers.of(request.headers());
    let id = |name: HeaderName| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    let context = Context {
        actor: caller.actor.clone(),
        request_id: id(REQUEST_ID).unwrap_or_default(),
        correlation_id: id(CORRELATION_ID),
        causation_id: id(CAUSATION_ID),
        traceparent: id(TRACEPARENT).filter(|value| is_traceparent(value)),
    };
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(caller);
    request
}

/// Every line that is written while the request is worked on carries these.
fn span_of(request: &Request) -> Span {
    let context = request.extensions().get::<Context>();
    let caller = request.extensions().get::<Caller>();
    tracing::info_span!(
        "request",
        request_id = context.map(|context| context.request_id.as_str()),
        correlation_id = context.and_then(|context| context.correlation_id.as_deref()),
        tenant = caller.map(|caller| caller.tenant.as_str()),
    )
}

/// What was asked for, beside its answer: the layer that writes the line sees only that.
#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    route: Option<MatchedPath>,
}

/// Turns what a handler or a layer refuses into a problem document.
async fn finish(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = request.extensions().get::<RequestId>().cloned();
    let handled = match one_host(&request) {
        Ok(()) => next.run(request).await,
        Err(detail) => HttpError::new(ProblemCode::MalformedRequest, detail).into_response(),
    };
    let id = id.as_ref().and_then(|id| id.header_value().to_str().ok()).unwrap_or_default();
    let mut response = as_document(handled, &method, id);
    response.extensions_mut().insert(Asked { method, route });
    response
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
fn as_document(mut response: Response, method: &Method, request_id: &str) -> Response {
    let problem = match response.extensions_mut().remove::<HttpError>() {
        Some(HttpError(problem)) => problem,
        None if response.status() == TIMED_OUT => timed_out(method).0,
        None => return response,
    };
    let allow = response.headers_mut().remove(header::ALLOW);
    let mut document = render(problem, request_id);
    // Set by the router beside a 405.
    if let Some(allow) = allow {
        document.headers_mut().insert(header::ALLOW, allow);
    }
    document
}

/// A panic is a problem document too, and never ends the connection's task. The process' hook has
/// written what it said.
fn panicked(_: Box<dyn Any + Send>) -> Response {
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
fn write_line(response: &Response, took: Duration, _: &Span) {
    let Some(Asked { method, route }) = response.extensions().get() else { return };
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let status = response.status().as_u16();
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
