//! Problems as responses. A handler's problem travels in the response's extensions until
//! [`super::context`] knows the request's id and writes the document.

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::answer::{Answer, Failure, Problem, ProblemCode};
use crate::store;

/// Says that an answer is the first one under its key, given again.
pub(super) const REPLAYED: &str = "idempotency-replayed";
/// Says that nothing happened: the command was only tried.
pub(super) const DRY_RUN: &str = "dry-run";
/// Seconds after which a caller told to retry may do so.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A request that ends in a problem document.
#[derive(Debug, Clone)]
pub struct HttpError(pub Problem);

pub(super) type HttpResult<T> = Result<T, HttpError>;

impl HttpError {
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self(Problem::new(code, detail))
    }

    /// One part of the request is wrong: a JSON Pointer, `?name`, or a header's name.
    pub fn at(code: ProblemCode, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self(Problem::at(code, pointer, detail))
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = status_of(&self.0).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The document itself, once the request's id is known.
pub(super) fn render(problem: Problem, request_id: &str) -> Response {
    let problem = problem.with_request_id(request_id);
    let content_type = (header::CONTENT_TYPE, "application/problem+json");
    let mut response = (status_of(&problem), [content_type], problem.to_json()).into_response();
    if problem.code.retryable() {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// A decided outcome.
pub(super) fn render_answer(answer: Answer) -> Response {
    let kind = if answer.status < 400 { "application/json" } else { "application/problem+json" };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, kind)], answer.body).into_response()
}

fn status_of(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl From<Problem> for HttpError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<Failure> for HttpError {
    fn from(failure: Failure) -> Self {
        Self(failure.into())
    }
}

/// Reads fail alike whatever they read: the cause is logged, never shown.
impl From<store::Error> for HttpError {
    fn from(error: store::Error) -> Self {
        match error.class() {
            store::Class::Unavailable | store::Class::Conflict => {
                tracing::warn!(%error, "read failed");
                Self::new(
                    ProblemCode::DatabaseUnavailable,
                    "the read could not be answered in time",
                )
            }
            store::Class::Data | store::Class::Broken => {
                tracing::error!(%error, "read failed");
                Self::new(ProblemCode::Internal, "the log has the cause")
            }
        }
    }
}

pub(super) async fn route_not_found(method: Method, uri: Uri) -> Response {
    // `OPTIONS *` asks of the service as a whole (RFC 9110, 9.3.7).
    if method == Method::OPTIONS && uri.path() == "*" {
        let allow = HeaderValue::from_static("GET,HEAD,POST,OPTIONS");
        return (StatusCode::NO_CONTENT, [(header::ALLOW, allow)]).into_response();
    }
    tracing::debug!(path = uri.path(), "no such route");
    let path = uri.path();
    let detail = if path.contains("//") {
        "a path has single slashes; /docs lists the routes"
    } else if path.len() > 1 && path.ends_with('/') {
        "a path ends without a slash; /docs lists the routes"
    } else {
        "README.md and /docs list the routes"
    };
    HttpError::new(ProblemCode::RouteNotFound, detail).into_response()
}

/// The router puts `Allow` beside either answer.
pub(super) async fn method_not_allowed(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let mut detail = format!("{method} is not among the Allow header's");
    if method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
        detail.push_str("; methods are written in upper case");
    }
    HttpError::new(ProblemCode::MethodNotAllowed, detail).into_response()
}
