//! The routes that change what a wallet may do, how far it may go, and what is noted on it.

use axum::extract::State;
use axum::response::Response;

use super::HttpState;
use super::body::CommandBody;
use super::caller::CommandHead;
use super::openapi::problems::{BODY, COMMAND, LATER, MOVEMENT, SPENT, problems};
use super::openapi::requests::{CommandHeaders, DryRun, IfMatch, WalletId as WalletInPath};
use super::path::{WalletPath, expected_version};
use super::problem::HttpResult;
use super::views::MovedWallet;
use super::wallets::run;
use crate::answer::ProblemCode::*;
use crate::request::{CloseBody, LimitsBody, MetadataBody, StatusBody};
use crate::wallet::NewStatus;

problems! {
    StatusProblems: BODY, COMMAND, LATER,
        &[WalletNotFound, WalletClosed, VersionMismatch, StatusUnchanged];
    CloseProblems: BODY, COMMAND, MOVEMENT, SPENT, LATER,
        &[SameWallet, CurrencyMismatch, WalletNotEmpty, WalletHasHolds];
    LimitsProblems: BODY, COMMAND, MOVEMENT, LATER, &[LimitInUse];
    MetadataProblems: BODY, COMMAND, MOVEMENT, LATER;
}

/// Freezes a wallet: nothing happens on it but the end of holds.
#[utoipa::path(
    post, path = "/wallets/{id}/freeze", tag = "wallets", operation_id = "freezeWallet",
    params(WalletInPath, CommandHeaders, IfMatch, DryRun), request_body = StatusBody,
    responses((status = 201, description = "The wallet after it", body = MovedWallet), StatusProblems)
)]
pub(super) async fn freeze(
    State(state): State<HttpState>,
    WalletPath(wallet): WalletPath,
    head: CommandHead,
    CommandBody(body): CommandBody<StatusBody>,
) -> HttpResult<Response> {
    let expected = expected_version(&head.headers)?;
    run(&state, head, body.command(wallet, NewStatus::Frozen, expected)).await
}

/// Suspends a wallet: money comes in, and none leaves but what is on hold already.
#[utoipa::path(
    post, path = "/wallets/{id}/suspend", tag = "wallets", operation_id = "suspendWallet",
    params(WalletInPath, CommandHeaders, IfMatch, DryRun), request_body = StatusBody,
    responses((status = 201, description = "The wallet after it", body = MovedWallet), StatusProblems)
)]
pub(super) async fn suspend(
    State(state): State<HttpState>,
    WalletPath(wallet): WalletPath,
    head: CommandHead,
    CommandBody(body): CommandBody<StatusBody>,
) -> HttpResult<Response> {
    let expected = expected_version(&head.headers)?;
    run(&state, head, body.command(wallet, NewStatus::Suspended, expected)).await
}

/// Lets a wallet do everything again.
#[utoipa::path(
    post, path = "/wallets/{id}/activate", tag = "wallets", operation_id = "activateWallet",
    params(WalletInPath, CommandHeaders, IfMatch, DryRun), request_body = StatusBody,
    responses((status = 201, description = "The wallet after it", body = MovedWallet), StatusProblems)
)]
pub(super) async fn activate(
    State(state): State<HttpState>,
    WalletPath(wallet): WalletPath,
    head: CommandHead,
    CommandBody(body): CommandBody<StatusBody>,
) -> HttpResult<Response> {
    let expected = expected_version(&head.headers)?;
    run(&state, head, body.command(wallet, NewStatus::Active, expected)).await
}

/// Closes a wallet for ever, after its balance has gone to another one, where that is named.
#[utoipa::path(
    post, path = "/wallets/{id}/close", tag = "wallets", operation_id = "closeWallet",
    params(WalletInPath, CommandHeaders, IfMatch, DryRun), request_body = CloseBody,
    responses((status = 201, description = "The wallet after it", body = MovedWallet), CloseProblems)
)]
pub(super) async fn close(
    State(state): State<HttpState>,
    WalletPath(wallet): WalletPath,
    head: CommandHead,
    CommandBody(body): CommandBody<CloseBody>,
) -> HttpResult<Response> {
    let expected = expected_version(&head.headers)?;
    run(&state, head, body.command(wallet, expected)).await
}

/// Gives a wallet another overdraft limit.
#[utoipa::path(
    post, path = "/wallets/{id}/limits", tag = "wallets", operation_id = "limitWallet",
    params(WalletInPath, CommandHeaders, IfMatch, DryRun), request_body = LimitsBody,
    responses((status = 201, description = "The wallet after it", body = MovedWallet), LimitsProblems)
)]
pub(super) async fn limits(
    State(state): State<HttpState>,
    WalletPath(wallet): WalletPath,
    head: CommandHead,
    CommandBody(body): CommandBody<LimitsBody>,
) -> HttpResult<Response> {
    let expected = expected_version(&head.headers)?;
    run(&state, head, body.command(wallet, expected)).await
}

/// Gives a wallet other metadata, all of them.
#[utoipa::path(
    patch, path = "/wallets/{id}", tag = "wallets", operation_id = "noteOnWallet",
    params(WalletInPath, CommandHeaders, IfMatch, DryRun), request_body = MetadataBody,
    responses((status = 201, description = "The wallet after it", body = MovedWallet), MetadataProblems)
)]
pub(super) async fn metadata(
    State(state): State<HttpState>,
    WalletPath(wallet): WalletPath,
    head: CommandHead,
    CommandBody(body): CommandBody<MetadataBody>,
) -> HttpResult<Response> {
    let expected = expected_version(&head.headers)?;
    run(&state, head, body.command(wallet, expected)).await
}
