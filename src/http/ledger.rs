//! The ledger routes: projected, with the version that they are at.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::TimeDelta;
use rust_decimal::Decimal;
use serde::Serialize;
use uuid::Uuid;

use super::cursor::Moment;
use super::openapi::problems::{ProjectedByIdProblems, ProjectedProblems, WalletEntriesProblems};
use super::openapi::requests::{ConsistencyToken, EntryFilter as EntryParameters, Page, WalletId};
use super::path::{TextPath, WalletPath};
use super::problem::{HttpError, HttpResult};
use super::query::Parameters;
use super::views::{EntryView, ReferenceLedger, SummaryView, Transactions, WalletLedger, json};
use super::{Caller, HttpState, consistency, cursor, wallets};
use crate::answer::ProblemCode;
use crate::ledger::TransactionType;
use crate::projector::LEDGER;
use crate::store::archives;
use crate::store::entries::{self, EntryCursor, EntryFilter, EntryRow};
use crate::store::{Connection, history};
use crate::wallet::{AmountError, Currency, parse_decimal};

const LIMIT: i64 = 50;
/// Further back, a cursor is the way: an offset reads all that it skips.
const OFFSET_MAX: i64 = 100_000;

/// What no index leads to is looked for in this many days.
const DAYS_MAX: i64 = 92;

fn filter(parameters: &Parameters) -> HttpResult<EntryFilter> {
    let exactly = amount(parameters, "amount")?;
    Ok(EntryFilter {
        transaction_type: parameters.one_of("transactionType", TransactionType::parse)?,
        start: parameters.time("startDate", false)?,
        end: parameters.time("endDate", true)?,
        reference: parameters.text("reference").map(str::to_owned),
        currency: parameters.one_of("currency", Currency::parse)?,
        least: exactly.or(amount(parameters, "minAmount")?),
        most: exactly.or(amount(parameters, "maxAmount")?),
        limit: parameters.limit(LIMIT)?,
        offset: parameters.number("offset", 0, 0, OFFSET_MAX)?,
    })
}

fn amount(parameters: &Parameters, name: &str) -> HttpResult<Option<Decimal>> {
    let Some(text) = parameters.text(name) else { return Ok(None) };
    let invalid = |error: AmountError| {
        HttpError::at(ProblemCode::InvalidValue, format!("?{name}"), error.to_string())
    };
    parse_decimal(text).map(Some).map_err(invalid)
}

/// All wallets' entries are not searched through: an amount or a currency alone needs a period.
async fn bounded(connection: &mut Connection, filter: &EntryFilter) -> HttpResult<()> {
    let narrows = filter.currency.is_some() || filter.least.is_some() || filter.most.is_some();
    if !narrows || filter.reference.is_some() {
        return Ok(());
    }
    let rule = "with an amount or a currency, startDate to endDate must be at most 92 days, or there \
                must be a reference";
    let too_long = || HttpError::at(ProblemCode::InvalidValue, "?startDate", rule);
    let start = filter.start.ok_or_else(too_long)?;
    let end = match filter.end {
        Some(end) => end,
        None => history::now(connection).await?,
    };
    if end - start > TimeDelta::days(DAYS_MAX) { Err(too_long()) } else { Ok(()) }
}

/// Where the former page over several wallets ended.
fn entry_cursor(parameters: &Parameters) -> HttpResult<Option<EntryCursor>> {
    let after: Option<(Moment, Uuid)> = cursor::position(parameters)?;
    Ok(after.map(|(Moment(created_at), event_id)| EntryCursor { created_at, event_id }))
}

/// Where the next page begins.
fn next<T: Serialize>(
    rows: &[EntryRow],
    limit: i64,
    at: impl Fn(&EntryRow) -> T,
) -> Option<String> {
    cursor::last_of_full(rows, limit).map(|last| cursor::encode(&at(last)))
}

