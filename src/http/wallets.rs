//! The wallet routes: four commands, three reads.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;

use super::body::CommandBody;
use super::caller::CommandHead;
use super::openapi::problems::{
    BODY, COMMAND, LATER, MOVEMENT, ON_HOLD, ProjectedProblems, ReadWalletProblems, SPENT,
    WalletEventsProblems, problems,
};
use super::openapi::requests::{
    self as bodies, CommandHeaders, ConsistencyToken, DryRun, IfMatch, IfNoneMatch,
};
use super::path::{WalletPath, expected_version, idempotency_key, is_known, key_required};
use super::problem::{DRY_RUN, HttpError, HttpResult, REPLAYED, render_answer};
use super::query::Parameters;
use super::views::{Events, MovedWallet, json};
use super::{Caller, HttpState, consistency, cursor};
use crate::answer::ProblemCode::*;
use crate::answer::{Answer, Problem, TransferView, WalletView, event_json, of_dry_run};
use crate::execute::{Key, Operation, Request, generate_wallet_id};
use crate::projector::READ_MODEL;
use crate::request::{CreateWalletBody, MovementBody, TransferBody};
use crate::store::{self, archives, read_model, wallets};
use crate::wallet::{Command, Currency, Movement, Rejection, Status, TenantId, WalletId};

const LIST_LIMIT: i64 = 1000;
const EVENTS_LIMIT: i64 = 50;

problems! {
    CreateProblems: BODY, COMMAND, &[InvalidCurrency, WalletExists];
    CreditProblems: BODY, COMMAND, MOVEMENT;
    DebitProblems: BODY, COMMAND, MOVEMENT, SPENT;
    TransferProblems: BODY, COMMAND, MOVEMENT, SPENT, &[SameWallet, CurrencyMismatch];
    /// POST /bulk: refused as a whole; with `atomic`, for what any of its operations may be.
    BulkProblems: BODY, COMMAND, MOVEMENT, SPENT, LATER, ON_HOLD,
        &[InvalidCurrency, WalletExists, SameWallet, CurrencyMismatch, HoldExists, TooManyHolds],
        &[StatusUnchanged, WalletNotEmpty, WalletHasHolds, LimitInUse];
}

/// Opens a wallet.
#[utoipa::path(
    post, path = "/wallets", tag = "wallets", operation_id = "createWallet",
    params(CommandHeaders, DryRun), request_body = CreateWalletBody,
    responses(
        (status = 201, description = "The wallet", body = WalletView,
            headers(("ETag" = String, description = "The wallet's version, quoted"))),
        CreateProblems
    )
)]
pub(super) async fn create(
    State(state): State<HttpState>,
    head: CommandHead,
    CommandBody(body): CommandBody<CreateWalletBody>,
) -> HttpResult<Response> {
    run(&state, head, body.command(generate_wallet_id)).await
}

/// Adds money to a wallet.
#[utoipa::path(
    post, path = "/wallets/{id}/credit", tag = "wallets", operation_id = "creditWallet",
    params(bodies::WalletId, CommandHeaders, IfMatch, DryRun), request_body = MovementBody,
    responses(
        (status = 201, description = "The wallet after the credit", body = MovedWallet,
            headers(("ETag" = String, description = "The wallet's version, quoted"))),
        CreditProblems
    )
)]
pub(super) async fn credit(
    state: State<HttpState>,
    path: WalletPath,
    head: CommandHead,
    CommandBody(body): CommandBody<MovementBody>,
) -> HttpResult<Response> {
    movement(state, path, head, body, Command::Credit).await
}

/// Takes money from a wallet, if it has as much available.
#[utoipa::path(
    post, path = "/wallets/{id}/debit", tag = "wallets", operation_id = "debitWallet",
    params(bodies::WalletId, CommandHeaders, IfMatch, DryRun), request_body = MovementBody,
    responses(
        (status = 201, description = "The wallet after the debit", body = MovedWallet,
            headers(("ETag" = String, description = "The wallet's version, quoted"))),
        DebitProblems
    )
)]
pub(super) async fn debit(
    state: State<HttpState>,
    path: WalletPath,
    head: CommandHead,
    CommandBody(body): CommandBody<MovementBody>,
) -> HttpResult<Response> {
    movement(state, path, head, body, Command::Debit).await
}

