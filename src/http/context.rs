//! What belongs to every request: its ids, its span and line in the log, its time limit, its metrics,
//! and the form of its errors.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;
use uuid::Uuid;

use super::problem::{HttpError, render};
use super::{Caller, HttpState};
use crate::answer::ProblemCode;
use crate::execute::Context;
use crate::request::{is_plain_id, is_traceparent};

/// No request is waited for longer; what it started goes on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A request that takes longer than this has its line in the log at `info`, whatever its answer.
const SLOW: Duration = Duration::from_secs(1);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const CAUSATION_ID: HeaderName = HeaderName::from_static("x-causation-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Wraps every handler: gives the request its caller, its ids and its span, bounds it, turns problems
/// into documents, and writes its line.
pub(super) async fn finish(
    State(state): State<HttpState>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let caller = state.callers.of(request.headers());
    let context = context_of(request.headers(), &caller);
    let request_id = context.request_id.clone();
    let correlation_id = context.correlation_id.clone();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let span = span_of(&context, &caller);
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(caller);

    let handled = match one_host(&request) {
        Ok(()) => handle(request, next, &method).instrument(span.clone()).await,
        Err(detail) => HttpError::new(ProblemCode::MalformedRequest, detail).into_response(),
    };
    let response = finished(handled, request_id, correlation_id);
    let (route, status) = (route.as_ref().map_or("none", MatchedPath::as_str), response.status());
    span.in_scope(|| write_line(&method, route, status, begun.elapsed()));
    record(&method, route, status, begun);
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

/// The response with its ids, a problem as the document that it is.
fn finished(
    mut response: Response,
    request_id: String,
    correlation_id: Option<String>,
) -> Response {
    if let Some(HttpError(problem)) = response.extensions_mut().remove::<HttpError>() {
        let headers = std::mem::take(response.headers_mut());
        response = render(problem, &request_id);
        // Allow, set by the router beside a 405.
        response.headers_mut().extend(
            headers
                .into_iter()
                .filter(|(name, _)| name.as_ref().is_some_and(|name| *name == header::ALLOW)),
        );
    }
    for (name, id) in [(REQUEST_ID, Some(request_id)), (CORRELATION_ID, correlation_id)] {
        if let Some(value) = id.and_then(|id| HeaderValue::try_from(id).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Every line that is written while the request is worked on carries these.
fn span_of(context: &Context, caller: &Caller) -> tracing::Span {
    tracing::info_span!(
        "request",
        request_id = context.request_id,
        correlation_id = context.correlation_id,
        tenant = caller.tenant.as_str(),
    )
}

/// The handler's answer. A panic in it is a problem document too, and never ends the connection's task.
async fn handle(request: Request, next: Next, method: &Method) -> Response {
    let handled = std::panic::AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(REQUEST_TIMEOUT, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!("the request's handler panicked");
            HttpError::new(ProblemCode::Internal, "the log has the cause").into_response()
        }
        Err(_) => timed_out(method).into_response(),
    }
}

/// The request's one line: at `info` where it failed or was slow, else at `debug`. Nothing of its
/// body, its query or its ids in the path stands there.
fn write_line(method: &Method, route: &str, status: StatusCode, took: Duration) {
    let (method, status) = (method.as_str(), status.as_u16());
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    // A refusal is the service at work; a request that was turned away, or that broke, is not.
    if status >= 500 || status == 429 || took > SLOW {
        tracing::info!(method, route, status, ms, "answered");
    } else {
        tracing::debug!(method, route, status, ms, "answered");
    }
}

fn timed_out(method: &Method) -> HttpError {
    if method.is_safe() {
        return HttpError::new(ProblemCode::DatabaseUnavailable, "no answer in time");
    }
    crate::answer::Failure::OutcomeUnknown.into()
}

/// The request's ids: a client's where they are plain, else made.
fn context_of(headers: &HeaderMap, caller: &Caller) -> Context {
    let plain = |name: &HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        is_plain_id(value).then(|| value.to_owned())
    };
    let request_id = Uuid::now_v7().to_string();
    Context {
        actor: caller.actor.clone(),
        correlation_id: Some(plain(&CORRELATION_ID).unwrap_or_else(|| request_id.clone())),
        causation_id: plain(&CAUSATION_ID),
        traceparent: plain(&TRACEPARENT).filter(|value| is_traceparent(value)),
        request_id,
    }
}

fn record(method: &Method, route: &str, status: StatusCode, begun: Instant) {
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
        "status" => status.as_u16().to_string(),
    )
    .record(begun.elapsed());
}

#[cfg(test)]
mod tests {
    use super::super::Callers;
    use super::*;

    #[test]
    fn ids_that_could_break_a_log_line_are_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert(CORRELATION_ID, HeaderValue::from_static("has space"));
        let caller = Callers::default().of(&headers);
        let context = context_of(&headers, &caller);
        assert_eq!(context.correlation_id, Some(context.request_id));
    }
}
