//! `POST /bulk`: many commands in one request and one transaction, each with its own answer.

use std::fmt::Write as _;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::body::BulkFields;
use super::openapi::problems::BulkProblems;
use super::openapi::requests::{self as bodies, CommandHeaders};
use super::path::{idempotency_key, key_required};
use super::problem::{HttpError, HttpResult};
use super::views::BulkResults;
use super::wallets::made_id;
use super::{HttpState, consistency};
use crate::answer::Problem;
use crate::execute::{Context, Failure, Key, Operation, Outcome, Outcomes, Request};
use crate::request::{Bulk, BulkItem, place};
use crate::wallet::{TenantId, WalletId};

/// Runs up to 1000 operations in order, in one transaction. Each has its own status, key and body;
/// with `atomic`, all of them take effect or none.
#[utoipa::path(
    post, path = "/bulk", tag = "wallets", operation_id = "bulk",
    params(CommandHeaders), request_body = bodies::Bulk,
    responses(
        (status = 201, description = "One result for each operation, in order", body = BulkResults),
        BulkProblems
    )
)]
pub(super) async fn bulk(
    State(state): State<HttpState>,
    Extension(context): Extension<Context>,
    headers: HeaderMap,
    BulkFields(fields): BulkFields,
) -> HttpResult<Response> {
    let keys = Keys {
        of_request: idempotency_key(&headers)?,
        required: state.settings.require_idempotency_key,
    };
    let bulk = Bulk::parse(fields)?;
    let mut unread = Vec::new();
    let mut operations = Vec::new();
    for (at, item) in bulk.items(made_id).into_iter().enumerate() {
        match item.and_then(|item| keys.give(at, item)) {
            Ok(operation) => operations.push(operation),
            Err(problem) if bulk.atomic => return Err(problem.into()),
            Err(problem) => unread.push((at, problem)),
        }
    }
    let request_id = context.request_id.clone();
    let outcomes = match operations.is_empty() {
        true => Vec::new(),
        false => {
            let tenant = TenantId::default_tenant();
            let request = Request { tenant, operations, atomic: bulk.atomic, context };
            state.executor.execute(request).await
        }
    };
    if let Some(failure) = failed_as_a_whole(&outcomes) {
        return Err(failure.into());
    }
    if let (true, Some(guilty)) = (bulk.atomic, guilty(&outcomes)) {
        return Err(guilty.into());
    }
    Ok(answer(&outcomes, unread, &request_id))
}

/// Where the keys of operations come from.
struct Keys {
    /// The request's own: it stands for a key of each operation that has none.
    of_request: Option<String>,
    required: bool,
}

impl Keys {
    fn give(&self, at: usize, item: BulkItem) -> Result<Operation, Problem> {
        let of_place = || self.of_request.as_ref().map(|key| format!("{key}/{at}"));
        let key = item.key.or_else(of_place);
        if key.is_none() && self.required {
            let HttpError(problem) = key_required();
            let pointer = format!("{}/idempotencyKey", place(at));
            return Err(Problem::at(problem.code, pointer, "is required by this service"));
        }
        let key = key.map(|key| Key::new(&key, &item.command));
        Ok(Operation { command: item.command, key, context: None })
    }
}

/// What struck the whole request: then none of it was decided.
fn failed_as_a_whole(outcomes: &Outcomes) -> Option<Failure> {
    let Some(Err(first)) = outcomes.first() else { return None };
    let undecided = matches!(
        first,
        Failure::Overloaded
            | Failure::Unavailable
            | Failure::OutcomeUnknown
            | Failure::WalletBusy
            | Failure::KeyInFlight
            | Failure::Broken
    );
    let alike = |outcome: &Outcome| outcome.as_ref().is_err_and(|failure| failure == first);
    (undecided && outcomes.iter().all(alike)).then(|| first.clone())
}

/// The refusal that undid an atomic request, with the place of its operation.
fn guilty(outcomes: &Outcomes) -> Option<Problem> {
    let refused = |(at, outcome): (usize, &Outcome)| {
        let problem = match outcome {
            Ok(reply) if reply.answer.status < 400 => return None,
            Err(Failure::Abandoned) => return None,
            Ok(reply) => Problem::from_json(&reply.answer.body),
            Err(failure) => HttpError::from(failure.clone()).0,
        };
        let transaction_id = problem.transaction_id;
        Some(Problem { transaction_id, ..Problem::at(problem.code, place(at), problem.detail) })
    };
    outcomes.iter().enumerate().find_map(refused)
}

/// The results in the order of the operations. Bodies are passed through as they were made.
fn answer(outcomes: &Outcomes, unread: Vec<(usize, Problem)>, request_id: &str) -> Response {
    let mut results = String::with_capacity(400 * (outcomes.len() + unread.len()));
    let mut versions: Vec<(WalletId, i64)> = Vec::new();
    let (mut outcomes, mut unread) = (outcomes.iter(), unread.into_iter().peekable());
    results.push_str(r#"{"results":["#);
    for at in 0.. {
        let comma = if at == 0 { "" } else { "," };
        if let Some((_, problem)) = unread.next_if(|(place, _)| *place == at) {
            push_problem(&mut results, comma, problem, request_id);
            continue;
        }
        match outcomes.next() {
            None => break,
            Some(Err(failure)) => {
                let HttpError(problem) = failure.clone().into();
                push_problem(&mut results, comma, problem, request_id);
            }
            Some(Ok(reply)) => {
                let replayed = if reply.replayed { r#""replayed":true,"# } else { "" };
                let (status, body) = (reply.answer.status, &reply.answer.body);
                // Writing into a string cannot fail.
                let _ = write!(results, r#"{comma}{{"status":{status},{replayed}"body":{body}}}"#);
                versions.extend(reply.answer.versions.iter().cloned());
            }
        }
    }
    results.push_str("]}");
    let content_type = (header::CONTENT_TYPE, "application/json");
    let mut response = (StatusCode::CREATED, [content_type], results).into_response();
    if let Some(token) = consistency::token_of_many(versions) {
        response.headers_mut().insert(consistency::HEADER, token);
    }
    response
}

fn push_problem(results: &mut String, comma: &str, problem: Problem, request_id: &str) {
    let status = problem.status();
    let body = problem.with_request_id(request_id).to_json();
    let _ = write!(results, r#"{comma}{{"status":{status},"body":{body}}}"#);
}