async fn movement(
    State(state): State<HttpState>,
    WalletPath(wallet_id): WalletPath,
    head: CommandHead,
    body: MovementBody,
    command: impl FnOnce(Movement) -> Command,
) -> HttpResult<Response> {
    let movement = body.movement(wallet_id, expected_version(&head.headers)?);
    run(&state, head, command(movement)).await
}

/// Moves money to another wallet of the same currency: both sides or none.
#[utoipa::path(
    post, path = "/wallets/{id}/transfer", tag = "wallets", operation_id = "transfer",
    params(bodies::WalletId, CommandHeaders, IfMatch, DryRun), request_body = TransferBody,
    responses(
        (status = 201, description = "Both wallets after the transfer", body = TransferView),
        TransferProblems
    )
)]
pub(super) async fn transfer(
    State(state): State<HttpState>,
    WalletPath(from): WalletPath,
    head: CommandHead,
    CommandBody(body): CommandBody<TransferBody>,
) -> HttpResult<Response> {
    let command = body.command(from, expected_version(&head.headers)?);
    let command = command.map_err(|rejection| Problem::of_rejection(&rejection))?;
    run(&state, head, command).await
}

/// One command from its key to its answer.
pub(super) async fn run(
    state: &HttpState,
    head: CommandHead,
    command: Command,
) -> HttpResult<Response> {
    let CommandHead { tenant, context, headers, dry_run } = head;
    // A dry run neither reads nor writes keys.
    let key = if dry_run { None } else { idempotency_key(&headers)? };
    if key.is_none() && state.settings.require_idempotency_key && !dry_run {
        return Err(key_required());
    }
    let key = key.map(|key| Key::new(&key, &command));
    let operations = vec![Operation { command, key, context: None }];
    let request = Request { tenant, operations, atomic: false, context, key: None, dry_run };
    let reply = state.executor.execute(request).await.only()?;
    if dry_run {
        let mut response = render_answer(of_dry_run(Answer::of(&reply)));
        response.headers_mut().insert(DRY_RUN, HeaderValue::from_static("true"));
        return Ok(response);
    }
    let mut answer = Answer::of(&reply);
    let versions = std::mem::take(&mut answer.versions);
    let mut response = render_answer(answer);
    let headers = response.headers_mut();
    if reply.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    if !versions.is_empty() {
        headers.insert(consistency::HEADER, consistency::token(&versions));
    }
    if let [(_, version)] = versions.as_slice() {
        headers.insert(header::ETAG, etag(*version));
    }
    Ok(response)
}

