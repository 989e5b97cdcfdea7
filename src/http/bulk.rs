//! `POST /bulk`: many commands in one request and one transaction, each with its own answer.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::body::CommandBody;
use super::caller::CommandHead;
use super::holds::find_destinations;
use super::openapi::requests::{CommandHeaders, DryRun};
use super::path::{idempotency_key, key_required};
use super::problem::{DRY_RUN, HttpError, HttpResult, REPLAYED, render_answer};
use super::views::BulkResults;
use super::wallets::BulkProblems;
use super::{HttpState, consistency};
use crate::answer::{Answer, Marks, Outcomes, Problem, Whole};
use crate::execute::{Key, Operation, Request, generate_wallet_id};
use crate::request::{BulkBody, BulkItem, pointer};

/// Runs up to 1000 operations in order, in one transaction. Each has its own status, key and body;
/// with `atomic`, all of them take effect or none.
///
/// An `Idempotency-Key` stands for the whole request: the same again is answered as the first, any
/// other body under it is refused, and none of it is done.
#[utoipa::path(
    post, path = "/bulk", tag = "wallets", operation_id = "bulk",
    params(CommandHeaders, DryRun), request_body = BulkBody,
    responses(
        (status = 201, description = "One result for each operation, in order", body = BulkResults),
        BulkProblems
    )
)]
pub(super) async fn bulk(
    State(state): State<HttpState>,
    CommandHead { tenant, context, headers, dry_run }: CommandHead,
    CommandBody(bulk): CommandBody<BulkBody>,
) -> HttpResult<Response> {
    let keys = Keys {
        of_request: if dry_run { None } else { idempotency_key(&headers)? },
        required: state.settings.require_idempotency_key && !dry_run,
    };
    let items = bulk.items(generate_wallet_id);
    let key = keys.of_request.as_ref().map(|key| Key::of_bulk(key, &bulk.parsed(&items)));
    let mut unread = Vec::new();
    let mut operations = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        match item.and_then(|item| keys.give(at, item)) {
            Ok(operation) if dry_run => operations.push(Operation { key: None, ..operation }),
            Ok(operation) => operations.push(operation),
            Err(problem) if bulk.atomic => return Err(problem.into()),
            Err(problem) => unread.push((at, problem)),
        }
    }
    let request_id = context.request_id.clone();
    let outcomes = match operations.is_empty() {
        // Nothing is decided and nothing kept: all of it can be mended under the same key.
        true => Outcomes::default(),
        false => {
            let commands = operations.iter_mut().map(|operation| &mut operation.command);
            find_destinations(&state, &tenant, commands.collect()).await?;
            let atomic = bulk.atomic;
            let request = Request { tenant, operations, atomic, context, key, dry_run };
            state.executor.execute(request).await
        }
    };
    let mut response = match outcomes.whole(bulk.atomic) {
        Some(Whole::Refused(problem)) => return Err(problem.into()),
        Some(Whole::Undecided(failure)) => return Err(failure.into()),
        Some(Whole::Decided(reply)) => render_answer(Answer::of(&reply)),
        None if dry_run => tried(&outcomes, unread, &request_id),
        None => results(&outcomes, unread, &request_id),
    };
    if dry_run {
        response.headers_mut().insert(DRY_RUN, HeaderValue::from_static("true"));
    }
    if outcomes.is_replay() {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Where the keys of operations come from.
struct Keys {
    /// The request's own: it stands for a key of each operation that has none.
    of_request: Option<String>,
    required: bool,
}

impl Keys {
    fn give(&self, at: usize, item: BulkItem) -> Result<Operation, Problem> {
        let own = item.key.map(|key| Key::new(&key, &item.command));
        let of_place = || Some(Key::of_place(self.of_request.as_ref()?, at, &item.command));
        let key = own.or_else(of_place);
        if key.is_none() && self.required {
            let HttpError(problem) = key_required();
            let own_key = format!("{}/idempotencyKey", pointer(at));
            return Err(Problem::at(problem.code, own_key, "is required by this service"));
        }
        Ok(Operation { command: item.command, key, context: None })
    }
}

/// What the operations would come to, in their order.
fn tried(outcomes: &Outcomes, unread: Vec<(usize, Problem)>, request_id: &str) -> Response {
    let content_type = (header::CONTENT_TYPE, "application/json");
    let body = outcomes.results(unread, request_id, Marks::DryRun);
    (StatusCode::OK, [content_type], body).into_response()
}

/// The results in the order of the operations.
fn results(outcomes: &Outcomes, unread: Vec<(usize, Problem)>, request_id: &str) -> Response {
    let content_type = (header::CONTENT_TYPE, "application/json");
    let body = outcomes.results(unread, request_id, Marks::Replays);
    let mut response = (StatusCode::CREATED, [content_type], body).into_response();
    if let Some(token) = consistency::token_of_many(outcomes.versions()) {
        response.headers_mut().insert(consistency::HEADER, token);
    }
    response
}
