//! The answers of the read routes: their JSON, and with it their schemas.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder};
use utoipa::openapi::{Ref, RefOr, Schema};
use uuid::Uuid;

use super::openapi::schemas::{event_data, event_types, transaction_types};
use crate::answer::{HoldView, WalletView};
use crate::envelope::timestamp;
use crate::store::entries::{EntryRow, Summary};
use crate::wallet::Metadata;

/// An answer 200 as JSON.
pub(super) fn json(body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// An answer as JSON, its fields in the order of their names.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_value(body).unwrap_or_default().to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// An entry as the ledger routes show it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Entry)]
pub(super) struct EntryView<'a> {
    id: Uuid,
    wallet_id: &'a str,
    #[schema(schema_with = transaction_types)]
    transaction_type: &'static str,
    /// Greater than zero.
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    amount: String,
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    balance_before: String,
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    balance_after: String,
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: &'static str,
    #[schema(required)]
    description: Option<&'a str>,
    /// The caller's reference, else the id of the transaction or transfer.
    reference_id: &'a str,
    /// The other wallet of a transfer.
    #[schema(required)]
    related_wallet_id: Option<&'a str>,
    #[schema(required, value_type = Option<Object>)]
    metadata: Option<&'a Metadata>,
    event_id: Uuid,
    /// The wallet's version that this entry made.
    #[schema(minimum = 1)]
    version: i64,
    #[schema(format = DateTime)]
    created_at: String,
    /// Whether it raised or lowered the balance.
    #[schema(pattern = "^(CREDIT|DEBIT)$")]
    direction: &'static str,
    /// The grant that it came out of, or went into.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    grant_id: Option<Uuid>,
    /// The hold that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    hold_id: Option<Uuid>,
    /// When it counts from, where that is not when it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    effective_at: Option<String>,
    /// The transaction that it reverses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    reverses_transaction_id: Option<Uuid>,
}

impl<'a> EntryView<'a> {
    pub fn new(entry: &'a EntryRow) -> Self {
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
            direction: entry.side.as_str(),
            grant_id: entry.grant_id,
            hold_id: entry.hold_id,
            effective_at: entry.effective_at.map(timestamp),
            reverses_transaction_id: entry.reverses,
        }
    }

    pub fn all(entries: &'a [EntryRow]) -> Vec<Self> {
        entries.iter().map(Self::new).collect()
    }
}

/// One wallet's entries.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WalletLedger<'a> {
    pub wallet_id: &'a str,
    /// Entries in this answer.
    pub count: usize,
    pub transactions: Vec<EntryView<'a>>,
    /// Null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
    /// The wallet's version up to which the ledger is written; 0 for an unknown wallet.
    #[schema(minimum = 0)]
    pub projected_version: i64,
}

/// The entries of one reference.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReferenceLedger<'a> {
    pub reference_id: &'a str,
    /// Entries in this answer.
    pub count: usize,
    pub transactions: Vec<EntryView<'a>>,
    /// Null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// Entries of all wallets.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Transactions<'a> {
    /// Entries in this answer.
    pub count: usize,
    pub transactions: Vec<EntryView<'a>>,
    /// Null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// A wallet's holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WalletHolds<'a> {
    pub wallet_id: &'a str,
    /// Holds in this answer.
    pub count: usize,
    pub holds: Vec<HoldView<'a>>,
    /// Null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// A wallet's totals.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = LedgerSummary)]
pub(super) struct SummaryView<'a> {
    wallet_id: &'a str,
    /// Credits and incoming transfers.
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    total_credits: &'a str,
    /// Debits and outgoing transfers.
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    total_debits: &'a str,
    #[schema(minimum = 0)]
    transaction_count: i64,
    #[schema(required)]
    last_transaction: Option<EntryView<'a>>,
}

impl<'a> SummaryView<'a> {
    pub fn new(wallet_id: &'a str, summary: &'a Summary) -> Self {
        Self {
            wallet_id,
            total_credits: &summary.total_credits,
            total_debits: &summary.total_debits,
            transaction_count: summary.transaction_count,
            last_transaction: summary.last.as_ref().map(EntryView::new),
        }
    }
}

/// A wallet's events, in version order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Events {
    /// As published.
    #[schema(value_type = Vec<Event>)]
    pub events: Vec<Box<RawValue>>,
    /// Where the next page begins; the request's own where there is nothing new.
    #[schema(minimum = 0)]
    pub next_after_version: i64,
}

/// An event as published; kept as text, so this shape is for the document alone.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) struct Event {
    event_id: Uuid,
    #[schema(schema_with = event_types)]
    event_type: String,
    #[schema(pattern = "^Wallet$")]
    aggregate_type: String,
    /// The wallet.
    aggregate_id: String,
    /// Counts the wallet's events: 1..n without a gap.
    #[schema(minimum = 1)]
    aggregate_version: i64,
    #[schema(minimum = 1)]
    schema_version: i16,
    tenant_id: String,
    #[schema(format = DateTime)]
    timestamp: String,
    #[schema(required)]
    correlation_id: Option<String>,
    #[schema(required)]
    causation_id: Option<String>,
    #[schema(schema_with = event_data)]
    data: String,
}

/// A wallet as a credit or debit left it: with the id of that transaction.
pub(super) struct MovedWallet;

impl utoipa::PartialSchema for MovedWallet {
    fn schema() -> RefOr<Schema> {
        let wallet = Ref::from_schema_name(<WalletView as ToSchema>::name());
        let moved = ObjectBuilder::new().required("transactionId");
        RefOr::T(AllOfBuilder::new().item(wallet).item(moved).into())
    }
}

impl ToSchema for MovedWallet {}

/// What each operation of a bulk request came to, in order. Written by hand: bodies are passed
/// through; this shape is for the document.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) struct BulkResults {
    results: Vec<BulkResult>,
}

/// One operation's outcome: what its single route would have answered.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) struct BulkResult {
    #[schema(minimum = 201, maximum = 599)]
    status: u16,
    /// The first answer under the operation's key, given again.
    #[schema(required = false)]
    replayed: Option<bool>,
    /// The wallet, the transfer's wallets, or the problem.
    #[schema(value_type = Object)]
    body: (),
}