/// One wallet's entries, newest first. An unknown wallet has none.
#[utoipa::path(
    get, path = "/ledger/wallet/{id}", tag = "ledger", operation_id = "listWalletTransactions",
    params(WalletId, EntryParameters, ConsistencyToken),
    responses((status = 200, description = "The entries", body = WalletLedger), WalletEntriesProblems)
)]
pub(super) async fn wallet(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    WalletPath(id): WalletPath,
    parameters: Parameters,
    headers: HeaderMap,
) -> HttpResult<Response> {
    let filter = filter(&parameters)?;
    let before: Option<i64> = cursor::position(&parameters)?;
    let mut connection = consistency::read(&headers, &state, &tenant, LEDGER).await?;
    // Read first: the entries shown are at least as new as the version stated.
    let projected_version =
        entries::projected_version(&mut connection, &tenant, LEDGER, &id).await?;
    if let Some(before) = before {
        let archived = archives::archived_version(&mut connection, &tenant, &id).await?;
        if before <= archived + 1 && archived > 0 {
            return Err(wallets::gone(&mut connection, archived).await?);
        }
    }
    let rows = entries::of_wallet(&mut connection, &tenant, &id, &filter, before).await?;
    let body = WalletLedger {
        wallet_id: id.as_str(),
        count: rows.len(),
        transactions: EntryView::all(&rows),
        next_cursor: next(&rows, filter.limit, |entry| entry.version),
        projected_version,
    };
    Ok(json(&body))
}

/// A wallet's totals. An unknown wallet has zeros.
#[utoipa::path(
    get, path = "/ledger/wallet/{id}/summary", tag = "ledger", operation_id = "getWalletSummary",
    params(WalletId, ConsistencyToken),
    responses((status = 200, description = "The totals", body = SummaryView), ProjectedByIdProblems)
)]
pub(super) async fn summary(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    WalletPath(id): WalletPath,
    headers: HeaderMap,
) -> HttpResult<Response> {
    let mut connection = consistency::read(&headers, &state, &tenant, LEDGER).await?;
    let summary = entries::summary(&mut connection, &tenant, LEDGER, &id).await?;
    let body = SummaryView::new(id.as_str(), &summary);
    Ok(json(&body))
}

/// The entries of one reference, newest first: both sides of a transfer.
#[utoipa::path(
    get, path = "/ledger/reference/{reference}", tag = "ledger", operation_id = "listReferenceTransactions",
    params(("reference" = String, Path, description = "A caller's reference, or the id of a transaction or transfer"), Page, ConsistencyToken),
    responses((status = 200, description = "The entries", body = ReferenceLedger), ProjectedByIdProblems)
)]
pub(super) async fn reference(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    TextPath(reference): TextPath,
    parameters: Parameters,
    headers: HeaderMap,
) -> HttpResult<Response> {
    let limit = parameters.limit(LIMIT)?;
    let after = entry_cursor(&parameters)?;
    let mut connection = consistency::read(&headers, &state, &tenant, LEDGER).await?;
    let rows = entries::of_reference(&mut connection, &tenant, &reference, limit, after).await?;
    let body = ReferenceLedger {
        reference_id: &reference,
        count: rows.len(),
        transactions: EntryView::all(&rows),
        next_cursor: next(&rows, limit, |entry| (entry.created_at, entry.event_id)),
    };
    Ok(json(&body))
}

/// Every wallet's entries, newest first.
#[utoipa::path(
    get, path = "/ledger/transactions", tag = "ledger", operation_id = "listTransactions",
    params(EntryParameters, ConsistencyToken),
    responses((status = 200, description = "The entries", body = Transactions), ProjectedProblems)
)]
pub(super) async fn transactions(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    parameters: Parameters,
    headers: HeaderMap,
) -> HttpResult<Response> {
    let filter = filter(&parameters)?;
    let after = entry_cursor(&parameters)?;
    let mut connection = consistency::read(&headers, &state, &tenant, LEDGER).await?;
    bounded(&mut connection, &filter).await?;
    let rows = entries::of_all(&mut connection, &tenant, &filter, after).await?;
    let body = Transactions {
        count: rows.len(),
        transactions: EntryView::all(&rows),
        next_cursor: next(&rows, filter.limit, |entry| (entry.created_at, entry.event_id)),
    };
    Ok(json(&body))
}
