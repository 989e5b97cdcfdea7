//! The ledger routes: projected, with the version that they are at.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::path::{TextPath, WalletPath};
use super::problem::HttpResult;
use super::query::Parameters;
use super::wallets::json;
use super::{HttpState, consistency, cursor};
use crate::envelope::timestamp;
use crate::ledger::TransactionType;
use crate::projector::LEDGER;
use crate::store;
use crate::store::entries::{self, EntryCursor, EntryFilter, EntryRow};
use crate::wallet::{Metadata, TenantId};

const LIMIT: i64 = 50;
/// Further back, a cursor is the way: an offset reads all that it skips.
const OFFSET_MAX: i64 = 100_000;

/// An entry as the ledger routes show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryView<'a> {
    id: Uuid,
    wallet_id: &'a str,
    transaction_type: &'static str,
    amount: String,
    balance_before: String,
    balance_after: String,
    currency: &'static str,
    description: Option<&'a str>,
    reference_id: &'a str,
    related_wallet_id: Option<&'a str>,
    metadata: Option<&'a Metadata>,
    event_id: Uuid,
    version: i64,
    created_at: String,
}

impl<'a> EntryView<'a> {
    fn new(entry: &'a EntryRow) -> Self {
        Self {
            id: entry.id,
            wallet_id: &entry.wallet_id,
            transaction_type: entry.transaction_type.as_str(),
            amount: entry.amount.to_string(),
            balance_before: entry.balance_before.to_string(),
            balance_after: entry.balance_after.to_string(),
            currency: entry.currency.code(),
            description: entry.description.as_deref(),
            reference_id: &entry.reference_id,
            related_wallet_id: entry.related_wallet_id.as_deref(),
            metadata: entry.metadata.as_ref(),
            event_id: entry.event_id,
            version: entry.version,
            created_at: timestamp(entry.created_at),
        }
    }
}

fn views(entries: &[EntryRow]) -> Vec<EntryView<'_>> {
    entries.iter().map(EntryView::new).collect()
}

fn filter(parameters: &Parameters) -> HttpResult<EntryFilter> {
    Ok(EntryFilter {
        transaction_type: parameters.one_of("transactionType", TransactionType::parse)?,
        start: parameters.time("startDate", false)?,
        end: parameters.time("endDate", true)?,
        reference: parameters.text("reference").map(str::to_owned),
        limit: parameters.limit(LIMIT)?,
        offset: parameters.number("offset", 0, 0, OFFSET_MAX)?,
    })
}

/// A full page may have another behind it.
fn next<T: Serialize>(
    rows: &[EntryRow],
    limit: i64,
    at: impl Fn(&EntryRow) -> T,
) -> Option<String> {
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    rows.last().filter(|_| full).map(|last| cursor::encode(&at(last)))
}

/// One wallet's entries, newest first. An unknown wallet has none.
pub(super) async fn wallet(
    State(state): State<HttpState>,
    WalletPath(id): WalletPath,
    parameters: Parameters,
    headers: HeaderMap,
) -> HttpResult<Response> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        wallet_id: &'a str,
        count: usize,
        transactions: Vec<EntryView<'a>>,
        next_cursor: Option<String>,
        projected_version: i64,
    }
    let tenant = TenantId::default_tenant();
    let filter = filter(&parameters)?;
    let before: Option<i64> = cursor::position(&parameters)?;
    let mut connection = store::acquire(&state.pool).await?;
    consistency::wait_for(&headers, &mut connection, &tenant, LEDGER).await?;
    // Read first: the entries shown are at least as new as the version stated.
    let projected_version =
        entries::projected_version(&mut connection, &tenant, LEDGER, &id).await?;
    let rows = entries::of_wallet(&mut connection, &tenant, &id, &filter, before).await?;
    let body = Body {
        wallet_id: id.as_str(),
        count: rows.len(),
        transactions: views(&rows),
        next_cursor: next(&rows, filter.limit, |entry| entry.version),
        projected_version,
    };
    Ok(json(serde_json::to_string(&body).unwrap_or_default()))
}

/// A wallet's totals. An unknown wallet has zeros.
pub(super) async fn summary(
    State(state): State<HttpState>,
    WalletPath(id): WalletPath,
    headers: HeaderMap,
) -> HttpResult<Response> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        wallet_id: &'a str,
        total_credits: &'a str,
        total_debits: &'a str,
        transaction_count: i64,
        last_transaction: Option<EntryView<'a>>,
    }
    let tenant = TenantId::default_tenant();
    let mut connection = store::acquire(&state.pool).await?;
    consistency::wait_for(&headers, &mut connection, &tenant, LEDGER).await?;
    let summary = entries::summary(&mut connection, &tenant, &id).await?;
    let body = Body {
        wallet_id: id.as_str(),
        total_credits: &summary.total_credits,
        total_debits: &summary.total_debits,
        transaction_count: summary.transaction_count,
        last_transaction: summary.last.as_ref().map(EntryView::new),
    };
    Ok(json(serde_json::to_string(&body).unwrap_or_default()))
}

/// Every entry of one reference: both sides of a transfer.
pub(super) async fn reference(
    State(state): State<HttpState>,
    TextPath(reference): TextPath,
    parameters: Parameters,
    headers: HeaderMap,
) -> HttpResult<Response> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        reference_id: &'a str,
        count: usize,
        transactions: Vec<EntryView<'a>>,
    }
    let tenant = TenantId::default_tenant();
    let limit = parameters.limit(LIMIT)?;
    let mut connection = store::acquire(&state.pool).await?;
    consistency::wait_for(&headers, &mut connection, &tenant, LEDGER).await?;
    let rows = entries::of_reference(&mut connection, &tenant, &reference, limit).await?;
    let body = Body { reference_id: &reference, count: rows.len(), transactions: views(&rows) };
    Ok(json(serde_json::to_string(&body).unwrap_or_default()))
}

/// Every wallet's entries, newest first.
pub(super) async fn transactions(
    State(state): State<HttpState>,
    parameters: Parameters,
    headers: HeaderMap,
) -> HttpResult<Response> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        count: usize,
        transactions: Vec<EntryView<'a>>,
        next_cursor: Option<String>,
    }
    let tenant = TenantId::default_tenant();
    let filter = filter(&parameters)?;
    let after: Option<(DateTime<Utc>, Uuid)> = cursor::position(&parameters)?;
    let after = after.map(|(created_at, event_id)| EntryCursor { created_at, event_id });
    let mut connection = store::acquire(&state.pool).await?;
    consistency::wait_for(&headers, &mut connection, &tenant, LEDGER).await?;
    let rows = entries::of_all(&mut connection, &tenant, &filter, after).await?;
    let body = Body {
        count: rows.len(),
        transactions: views(&rows),
        next_cursor: next(&rows, filter.limit, |entry| (entry.created_at, entry.event_id)),
    };
    Ok(json(serde_json::to_string(&body).unwrap_or_default()))
}