fn etag(version: i64) -> HeaderValue {
    // Digits in quotes are a valid header value.
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// A wallet, strongly consistent from any instance: read from the write side.
#[utoipa::path(
    get, path = "/wallets/{id}", tag = "wallets", operation_id = "getWallet",
    params(bodies::WalletId, IfNoneMatch),
    responses(
        (status = 200, description = "The wallet", body = WalletView, headers(("ETag" = String, description = "The wallet's version, quoted"))),
        (status = 304, description = "The wallet still has this version", headers(("ETag" = String, description = "The wallet's version, quoted"))),
        ReadWalletProblems
    )
)]
pub(super) async fn show(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    WalletPath(id): WalletPath,
    headers: HeaderMap,
) -> HttpResult<Response> {
    let mut connection = store::session(&state.pools.reads, &tenant).await?;
    let wallet = wallets::wallet_fetch(&mut connection, &tenant, &id).await?;
    let wallet = wallet.ok_or_else(|| not_found(&id))?;
    let tag = etag(wallet.version);
    let mut response = match is_known(&headers, wallet.version) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => json(&WalletView::new(&wallet)),
    };
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// Wallets, newest first, from the read model.
#[utoipa::path(
    get, path = "/wallets", tag = "wallets", operation_id = "listWallets",
    params(bodies::WalletFilter, ConsistencyToken),
    responses(
        (status = 200, description = "The wallets; a full page has a `Link` to the next",
            body = Vec<WalletView>, headers(("Link" = String, description = "rel=\"next\""))),
        ProjectedProblems
    )
)]
pub(super) async fn list(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    parameters: Parameters,
    headers: HeaderMap,
) -> HttpResult<Response> {
    let limit = parameters.limit(LIST_LIMIT)?;
    let after = match cursor::position::<(cursor::Moment, String)>(&parameters)? {
        Some((at, id)) => Some((at.0, WalletId::parse(&id).ok_or_else(cursor::invalid)?)),
        None => None,
    };
    let filter = read_model::WalletFilter {
        owner_id: parameters.text("ownerId").map(str::to_owned),
        currency: parameters.one_of("currency", Currency::parse)?,
        status: parameters.one_of("status", Status::parse)?,
        metadata: parameters.with_prefix("metadata."),
        after,
        limit,
    };
    let mut connection = consistency::read(&headers, &state, &tenant, READ_MODEL).await?;
    let wallets = read_model::list(&mut connection, &tenant, &filter).await?;
    let views: Vec<WalletView<'_>> = wallets.iter().map(WalletView::new).collect();
    let mut response = json(&views);
    if let Some(last) = cursor::last_of_full(&wallets, limit) {
        let next = cursor::encode(&(last.created_at, last.id.as_str()));
        let link = format!("<{}>; rel=\"next\"", parameters.with_cursor("/wallets", &next));
        if let Ok(link) = HeaderValue::try_from(link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}

/// A wallet's events as published, in version order.
#[utoipa::path(
    get, path = "/wallets/{id}/events", tag = "wallets", operation_id = "listWalletEvents",
    params(bodies::WalletId, bodies::EventFilter),
    responses((status = 200, description = "The events", body = Events), WalletEventsProblems)
)]
pub(super) async fn events(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    WalletPath(id): WalletPath,
    parameters: Parameters,
) -> HttpResult<Response> {
    let after = parameters.number("afterVersion", 0, 0, i64::MAX)?;
    let limit = parameters.limit(EVENTS_LIMIT)?;
    let mut connection = store::session(&state.pools.reads, &tenant).await?;
    let archived = archives::archived_version(&mut connection, &tenant, &id).await?;
    if after < archived {
        return Err(gone(&mut connection, archived).await?);
    }
    let events = wallets::wallet_events(&mut connection, &tenant, &id, after, limit).await?;
    if events.is_empty() && wallets::wallet_fetch(&mut connection, &tenant, &id).await?.is_none() {
        return Err(not_found(&id));
    }
    let next = events.last().map_or(after, |(version, _)| *version);
    let events: Vec<Box<RawValue>> =
        events.into_iter().filter_map(|(_, envelope)| event_json(envelope)).collect();
    let body = Events { events, next_after_version: next };
    Ok(json(&body))
}

/// Refuses what is to be read of the wallet at a version that is in an archive. The last of those is not: it stays.
pub(super) async fn is_at_hand(
    connection: &mut store::Connection,
    tenant: &TenantId,
    id: &WalletId,
    version: i64,
) -> HttpResult<()> {
    let archived = archives::archived_version(connection, tenant, id).await?;
    if version == 0 || version >= archived {
        return Ok(());
    }
    Err(gone(connection, archived).await?)
}

/// Says where the events up to this version are.
pub(super) async fn gone(
    connection: &mut store::Connection,
    archived: i64,
) -> HttpResult<HttpError> {
    let names = archives::names(connection).await?;
    let detail = format!(
        "what is up to version {archived} is in the archives {}: read from afterVersion={archived} on, or have \
         an operator bring them back by `wallex archive attach`",
        names.join(", ")
    );
    Ok(HttpError::new(Archived, detail))
}

pub(super) fn not_found(id: &WalletId) -> HttpError {
    let rejection = Rejection::WalletNotFound { wallet: id.clone() };
    HttpError(Problem::of_rejection(&rejection))
}
