//! Ids in paths and the headers that commands take.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use uuid::Uuid;

use super::problem::{HttpError, HttpResult};
use crate::answer::ProblemCode;
use crate::request::{HoldId, is_key};
use crate::wallet::{Expected, WalletId};

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

/// The hold in `/holds/{holdId}/…` and `/wallets/{id}/holds/{holdId}/…`, with the wallet of the second.
#[derive(Debug)]
pub(super) struct HoldPath {
    pub hold: Uuid,
    pub wallet: Option<WalletId>,
}

impl<S: Send + Sync> FromRequestParts<S> for HoldPath {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> HttpResult<Self> {
        let invalid = |rule: &str| HttpError::at(ProblemCode::InvalidId, "path", rule);
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Path(ids) = path.map_err(|_| invalid("is not UTF-8"))?;
        let id = |name: &str| ids.iter().find(|(n, _)| n == name).map(|(_, id)| id.as_str());
        let hold = id("holdId").and_then(HoldId::parse);
        let wallet = id("id").map(|text| {
            let wallet = WalletId::parse(text).filter(|_| !text.contains('\0'));
            wallet.ok_or_else(|| invalid("an id is 1 to 255 visible characters"))
        });
        let hold = hold.ok_or_else(|| invalid("the id of a hold is a UUID"))?.0;
        Ok(Self { hold, wallet: wallet.transpose()? })
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
    let key = unquoted(value.trim()).filter(|key| is_key(key));
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

/// The versions that `If-Match` names; `*` and no header ask for nothing, for a command needs its
/// wallet in any case. A weak tag, and one that no answer gave, matches no version (RFC 9110, 13.1.1).
pub(super) fn expected_version(headers: &HeaderMap) -> HttpResult<Option<Expected>> {
    let lines = headers.get_all(header::IF_MATCH).iter();
    let lines: Option<Vec<&str>> = lines.map(|line| line.to_str().ok()).collect();
    let lines = lines.ok_or_else(invalid_tags)?;
    if lines.is_empty() || lines.iter().any(|line| line.trim() == "*") {
        return Ok(None);
    }
    let list = lines.join(",");
    let tags = tags(&list).filter(|tags| !tags.is_empty()).ok_or_else(invalid_tags)?;
    let strong = tags.into_iter().filter(|tag| !tag.weak);
    let versions = strong.filter_map(|tag| tag.opaque.parse::<i64>().ok()).collect();
    Ok(Some(Expected::any_of(versions)))
}

fn invalid_tags() -> HttpError {
    let wanted = "must be a quoted version such as \"3\", a list of them, or *";
    HttpError::at(ProblemCode::InvalidValue, "If-Match", wanted)
}

/// One of the tags of `If-Match` or `If-None-Match`.
#[derive(Debug, PartialEq, Eq)]
struct Tag<'a> {
    weak: bool,
    opaque: &'a str,
}

/// The tags of a list: there may be commas in a tag, and empty members in the list.
fn tags(list: &str) -> Option<Vec<Tag<'_>>> {
    let mut found = Vec::new();
    let mut left = list.trim_start_matches([' ', '\t', ',']);
    while !left.is_empty() {
        let (weak, quoted) = match left.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, left),
        };
        let (opaque, behind) = quoted.strip_prefix('"')?.split_once('"')?;
        found.push(Tag { weak, opaque });
        let behind = behind.trim_start_matches([' ', '\t']);
        if !behind.is_empty() && !behind.starts_with(',') {
            return None;
        }
        left = behind.trim_start_matches([' ', '\t', ',']);
    }
    Some(found)
}

/// `If-None-Match`: any of the tags, whether or not a proxy made it weak, or `*` (RFC 9110, 13.1.2).
pub(super) fn is_known(headers: &HeaderMap, version: i64) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter();
    let version = version.to_string();
    lines.filter_map(|line| line.to_str().ok()).any(|line| {
        line.trim() == "*"
            || tags(line).is_some_and(|tags| tags.iter().any(|tag| tag.opaque == version))
    })
}

#[cfg(test)]
mod tests {
    use super::{Tag, tags, unquoted};

    #[test]
    fn keys_may_be_bare_or_quoted() {
        assert_eq!(unquoted("abc").as_deref(), Some("abc"));
        assert_eq!(unquoted("\"abc\"").as_deref(), Some("abc"));
        assert_eq!(unquoted(r#""a\"b""#).as_deref(), Some("a\"b"));
        for broken in ["\"abc", "\"a\"b\"", r#""a\x""#] {
            assert_eq!(unquoted(broken), None, "{broken}");
        }
    }

    #[test]
    fn lists_of_tags_are_read_as_rfc_9110_has_them() {
        let strong = |opaque| Tag { weak: false, opaque };
        assert_eq!(tags("\"3\""), Some(vec![strong("3")]));
        let several = Some(vec![Tag { weak: true, opaque: "3" }, strong("a,b"), strong("")]);
        assert_eq!(tags(" W/\"3\",\"a,b\" , ,\"\","), several);
        assert_eq!(tags(", "), Some(Vec::new()));
        for broken in ["3", "\"3", "\"3\" \"4\"", "w/\"3\"", "\"3\", *"] {
            assert_eq!(tags(broken), None, "{broken}");
        }
    }
}
