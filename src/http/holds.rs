//! The routes of holds: four commands, two reads. A hold can be named by its id alone, or beside its
//! wallet, which saves looking that up.

use axum::extract::State;
use axum::response::Response;
use uuid::Uuid;

use super::body::CommandBody;
use super::caller::CommandHead;
use super::cursor::Moment;
use super::openapi::problems::{
    BODY, COMMAND, LATER, MOVEMENT, ON_HOLD, ReadHoldProblems, ReadWalletProblems, SPENT, problems,
};
use super::openapi::requests::{
    CommandHeaders, DryRun, HoldFilter as HoldParameters, HoldId as HoldInPath, IfMatch,
    WalletId as WalletInPath,
};
use super::path::{HoldPath, WalletPath, expected_version};
use super::problem::{HttpError, HttpResult};
use super::query::Parameters;
use super::views::{WalletHolds, json};
use super::wallets::{not_found, run};
use super::{Caller, HttpState, cursor};
use crate::answer::ProblemCode::*;
use crate::answer::{HoldView, Problem};
use crate::execute::generate_wallet_id;
use crate::request::{AdjustBody, CaptureBody, HoldBody, ReleaseBody};
use crate::store::holds::{self, HoldFilter};
use crate::store::{self, wallets};
use crate::wallet::{Command, HoldRef, HoldStatus, Rejection, TenantId};

const LIMIT: i64 = 50;

problems! {
    PlaceProblems: BODY, COMMAND, MOVEMENT, SPENT, LATER,
        &[SameWallet, CurrencyMismatch, HoldExists, TooManyHolds];
    HoldProblems: BODY, COMMAND, MOVEMENT, SPENT, LATER, ON_HOLD;
}

/// Puts money of a wallet on hold: it cannot be spent until the hold is captured, released or expires.
#[utoipa::path(
    post, path = "/wallets/{id}/holds", tag = "holds", operation_id = "placeHold",
    params(WalletInPath, CommandHeaders, IfMatch, DryRun), request_body = HoldBody,
    responses((status = 201, description = "The hold, with its wallet", body = HoldView), PlaceProblems)
)]
pub(super) async fn place(
    State(state): State<HttpState>,
    WalletPath(wallet): WalletPath,
    head: CommandHead,
    CommandBody(body): CommandBody<HoldBody>,
) -> HttpResult<Response> {
    let command = body.command(wallet, expected_version(&head.headers)?, generate_wallet_id);
    run(&state, head, command.map_err(|rejection| Problem::of_rejection(&rejection))?).await
}

/// Gives a hold another amount, or another expiry.
#[utoipa::path(
    post, path = "/holds/{holdId}/adjust", tag = "holds", operation_id = "adjustHold",
    params(HoldInPath, CommandHeaders, IfMatch, DryRun), request_body = AdjustBody,
    responses((status = 201, description = "The hold, with its wallet", body = HoldView), HoldProblems)
)]
pub(super) async fn adjust(
    State(state): State<HttpState>,
    path: HoldPath,
    head: CommandHead,
    CommandBody(body): CommandBody<AdjustBody>,
) -> HttpResult<Response> {
    let hold = named(&state, &head.tenant, path).await?;
    let command = body.command(hold, expected_version(&head.headers)?);
    run(&state, head, command.map_err(|rejection| Problem::of_rejection(&rejection))?).await
}

/// The same, with the wallet in the path.
#[utoipa::path(
    post, path = "/wallets/{id}/holds/{holdId}/adjust", tag = "holds",
    operation_id = "adjustWalletHold",
    params(WalletInPath, HoldInPath, CommandHeaders, IfMatch, DryRun), request_body = AdjustBody,
    responses((status = 201, description = "The hold, with its wallet", body = HoldView), HoldProblems)
)]
pub(super) async fn adjust_of_wallet(
    state: State<HttpState>,
    path: HoldPath,
    head: CommandHead,
    body: CommandBody<AdjustBody>,
) -> HttpResult<Response> {
    adjust(state, path, head, body).await
}

/// Takes money of a hold: what remains of it, or an amount. What then remains is given back, unless
/// `final` is false.
#[utoipa::path(
    post, path = "/holds/{holdId}/capture", tag = "holds", operation_id = "captureHold",
    params(HoldInPath, CommandHeaders, IfMatch, DryRun), request_body = CaptureBody,
    responses(
        (status = 201, description = "The hold, with its wallet and the transaction", body = HoldView),
        HoldProblems
    )
)]
pub(super) async fn capture(
    State(state): State<HttpState>,
    path: HoldPath,
    head: CommandHead,
    CommandBody(body): CommandBody<CaptureBody>,
) -> HttpResult<Response> {
    let hold = named(&state, &head.tenant, path).await?;
    let mut command = body.command(hold, expected_version(&head.headers)?);
    find_destinations(&state, &head.tenant, vec![&mut command]).await?;
    run(&state, head, command).await
}

/// The same, with the wallet in the path.
#[utoipa::path(
    post, path = "/wallets/{id}/holds/{holdId}/capture", tag = "holds",
    operation_id = "captureWalletHold",
    params(WalletInPath, HoldInPath, CommandHeaders, IfMatch, DryRun), request_body = CaptureBody,
    responses(
        (status = 201, description = "The hold, with its wallet and the transaction", body = HoldView),
        HoldProblems
    )
)]
pub(super) async fn capture_of_wallet(
    state: State<HttpState>,
    path: HoldPath,
    head: CommandHead,
    body: CommandBody<CaptureBody>,
) -> HttpResult<Response> {
    capture(state, path, head, body).await
}

