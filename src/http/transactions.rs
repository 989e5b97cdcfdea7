//! Transactions by their ids, strongly consistent: read from the events.

use axum::extract::State;
use axum::response::Response;
use uuid::Uuid;

use super::openapi::problems::TransactionProblems;
use super::path::TextPath;
use super::problem::{HttpError, HttpResult};
use super::views::json;
use super::{Caller, HttpState};
use crate::answer::{ProblemCode, TransactionView};
use crate::store::{self, transactions};

/// What one command did, known from its answer on to every instance.
#[utoipa::path(
    get, path = "/transactions/{id}", tag = "wallets", operation_id = "getTransaction",
    params(("id" = Uuid, Path, description = "`transactionId` of a movement, `transferId` of a transfer")),
    responses((status = 200, description = "The transaction", body = TransactionView), TransactionProblems)
)]
pub(super) async fn show(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    TextPath(id): TextPath,
) -> HttpResult<Response> {
    let invalid = |_| HttpError::at(ProblemCode::InvalidId, "path", "a transaction's id is a UUID");
    let id = Uuid::parse_str(&id).map_err(invalid)?;
    let mut connection = store::session(&state.pools.reads, &tenant).await?;
    let events = transactions::events_of(&mut connection, &tenant, id).await?;
    let unknown = || {
        HttpError::new(ProblemCode::TransactionNotFound, format!("no transaction has the id {id}"))
    };
    let view = TransactionView::new(&events).ok_or_else(unknown)?;
    Ok(json(&view))
}
