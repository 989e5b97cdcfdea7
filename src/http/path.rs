//! Ids in paths and the headers that commands take.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::problem::{HttpError, HttpResult};
use crate::answer::ProblemCode;
use crate::wallet::WalletId;

const KEY_BYTES_MAX: usize = 255;

/// The wallet in `/wallets/{id}/…`, percent-decoded.
#[derive(Debug)]
pub(super) struct WalletPath(pub WalletId);

/// Any other single id in a path, percent-decoded.
#[derive(Debug)]
pub(super) struct TextPath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for WalletPath {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> HttpResult<Self> {
        let TextPath(text) = TextPath::from_request_parts(parts, state).await?;
        let id = WalletId::parse(&text);
        id.map(Self).ok_or_else(|| {
            HttpError::at(ProblemCode::InvalidId, "path", "an id is 1 to 255 visible characters")
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TextPath {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> HttpResult<Self> {
        let invalid = |_| HttpError::at(ProblemCode::InvalidId, "path", "is not UTF-8");
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(invalid)?;
        if text.contains('\0') {
            return Err(HttpError::at(ProblemCode::InvalidId, "path", "has a NUL character"));
        }
        Ok(Self(text))
    }
}

const KEY_HEADER: &str = "Idempotency-Key";

/// The caller's key; none where there is no header.
pub(super) fn idempotency_key(headers: &HeaderMap) -> HttpResult<Option<String>> {
    let mut values = headers.get_all(KEY_HEADER).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(_), Some(_)) => return Err(invalid_key("stands twice")),
        (Some(value), None) => value.to_str().unwrap_or(""),
    };
    let valid = |key: &String| {
        (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
    };
    let key = unquoted(value.trim()).filter(valid);
    let rule = "must be 1 to 255 visible ASCII characters, bare or quoted";
    key.map(Some).ok_or_else(|| invalid_key(rule))
}

/// The refusal of a command without a key where keys are a duty.
pub(super) fn key_required() -> HttpError {
    invalid_key("is required by this service")
}

fn invalid_key(detail: &str) -> HttpError {
    HttpError::at(ProblemCode::InvalidIdempotencyKey, KEY_HEADER, detail)
}

/// A bare value as it is; a quoted one as the structured-field string that it is (RFC 9651).
fn unquoted(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else { return Some(value.to_owned()) };
    let inner = inner.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            '"' => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

/// `If-Match: "<version>"`; `*` and no header ask for nothing.
pub(super) fn expected_version(headers: &HeaderMap) -> HttpResult<Option<i64>> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    match value.to_str().unwrap_or("").trim() {
        "*" => Ok(None),
        tag => {
            let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let version = version.and_then(|version| version.parse::<i64>().ok());
            let wanted = "must be one quoted version such as \"3\", or *";
            version
                .map(Some)
                .ok_or_else(|| HttpError::at(ProblemCode::InvalidValue, "If-Match", wanted))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unquoted;

    #[test]
    fn keys_may_be_bare_or_quoted() {
        assert_eq!(unquoted("abc").as_deref(), Some("abc"));
        assert_eq!(unquoted("\"abc\"").as_deref(), Some("abc"));
        assert_eq!(unquoted(r#""a\"b""#).as_deref(), Some("a\"b"));
        for broken in ["\"abc", "\"a\"b\"", r#""a\x""#] {
            assert_eq!(unquoted(broken), None, "{broken}");
        }
    }
}