/// Gives back what remains of a hold.
#[utoipa::path(
    post, path = "/holds/{holdId}/release", tag = "holds", operation_id = "releaseHold",
    params(HoldInPath, CommandHeaders, IfMatch, DryRun), request_body = ReleaseBody,
    responses((status = 201, description = "The hold, with its wallet", body = HoldView), HoldProblems)
)]
pub(super) async fn release(
    State(state): State<HttpState>,
    path: HoldPath,
    head: CommandHead,
    CommandBody(body): CommandBody<ReleaseBody>,
) -> HttpResult<Response> {
    let hold = named(&state, &head.tenant, path).await?;
    let command = body.command(hold, expected_version(&head.headers)?);
    run(&state, head, command).await
}

/// The same, with the wallet in the path.
#[utoipa::path(
    post, path = "/wallets/{id}/holds/{holdId}/release", tag = "holds",
    operation_id = "releaseWalletHold",
    params(WalletInPath, HoldInPath, CommandHeaders, IfMatch, DryRun), request_body = ReleaseBody,
    responses((status = 201, description = "The hold, with its wallet", body = HoldView), HoldProblems)
)]
pub(super) async fn release_of_wallet(
    state: State<HttpState>,
    path: HoldPath,
    head: CommandHead,
    body: CommandBody<ReleaseBody>,
) -> HttpResult<Response> {
    release(state, path, head, body).await
}

/// A hold, strongly consistent from any instance.
#[utoipa::path(
    get, path = "/holds/{holdId}", tag = "holds", operation_id = "getHold", params(HoldInPath),
    responses((status = 200, description = "The hold", body = HoldView), ReadHoldProblems)
)]
pub(super) async fn show(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    HoldPath { hold: id, .. }: HoldPath,
) -> HttpResult<Response> {
    let mut connection = store::session(&state.pools.reads, &tenant).await?;
    let hold = holds::hold_fetch(&mut connection, &tenant, id).await?;
    let hold = hold.ok_or_else(|| no_hold(id))?;
    Ok(json(&HoldView::new(&hold)))
}

/// A wallet's holds, newest first, strongly consistent from any instance.
#[utoipa::path(
    get, path = "/wallets/{id}/holds", tag = "holds", operation_id = "listWalletHolds",
    params(WalletInPath, HoldParameters),
    responses((status = 200, description = "The holds", body = WalletHolds), ReadWalletProblems)
)]
pub(super) async fn list(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    WalletPath(wallet): WalletPath,
    parameters: Parameters,
) -> HttpResult<Response> {
    let after: Option<(Moment, Uuid)> = cursor::position(&parameters)?;
    let filter = HoldFilter {
        status: parameters.one_of("status", HoldStatus::parse)?,
        reference: parameters.text("reference").map(str::to_owned),
        after: after.map(|(Moment(at), id)| (at, id)),
        limit: parameters.limit(LIMIT)?,
    };
    let mut connection = store::session(&state.pools.reads, &tenant).await?;
    let found = holds::of_wallet(&mut connection, &tenant, &wallet, &filter).await?;
    if found.is_empty() && wallets::wallet_fetch(&mut connection, &tenant, &wallet).await?.is_none()
    {
        return Err(not_found(&wallet));
    }
    let next = cursor::last_of_full(&found, filter.limit);
    let next = next.map(|last| cursor::encode(&(last.created_at, last.id)));
    let body = WalletHolds {
        wallet_id: wallet.as_str(),
        count: found.len(),
        holds: found.iter().map(HoldView::new).collect(),
        next_cursor: next,
    };
    Ok(json(&body))
}

/// The hold that a path names, with its wallet.
async fn named(state: &HttpState, tenant: &TenantId, path: HoldPath) -> HttpResult<HoldRef> {
    let HoldPath { hold: id, wallet } = path;
    if let Some(wallet_id) = wallet {
        return Ok(HoldRef { id, wallet_id, to: None });
    }
    let homes = state.executor.homes();
    let home = match homes.get(tenant, id) {
        Some(home) => Some(home),
        None => {
            let mut connection = store::session(&state.pools.reads, tenant).await?;
            homes.find(&mut connection, tenant, id).await?
        }
    };
    let home = home.ok_or_else(|| no_hold(id))?;
    Ok(HoldRef { id, wallet_id: home.wallet_id, to: home.to })
}

/// Tells captures where their money goes, so that it is locked with the rest.
pub(super) async fn find_destinations(
    state: &HttpState,
    tenant: &TenantId,
    mut commands: Vec<&mut Command>,
) -> HttpResult<()> {
    let homes = state.executor.homes();
    let unknown = homes.fill(tenant, commands.iter_mut().map(|command| &mut **command));
    if !unknown.is_empty() {
        let mut connection = store::session(&state.pools.reads, tenant).await?;
        homes.learn(&mut connection, tenant, &unknown).await?;
        homes.fill(tenant, commands.into_iter());
    }
    Ok(())
}

fn no_hold(hold: Uuid) -> HttpError {
    HttpError(Problem::of_rejection(&Rejection::HoldNotFound { hold }))
}
