//! The result that is sent where the topic does not take the whole of it: a problem that says what the
//! command came to, and how that can be read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::record::value_of;
use crate::answer::{FieldError, Problem, ProblemCode};
use crate::envelope::VALUE_LEFT_OUT;
use crate::kafka::Copied;

/// Of a refusal's own words.
const DETAIL_CHARS_MAX: usize = 200;

/// A result as it was written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    command_id: String,
    status: u16,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// What of a body says what was done.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    transaction_id: Option<String>,
    transfer_id: Option<String>,
    results: Option<Vec<SaidOfOne>>,
    errors: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct SaidOfOne {
    status: u16,
    body: Refusal,
}

/// A refusal, where the body is one.
#[derive(Deserialize)]
struct Refusal {
    code: Option<String>,
    detail: Option<String>,
}

/// The same result, shorter: at first with each operation that was refused, then without. None: it
/// cannot be shorter.
pub(super) fn shorter(result: &Copied) -> Option<Copied> {
    let value = result.value.as_deref()?;
    let written: Written<'_> = serde_json::from_slice(value).ok()?;
    let said: Said = serde_json::from_str(written.body.get()).ok()?;
    let problem = match result.headers.get(VALUE_LEFT_OUT) {
        None if written.status >= 400 => refused(&written),
        None => done(&written, &said, value.len()),
        Some(_) if said.errors.is_some_and(|errors| !errors.is_empty()) => refused(&written),
        Some(_) => return None,
    };
    let body = problem.with_request_id(&written.command_id).to_json();
    let mut shorter = result.clone();
    shorter.value = Some(value_of(&written.command_id, written.status, &body)?);
    let bytes = value.len().to_string().into_bytes();
    shorter.headers.entry(VALUE_LEFT_OUT.to_owned()).or_insert(bytes);
    Some(shorter)
}

/// A problem in fewer words.
fn refused(written: &Written<'_>) -> Problem {
    let said: Option<Refusal> = serde_json::from_str(written.body.get()).ok();
    let (code, detail) = said.map(|said| (said.code, said.detail)).unwrap_or_default();
    let code = ProblemCode::ALL.iter().find(|known| Some(known.as_str()) == code.as_deref());
    let code = code.copied().unwrap_or(ProblemCode::Internal);
    let mut problem = Problem::new(code, detail.unwrap_or_default());
    if written.status >= 400 {
        problem.detail = problem.detail.chars().take(DETAIL_CHARS_MAX).collect();
    }
    problem
}

fn done(written: &Written<'_>, said: &Said, bytes: usize) -> Problem {
    let Written { command_id, status, .. } = written;
    let results = said.results.as_deref().unwrap_or_default();
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for one in results {
        *counts.entry(one.status).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(status, n)| format!("{n} × {status}")).collect();
    let operations = match counts.is_empty() {
        true => String::new(),
        false => format!(" Its operations: {}.", counts.join(", ")),
    };
    let detail = format!(
        "the command was executed (status {status}); do not send it under another id. Its result of \
         {bytes} bytes is larger than the topic takes.{operations} Its events have the causationId \
         {command_id}: GET /wallets/{{id}}/events. With a larger max.message.bytes, the same command \
         again brings the whole result"
    );
    let mut problem = Problem::new(ProblemCode::ResultTooLarge, detail);
    problem.transaction_id = said.transaction_id.clone().or_else(|| said.transfer_id.clone());
    let refused = results.iter().enumerate().filter(|(_, one)| one.status >= 400);
    problem.errors = refused
        .map(|(at, one)| {
            let code = one.body.code.as_deref().unwrap_or_default();
            FieldError {
                pointer: crate::request::pointer(at),
                detail: format!("{} {code}", one.status),
            }
        })
        .collect();
    problem
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json};

    use super::*;

    fn result(status: u16, body: &Value) -> Copied {
        let value = json!({"commandId": "c", "status": status, "body": body}).to_string();
        let (key, value) = (Some(b"c".to_vec()), Some(value.into_bytes()));
        let headers = BTreeMap::from([("correlation-id".to_owned(), b"x".to_vec())]);
        Copied { key, value, headers, timestamp: DateTime::UNIX_EPOCH }
    }

    fn body(result: &Copied) -> Value {
        let value: Value = serde_json::from_slice(result.value.as_deref().unwrap()).unwrap();
        assert_eq!(value["commandId"], "c");
        value
    }

    #[test]
    fn what_was_done_is_said_in_fewer_words_until_there_are_no_fewer() {
        let whole = result(201, &json!({"id": "w", "transactionId": "t"}));
        let short = shorter(&whole).unwrap();
        let said = body(&short);
        assert_eq!(
            (&said["status"], &said["body"]["code"]),
            (&json!(201), &json!("result_too_large"))
        );
        assert_eq!(said["body"]["transactionId"], "t");
        assert_eq!((&short.key, short.headers.len()), (&whole.key, 2));
        assert!(shorter(&short).is_none());

        let refused = json!({"status": 400, "body": {"code": "insufficient_funds"}});
        let done = json!({"status": 201, "body": {"id": "w"}});
        let short = shorter(&result(201, &json!({"results": [done, refused, done]}))).unwrap();
        let said = body(&short)["body"].clone();
        assert_eq!(
            said["errors"],
            json!([{"pointer": "/operations/1", "detail": "400 insufficient_funds"}])
        );
        assert!(said["detail"].as_str().unwrap().contains("2 × 201, 1 × 400"), "{said}");
        let shortest = shorter(&short).unwrap();
        let last = body(&shortest);
        assert_eq!((&last["status"], &last["body"]["errors"]), (&json!(201), &Value::Null));
        assert_eq!(last["body"]["detail"], said["detail"]);
        assert!(shorter(&shortest).is_none());
    }

    #[test]
    fn a_refusal_stays_what_it_is() {
        let mut problem = Problem::at(ProblemCode::InvalidAmount, "/amount", "x".repeat(5000));
        problem = problem.with_request_id("c");
        let document: Value = serde_json::from_str(&problem.to_json()).unwrap();
        let said = body(&shorter(&result(400, &document)).unwrap());
        assert_eq!(
            (&said["status"], &said["body"]["code"]),
            (&json!(400), &json!("invalid_amount"))
        );
        assert!(said.to_string().len() < 600, "{said}");
    }
}
