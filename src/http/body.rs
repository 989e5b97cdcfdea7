//! JSON bodies off the wire: read whole, within a limit of size and time.

use std::error::Error as _;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderName, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use http_body_util::{BodyExt as _, LengthLimitError};
use tower::ServiceBuilder;
use tower_http::limit::RequestBodyLimitLayer;
use utoipa_axum::router::{UtoipaMethodRouter, UtoipaMethodRouterExt as _};

use super::HttpState;
use super::problem::{HttpError, HttpResult};
use crate::answer::ProblemCode;
use crate::request::{Body, Fields};

/// Bytes of one command's body.
const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a body of many commands.
const BULK_BYTES_MAX: usize = 4 * 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of a request.
#[derive(Debug)]
pub(super) struct CommandBody<B>(pub B);

impl<S: Send + Sync, B: Body> FromRequest<S> for CommandBody<B> {
    type Rejection = HttpError;

    async fn from_request(request: Request, _: &S) -> HttpResult<Self> {
        let headers = request.headers();
        let every = |name: HeaderName, fits: fn(&str) -> bool| {
            headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(fits))
        };
        let json =
            headers.contains_key(header::CONTENT_TYPE) && every(header::CONTENT_TYPE, is_json);
        if !json || !every(header::CONTENT_ENCODING, is_identity) {
            return Err(HttpError::new(
                ProblemCode::UnsupportedMediaType,
                "send Content-Type: application/json in UTF-8, without Content-Encoding",
            ));
        }
        let bytes = read(request.into_body()).await?;
        Ok(Self(Fields::parse(&bytes)?.body()?))
    }
}

/// Routes whose body holds one command.
pub(super) fn of_one(routes: UtoipaMethodRouter<HttpState>) -> UtoipaMethodRouter<HttpState> {
    limited(routes, COMMAND_BYTES_MAX)
}

/// Routes whose body holds many.
pub(super) fn of_many(routes: UtoipaMethodRouter<HttpState>) -> UtoipaMethodRouter<HttpState> {
    limited(routes, BULK_BYTES_MAX)
}

/// The layer refuses what is declared as too large, and ends the body that turns out to be.
fn limited(
    routes: UtoipaMethodRouter<HttpState>,
    bytes_max: usize,
) -> UtoipaMethodRouter<HttpState> {
    let as_problem = move |response: Response<_>| {
        if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("at most {bytes_max} bytes");
            return HttpError::new(ProblemCode::BodyTooLarge, detail).into_response();
        }
        response.map(axum::body::Body::new)
    };
    let layers =
        ServiceBuilder::new().map_response(as_problem).layer(RequestBodyLimitLayer::new(bytes_max));
    routes.layer(layers)
}

async fn read(body: axum::body::Body) -> HttpResult<bytes::Bytes> {
    let malformed = |detail: &str| HttpError::new(ProblemCode::MalformedJson, detail);
    match tokio::time::timeout(BODY_TIMEOUT, body.collect()).await {
        Err(_) => Err(malformed("the body did not arrive in time")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        // How much it may be, the layer says.
        Ok(Err(error)) if error.source().is_some_and(|cause| cause.is::<LengthLimitError>()) => {
            Err(HttpError::new(ProblemCode::BodyTooLarge, ""))
        }
        Ok(Err(_)) => Err(malformed("the body could not be read")),
    }
}

/// `application/json`, with no charset but UTF-8.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            let value = value.trim_matches('"');
            // The second is what many write, the rest is a part of UTF-8.
            ["utf-8", "utf8", "us-ascii", "ascii"]
                .iter()
                .any(|name| value.eq_ignore_ascii_case(name))
        }
        _ => true,
    })
}

/// No coding at all, by whatever name: `identity` stands for none (RFC 9110, 12.5.3).
fn is_identity(codings: &str) -> bool {
    let mut codings = codings.split(',').map(str::trim);
    codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
}
