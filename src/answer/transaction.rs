//! A transaction's JSON: what one command did to its wallets, made of the events that share its id.

use rust_decimal::Decimal;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::envelope::timestamp;
use crate::ledger::{Posting, Side, postings};
use crate::wallet::{Event, EventType, Facts, Metadata};

/// A transaction as its route shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Transaction)]
pub struct TransactionView<'a> {
    id: Uuid,
    /// What was asked for: `creation`, `credit`, `debit`, `transfer`.
    kind: &'static str,
    #[schema(pattern = "^(posted|partially_reversed|reversed)$")]
    status: &'static str,
    /// That of the amounts.
    currency: &'static str,
    /// What moved: of a transfer once, not for each side. A creation without an opening balance moves nothing.
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    amount: String,
    /// How much of it was taken back.
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    reversed_amount: String,
    #[schema(required)]
    description: Option<&'a str>,
    /// The caller's.
    #[schema(required)]
    reference: Option<&'a str>,
    #[schema(required, value_type = Option<Object>)]
    metadata: Option<&'a Metadata>,
    legs: Vec<LegView<'a>>,
    /// In the order in which they were recorded.
    events: Vec<EventName<'a>>,
    /// The transactions that took it back, or parts of it.
    reversals: Vec<Uuid>,
    #[schema(required)]
    reverses_transaction_id: Option<Uuid>,
    /// When it counts: when it was recorded, where the caller said nothing else.
    #[schema(format = DateTime)]
    effective_at: String,
    #[schema(format = DateTime)]
    created_at: String,
}

/// One wallet's side of a movement; the other side of the books is its counter account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Leg)]
struct LegView<'a> {
    wallet_id: &'a str,
    /// The entry's number among those of its event.
    #[schema(minimum = 0)]
    leg: i16,
    transaction_type: &'static str,
    #[schema(pattern = "^(CREDIT|DEBIT)$")]
    direction: &'static str,
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    amount: String,
    currency: &'static str,
    counter_account: &'static str,
    #[schema(required)]
    related_wallet_id: Option<String>,
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    balance_before: String,
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    balance_after: String,
}

/// An event by what it is found by.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EventName<'a> {
    event_id: Uuid,
    event_type: &'static str,
    wallet_id: &'a str,
    #[schema(minimum = 1)]
    version: i64,
}

impl<'a> TransactionView<'a> {
    /// Of all its events, in the order in which they were recorded; none of no events.
    pub fn new(events: &'a [Event]) -> Option<Self> {
        let first = events.first()?;
        // Of a creation with an opening balance the credit has what was noted of it.
        let told = events.iter().find(|event| event.body.reason.is_some()).unwrap_or(first);
        let currency = first.body.currency;
        let moved: Vec<(&Event, Posting)> = events
            .iter()
            .flat_map(|event| postings(event).into_iter().map(move |posting| (event, posting)))
            .collect();
        let amount = amount(&moved, currency.code());
        Some(Self {
            id: first.transaction_id,
            kind: kind(events),
            status: "posted",
            currency: currency.code(),
            amount: currency.scaled(amount).to_string(),
            reversed_amount: currency.scaled(Decimal::ZERO).to_string(),
            description: told.body.reason.as_deref(),
            reference: told.body.reference.as_deref(),
            metadata: told.body.metadata.as_ref(),
            legs: moved.into_iter().map(|(event, posting)| LegView::new(event, posting)).collect(),
            events: events.iter().map(EventName::new).collect(),
            reversals: Vec::new(),
            reverses_transaction_id: None,
            effective_at: timestamp(first.created_at),
            created_at: timestamp(first.created_at),
        })
    }
}

/// What moved: between wallets as much as left them, or came to them, whichever is more.
fn amount(moved: &[(&Event, Posting)], currency: &str) -> Decimal {
    let of = |side: Side| -> Decimal {
        let of_side = moved.iter().map(|(_, posting)| posting);
        of_side.filter(|p| p.side == side && p.currency == currency).map(|p| p.amount).sum()
    };
    of(Side::Debit).max(of(Side::Credit))
}

fn kind(events: &[Event]) -> &'static str {
    let opens = |event: &Event| matches!(event.body.facts, Facts::Creation { .. });
    if events.iter().any(opens) {
        return "creation";
    }
    match events.first().map(|event| event.body.kind) {
        Some(EventType::WalletCredited) => "credit",
        Some(EventType::WalletDebited) => "debit",
        _ => "transfer",
    }
}

impl<'a> LegView<'a> {
    fn new(event: &'a Event, posting: Posting) -> Self {
        Self {
            wallet_id: event.wallet_id.as_str(),
            leg: 2 * posting.pair,
            transaction_type: posting.transaction_type.as_str(),
            direction: posting.side.as_str(),
            amount: posting.amount.to_string(),
            currency: posting.currency,
            counter_account: posting.counter_account.as_str(),
            related_wallet_id: posting.related_wallet_id,
            balance_before: posting.balance_before.to_string(),
            balance_after: posting.balance_after.to_string(),
        }
    }
}

impl<'a> EventName<'a> {
    fn new(event: &'a Event) -> Self {
        Self {
            event_id: event.event_id,
            event_type: event.body.kind.as_str(),
            wallet_id: event.wallet_id.as_str(),
            version: event.version,
        }
    }
}
