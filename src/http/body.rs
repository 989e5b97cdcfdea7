//! JSON bodies off the wire: read whole, within a limit of size and time.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderName, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;

use super::problem::{HttpError, HttpResult};
use crate::answer::ProblemCode;
use crate::request::{Body, Fields};

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
        let bytes = read(request.into_body(), B::BYTES_MAX).await?;
        Ok(Self(Fields::parse(&bytes)?.body()?))
    }
}

/// Refuses what is declared as too large before any of it is read, and what turns out to be.
async fn read(body: axum::body::Body, bytes_max: usize) -> HttpResult<bytes::Bytes> {
    let malformed = |detail: &str| HttpError::new(ProblemCode::MalformedJson, detail);
    let too_large =
        || HttpError::new(ProblemCode::BodyTooLarge, format!("at most {bytes_max} bytes"));
    if usize::try_from(body.size_hint().lower()).map_or(true, |declared| declared > bytes_max) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, bytes_max).collect()).await {
        Err(_) => Err(malformed("the body did not arrive in time")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
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
