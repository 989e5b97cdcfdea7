//! A statement as JSON: one document, or one on each line.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Closing, Heading, Line, local_time, zone_name};
use crate::envelope::timestamp;
use crate::wallet::Metadata;

/// A statement; only its schema is used: it is written piece by piece.
#[derive(ToSchema)]
#[schema(as = Statement)]
#[allow(dead_code, reason = "only its schema is used")]
pub struct StatementView<'a> {
    #[schema(inline)]
    #[serde(flatten)]
    opening: Opening<'a>,
    /// In the order in which they were recorded.
    entries: Vec<Entry<'a>>,
    #[serde(flatten)]
    #[schema(inline)]
    closing: End,
}

/// What is known before the first entry.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Opening<'a> {
    wallet_id: &'a str,
    owner_id: &'a str,
    currency: &'static str,
    #[schema(pattern = "^recorded$")]
    basis: &'static str,
    /// Of the local times, and of the period's dates.
    timezone: &'a str,
    /// The first moment that counts.
    #[schema(format = DateTime)]
    from: String,
    /// The first moment that does not count any more.
    #[schema(format = DateTime)]
    to: String,
    /// Whether nothing can come into the period any more: then the same statement is the same to the byte for ever.
    r#final: bool,
    /// The wallet's version before the period: the entries are of the versions above it.
    #[schema(minimum = 0)]
    opening_version: i64,
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    opening_balance: String,
}

/// One entry.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatementEntry)]
struct Entry<'a> {
    #[schema(minimum = 1)]
    version: i64,
    #[schema(format = DateTime)]
    created_at: String,
    /// The same moment as the zone's clocks showed it.
    #[schema(format = DateTime)]
    local_time: String,
    transaction_type: &'static str,
    #[schema(pattern = "^(CREDIT|DEBIT)$")]
    direction: &'static str,
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    amount: String,
    /// After this entry.
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    balance: String,
    #[schema(required)]
    description: Option<&'a str>,
    /// The caller's reference, else the id of the transaction.
    reference_id: &'a str,
    #[schema(required)]
    related_wallet_id: Option<&'a str>,
    #[schema(required, value_type = Option<Object>)]
    metadata: Option<&'a Metadata>,
    transaction_id: Uuid,
    event_id: Uuid,
}

/// What is known after the last entry.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct End {
    totals: Sums,
    /// The wallet's version at the end of the period.
    #[schema(minimum = 0)]
    closing_version: i64,
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    closing_balance: String,
}

/// What the entries came to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatementTotals)]
struct Sums {
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    credits: String,
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    debits: String,
    #[schema(minimum = 0)]
    count: i64,
    by_type: Vec<SumOfType>,
}

/// What the entries of one type came to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatementTotal)]
struct SumOfType {
    transaction_type: &'static str,
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    amount: String,
    #[schema(minimum = 1)]
    count: i64,
}

/// A line of NDJSON: which of three it is, and what it says.
#[derive(Serialize)]
struct Tagged<T> {
    line: &'static str,
    #[serde(flatten)]
    of: T,
}

fn written(value: &impl Serialize) -> String {
    // Strings, numbers and checked raw JSON always serialize.
    serde_json::to_string(value).unwrap_or_default()
}

fn tagged(line: &'static str, of: impl Serialize) -> String {
    let mut text = written(&Tagged { line, of });
    text.push('\n');
    text
}

fn opening(heading: &Heading) -> Opening<'_> {
    Opening {
        wallet_id: heading.wallet_id.as_str(),
        owner_id: &heading.owner_id,
        currency: heading.currency.code(),
        basis: heading.basis,
        timezone: zone_name(&heading.zone),
        from: timestamp(heading.from),
        to: timestamp(heading.to),
        r#final: heading.is_final,
        opening_version: heading.opening_version,
        opening_balance: heading.opening_balance.to_string(),
    }
}

fn entry_of<'a>(heading: &Heading, line: &'a Line<'_>) -> Entry<'a> {
    let Line { event, posting } = line;
    Entry {
        version: event.version,
        created_at: timestamp(event.created_at),
        local_time: local_time(event.created_at, &heading.zone),
        transaction_type: posting.transaction_type.as_str(),
        direction: posting.side.as_str(),
        amount: posting.amount.to_string(),
        balance: posting.balance_after.to_string(),
        description: posting.description.as_deref(),
        reference_id: &posting.reference_id,
        related_wallet_id: posting.related_wallet_id.as_deref(),
        metadata: posting.metadata.as_ref(),
        transaction_id: event.transaction_id,
        event_id: event.event_id,
    }
}

fn end(closing: &Closing<'_>) -> End {
    let all = closing.all();
    let by_type = closing.by_type().into_iter();
    let of_type = |(transaction_type, amount, count)| SumOfType { transaction_type, amount, count };
    End {
        totals: Sums {
            credits: closing.text(all.credits),
            debits: closing.text(all.debits),
            count: all.entries,
            by_type: by_type.map(of_type).collect(),
        },
        closing_version: closing.heading.closing_version,
        closing_balance: closing.heading.closing_balance.to_string(),
    }
}

pub(super) fn open(heading: &Heading) -> String {
    let mut text = written(&opening(heading));
    text.pop();
    text.push_str(",\"entries\":[");
    text
}

pub(super) fn entry(heading: &Heading, line: &Line<'_>) -> String {
    written(&entry_of(heading, line))
}

pub(super) fn close(closing: &Closing<'_>) -> String {
    let end = written(&end(closing));
    format!("],{}", end.trim_start_matches('{'))
}

pub(super) fn opening_line(heading: &Heading) -> String {
    tagged("opening", opening(heading))
}

pub(super) fn entry_line(heading: &Heading, line: &Line<'_>) -> String {
    tagged("entry", entry_of(heading, line))
}

pub(super) fn closing_line(closing: &Closing<'_>) -> String {
    tagged("closing", end(closing))
}
