//! JSON bodies off the wire: read whole, within a limit of size and time.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderName, header};

use super::problem::{HttpError, HttpResult};
use crate::answer::ProblemCode;
use crate::request::{Body, BulkBody, Fields};

/// Bytes of one command's body.
const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a body of many commands.
const BULK_BYTES_MAX: usize = 4 * 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of a request that holds one command.
#[derive(Debug)]
pub(super) struct CommandBody<B>(pub B);

/// The body of a request that holds many.
#[derive(Debug)]
pub(super) struct ManyCommands(pub BulkBody);

impl<S: Send + Sync, B: Body> FromRequest<S> for CommandBody<B> {
    type Rejection = HttpError;

    async fn from_request(request: Request, _: &S) -> HttpResult<Self> {
        Ok(Self(fields(request, COMMAND_BYTES_MAX).await?.body()?))
    }
}

impl<S: Send + Sync> FromRequest<S> for ManyCommands {
    type Rejection = HttpError;

    async fn from_request(request: Request, _: &S) -> HttpResult<Self> {
        Ok(Self(fields(request, BULK_BYTES_MAX).await?.body()?))
    }
}

async fn fields(request: Request, bytes_max: usize) -> HttpResult<Fields> {
    let headers = request.headers();
    let every = |name: HeaderName, fits: fn(&str) -> bool| {
        headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(fits))
    };
    let json = headers.contains_key(header::CONTENT_TYPE) && every(header::CONTENT_TYPE, is_json);
    if !json || !every(header::CONTENT_ENCODING, is_identity) {
        return Err(HttpError::new(
            ProblemCode::UnsupportedMediaType,
            "send Content-Type: application/json in UTF-8, without Content-Encoding",
        ));
    }
    let too_large = || {
        let detail = format!("at most {bytes_max} bytes");
        HttpError::new(ProblemCode::BodyTooLarge, detail)
    };
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let declared = declared.and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    if declared > bytes_max as u64 {
        return Err(too_large());
    }
    let bytes = read(request.into_body(), bytes_max).await?.ok_or_else(too_large)?;
    Ok(Fields::parse(&bytes)?)
}

/// The body, or none where it is too large.
async fn read(body: axum::body::Body, bytes_max: usize) -> HttpResult<Option<bytes::Bytes>> {
    let malformed = |detail: &str| HttpError::new(ProblemCode::MalformedJson, detail);
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, bytes_max)).await {
        Err(_) => Err(malformed("the body did not arrive in time")),
        Ok(Ok(bytes)) => Ok(Some(bytes)),
        Ok(Err(error)) => {
            let limit = std::error::Error::source(&error)
                .is_some_and(|cause| cause.to_string().contains("length limit"));
            if limit { Ok(None) } else { Err(malformed("the body could not be read")) }
        }
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
