//! `/`, `/openapi.json`, `/asyncapi.json` and `/docs`, all from the binary: nothing is fetched from another host, and
//! the pages' content security policy forbids a browser to try.

use std::io::Read as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::super::HttpState;
use super::super::path::TextPath;
use super::super::problem::{HttpError, HttpResult};
use super::problems::{FileProblems, InternalProblems};
use crate::answer::ProblemCode;

const HOME: &str = include_str!("home.html");
const HOME_STYLE: &str = include_str!("home.css");
/// The first page has one style sheet, and an empty icon in `data:`.
const HOME_POLICY: (HeaderName, HeaderValue) = (
    header::CONTENT_SECURITY_POLICY,
    HeaderValue::from_static(
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const PAGE: &str = include_str!("docs.html");
const START: &str = include_str!("docs.js");
/// What the page names; the rest of Swagger UI's files is for other ways to embed it.
const FILES: [&str; 3] = ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"];
/// Swagger UI sets styles in elements and has its icons in `data:`.
const POLICY: (HeaderName, HeaderValue) = (
    header::CONTENT_SECURITY_POLICY,
    HeaderValue::from_static(
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
         frame-ancestors 'none'",
    ),
);

/// What this is, and where to go from here.
#[utoipa::path(
    get, path = "/", tag = "documentation", operation_id = "showHome",
    responses(
        (status = 200, description = "A short page", body = String, content_type = "text/html"),
        InternalProblems
    )
)]
pub async fn home() -> Response {
    ([(header::CONTENT_TYPE, HTML), HOME_POLICY], HOME).into_response()
}

/// Nothing: browsers ask for an icon whatever the page says.
#[utoipa::path(
    get, path = "/favicon.ico", tag = "documentation", operation_id = "getIcon",
    responses((status = 204, description = "There is none"), InternalProblems)
)]
pub async fn icon() -> Response {
    (StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "max-age=86400")]).into_response()
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "documentation", operation_id = "getOpenApi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object), InternalProblems)
)]
pub async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], super::document()).into_response()
}

/// The topics: what is in them, who writes and reads, by the names that they have here.
#[utoipa::path(
    get, path = "/asyncapi.json", tag = "documentation", operation_id = "getAsyncApi",
    responses((status = 200, description = "AsyncAPI 3.0", body = Object), InternalProblems)
)]
pub async fn asyncapi(State(state): State<HttpState>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], state.asyncapi.clone()).into_response()
}

/// This document as a page to read and to try.
#[utoipa::path(
    get, path = "/docs", tag = "documentation", operation_id = "showDocs",
    responses(
        (status = 200, description = "Swagger UI", body = String, content_type = "text/html"),
        InternalProblems
    )
)]
pub async fn docs() -> Response {
    ([(header::CONTENT_TYPE, HTML), POLICY], PAGE).into_response()
}

/// A file of the documentation's page.
#[utoipa::path(
    get, path = "/docs/{file}", tag = "documentation", operation_id = "getDocsFile",
    params(("file" = String, Path, description = "As the page names it", example = "start.js")),
    responses(
        (status = 200, description = "The file", content(
            (String = "text/javascript"), (String = "text/css"), (String = "image/png")
        )),
        FileProblems
    )
)]
pub async fn file(TextPath(name): TextPath, headers: HeaderMap) -> HttpResult<Response> {
    match name.as_str() {
        "start.js" => {
            return Ok(([(header::CONTENT_TYPE, "text/javascript")], START).into_response());
        }
        "home.css" => return Ok(([(header::CONTENT_TYPE, "text/css")], HOME_STYLE).into_response()),
        _ => {}
    }
    let missing = || HttpError::new(ProblemCode::RouteNotFound, "no such file");
    let known = FILES.contains(&name.as_str());
    let config = Arc::new(utoipa_swagger_ui::Config::default());
    let found = utoipa_swagger_ui::serve(&name, config).ok().flatten();
    let found = found.filter(|_| known).ok_or_else(missing)?;
    let zipped = found.gzpipped;
    let mut response = if zipped && !takes_gzip(&headers) {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(found.bytes.as_ref())
            .read_to_end(&mut plain)
            .map_err(|_| missing())?;
        plain.into_response()
    } else {
        found.bytes.into_response()
    };
    let sent = response.headers_mut();
    if zipped && takes_gzip(&headers) {
        sent.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    sent.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    // A release may bring another version of them under the same names.
    sent.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    if let Ok(kind) = HeaderValue::try_from(found.content_type) {
        sent.insert(header::CONTENT_TYPE, kind);
    }
    Ok(response)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted
        .is_some_and(|accepted| accepted.split(',').map(str::trim).any(|coding| coding == "gzip"))
}
