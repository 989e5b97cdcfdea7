//! What is said to a client whose request could not even be read: the same problem documents that
//! any other request gets, and to a client of HTTP/2 a word in its own language.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{HEADER_BYTES_MAX, HEADER_TIMEOUT, HEADERS_MAX};
use crate::answer::{Problem, ProblemCode};

/// Where hyper's own refusal begins in what it writes, and its status. It has no body; every answer
/// of the service's own has a request id.
pub(super) fn bare(bytes: &[u8]) -> Option<(usize, u16)> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let at = bytes.windows(9).rposition(|window| window == b"HTTP/1.1 ")?;
    let head = std::str::from_utf8(bytes.get(at..)?).ok()?;
    let status: u16 = head.get(9..12)?.parse().ok()?;
    let bare = status >= 400 && !head.to_ascii_lowercase().contains("\r\nx-request-id:");
    bare.then_some((at, status))
}

/// The refusal of bytes that are no request, with the status that hyper gives them.
pub(super) fn of_unread(status: u16, unread: &[u8]) -> Vec<u8> {
    let line_ends = unread.contains(&b'\n');
    let uri = format!("a request line has at most {HEADER_BYTES_MAX} bytes");
    match status {
        414 => document(ProblemCode::UriTooLong, &uri),
        // hyper does not tell which of them is too long.
        431 if !line_ends => document(ProblemCode::UriTooLong, &uri),
        431 => {
            let rule = format!(
                "a request has at most {HEADERS_MAX} headers, and {HEADER_BYTES_MAX} bytes of them \
                 with its first line"
            );
            document(ProblemCode::HeadersTooLarge, &rule)
        }
        // The beginning of a TLS handshake.
        _ if unread.starts_with(&[0x16, 0x03]) => {
            document(ProblemCode::MalformedRequest, "this port speaks HTTP without TLS")
        }
        _ => document(
            ProblemCode::MalformedRequest,
            "the first line, a header or the length of the body cannot be read",
        ),
    }
}

/// The refusal of a request whose headers take too long.
pub(super) fn of_slow() -> Vec<u8> {
    let rule = format!("the headers did not arrive within {} s", HEADER_TIMEOUT.as_secs());
    document(ProblemCode::RequestTimeout, &rule)
}

/// To a client that speaks HTTP/2 without having asked: empty settings, then GOAWAY with
/// HTTP_1_1_REQUIRED (RFC 9113, 3.4 and 7), which clients show or act upon.
pub(super) fn of_http2() -> Vec<u8> {
    let said = b"this port speaks HTTP/1.1";
    let length = u8::try_from(8 + said.len()).unwrap_or(8);
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let goaway = [0, 0, length, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xd];
    [&settings[..], &goaway[..], &said[..]].concat()
}

fn document(code: ProblemCode, detail: &str) -> Vec<u8> {
    let request_id = Uuid::now_v7();
    let body = Problem::new(code, detail).with_request_id(&request_id.to_string()).to_json();
    let status = axum::http::StatusCode::from_u16(code.status()).unwrap_or_default();
    let date = DateTime::<Utc>::from(SystemTime::now()).format("%a, %d %b %Y %H:%M:%S GMT");
    let retry = if code.retryable() { "retry-after: 1\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         connection: close\r\nx-request-id: {request_id}\r\n{retry}date: {date}\r\n\r\n{body}",
        body.len(),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_without_a_body_is_taken_for_one() {
        let refused = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(bare(refused), Some((0, 400)));
        let answer = b"HTTP/1.1 200 OK\r\nx-request-id: a\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(bare(answer), None);
        let both = [&answer[..], &refused[..]].concat();
        assert_eq!(bare(&both), Some((answer.len(), 400)));
        assert_eq!(bare(b"HTTP/1.1 304 Not Modified\r\nx-request-id: a\r\n\r\n"), None);
        assert_eq!(bare(b"HTTP/1.1 404 Not Found\r\nX-Request-Id: a\r\n\r\n"), None);
        assert_eq!(bare(b"HTTP/1.1 100 Continue\r\n\r\n"), None);
    }
}
