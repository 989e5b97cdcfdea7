//! /admin/outbox: what waits, what the broker refused, what is to be sent again.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::body::CommandBody;
use super::super::openapi::problems::{RepairProblems, RepublishProblems, StateProblems};
use super::super::problem::{HttpError, HttpResult};
use super::super::views::{answer, json};
use super::super::{Caller, HttpState};
use crate::answer::ProblemCode;
use crate::republisher;
use crate::request::{Ids, Time, body};
use crate::store;
use crate::store::outbox::repair::{self, RetrySelector};
use crate::store::outbox::republish::RepublishSelector;
use crate::wallet::WalletId;

/// The backlog, refused rows, and what was never sent.
#[utoipa::path(
    get, path = "/admin/outbox", tag = "admin", operation_id = "getOutbox",
    responses((status = 200, description = "The state of the outbox", body = repair::State), StateProblems)
)]
pub async fn status(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
) -> HttpResult<Response> {
    let mut connection = store::acquire(&state.pools.upkeep).await?;
    let mut found = repair::state(&mut connection, &tenant).await?;
    if state.status.snapshot().second.is_some() {
        found.second = store::dual_publish::backlog(&state.pools.upkeep, &tenant).await?;
    }
    Ok(json(&found))
}

/// Has rows that the broker refused tried again.
#[utoipa::path(
    post, path = "/admin/outbox/retry", tag = "admin", operation_id = "retryOutbox",
    request_body = RetryBody,
    responses((status = 200, description = "How many", body = Retried), RepairProblems)
)]
pub async fn retry(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    CommandBody(body): CommandBody<RetryBody>,
) -> HttpResult<Response> {
    let choices = [
        body.ids.map(|ids| RetrySelector::Ids(ids.0)),
        body.wallet_id.map(RetrySelector::Wallet),
        body.all.then_some(RetrySelector::All),
    ];
    let dry_run = body.dry_run;
    let which = one(choices, "give one of ids, walletId and all")?;
    let rows = repair::retried(&state.pools.upkeep, &tenant, &which, dry_run).await?;
    if !dry_run {
        state.repairs.publisher.notify_one();
    }
    Ok(answer(StatusCode::OK, &Retried { rows, dry_run }))
}

/// Has events sent again, in order.
///
/// Of a wallet everything from the first chosen event on. It goes on in the background; `GET
/// /admin/outbox` shows what is left.
#[utoipa::path(
    post, path = "/admin/outbox/republish", tag = "admin", operation_id = "republishOutbox",
    request_body = RepublishBody,
    responses(
        (status = 200, description = "What it would be, with `dryRun`", body = Republished),
        (status = 202, description = "What it will be", body = Republished),
        RepublishProblems
    )
)]
pub async fn republish(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    CommandBody(body): CommandBody<RepublishBody>,
) -> HttpResult<Response> {
    let choices = [
        body.unpublished.then_some(RepublishSelector::Unpublished),
        body.wallet_id.map(RepublishSelector::Wallet),
        body.since.map(|since| RepublishSelector::Since(since.0)),
        body.all.then_some(RepublishSelector::All),
    ];
    let dry_run = body.dry_run;
    let selection = one(choices, "give one of unpublished, walletId, since and all")?;
    if !state.status.snapshot().kafka_enabled {
        let detail = "there is no topic to send to: set KAFKA_ENABLED=true and restart first";
        return Err(HttpError::new(ProblemCode::KafkaDisabled, detail));
    }
    let asked = republisher::ask(&state.pools.upkeep, &tenant, &selection, dry_run).await;
    let counts = asked.map_err(|error| match error.is_refusal() {
        true => HttpError::new(ProblemCode::Archived, error.to_string()),
        false => error.into(),
    })?;
    state.repairs.republisher.notify_one();
    let status = if dry_run { StatusCode::OK } else { StatusCode::ACCEPTED };
    let (wallets, events) = (counts.wallets, counts.events);
    Ok(answer(status, &Republished { wallets, events, dry_run }))
}

body! {
    /// Which refused rows are tried again: one of the three.
    pub struct RetryBody {
        ids as "ids": Option<Ids>,
        wallet_id as "walletId": Option<WalletId>,
        all as "all": bool,
        /// Only count.
        dry_run as "dryRun": bool,
    }
}

body! {
    /// What is sent again: one of the four.
    pub struct RepublishBody {
        /// What was applied without Kafka and never sent.
        unpublished as "unpublished": bool,
        wallet_id as "walletId": Option<WalletId>,
        /// Events of this time or later, and what follows them.
        since as "since": Option<Time>,
        all as "all": bool,
        /// Only count.
        dry_run as "dryRun": bool,
    }
}

/// The one choice that was made.
fn one<T, const N: usize>(choices: [Option<T>; N], rule: &str) -> HttpResult<T> {
    let mut made = choices.into_iter().flatten();
    match (made.next(), made.next()) {
        (Some(choice), None) => Ok(choice),
        _ => Err(HttpError::at(ProblemCode::InvalidValue, "/", rule)),
    }
}

/// How many rows are tried again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Retried {
    #[schema(minimum = 0)]
    rows: i64,
    dry_run: bool,
}

/// How much is to be sent again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Republished {
    #[schema(minimum = 0)]
    wallets: i64,
    #[schema(minimum = 0)]
    events: i64,
    dry_run: bool,
}
