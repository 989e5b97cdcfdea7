//! The headers and parameters of requests. They are read one by one where they are used; these shapes
//! are for the document alone. Bodies have types of their own, in `request`.

#![allow(dead_code, reason = "only the schemas of these shapes are used")]

use utoipa::IntoParams;

use super::schemas::{transaction_types, wallet_statuses};

/// Which dead letters and parked wallets.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub struct DeadLetterFilter {
    /// What has this wallet's id as its key, and the wallet itself where it is parked.
    #[param(value_type = String, required = false)]
    wallet_id: Option<String>,
    /// An error class; `parked` for the parked wallets alone.
    #[param(value_type = String, required = false)]
    cause: Option<String>,
    /// What was meant to be an event, or a command; parked wallets are of events.
    #[param(value_type = String, required = false, pattern = "^(events|commands)$")]
    source: Option<String>,
    /// Of dead letters `open`, `requested`, `replayed`, `quarantined`; of parked wallets
    /// `retrying`, `waiting`.
    #[param(
        value_type = String,
        required = false,
        pattern = "^(open|requested|replayed|quarantined|retrying|waiting)$"
    )]
    state: Option<String>,
    /// Dead letters in one answer; 50 when left out.
    #[param(value_type = i64, required = false, minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// `nextCursor` of a former answer.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
}

/// Headers of every command.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct CommandHeaders {
    /// 1 to 255 visible ASCII characters, bare or as a quoted string. The same request under the
    /// same key has one effect and one answer.
    #[param(
        rename = "Idempotency-Key",
        value_type = String,
        required = false,
        pattern = r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#
    )]
    idempotency_key: Option<String>,
    /// The id of what caused this request; travels with the events.
    #[param(rename = "X-Causation-Id", value_type = String, required = false)]
    causation_id: Option<String>,
    /// W3C Trace Context; travels with the events.
    #[param(value_type = String, required = false)]
    traceparent: Option<String>,
}

/// The version that a command wants to meet.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IfMatch {
    /// The quoted version that the wallet must have, as its `ETag` gives it, or a list of them; `*`
    /// asks for nothing. A weak tag matches no version.
    #[param(
        rename = "If-Match",
        value_type = String,
        required = false,
        pattern = r#"^(\*|(W/)?"[^"]*"(\s*,\s*(W/)?"[^"]*")*)$"#
    )]
    if_match: Option<String>,
}

/// Whether a command is only tried.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DryRun {
    /// Answers what the command would come to, with status 200 and `dryRun` in its body, or the refusal;
    /// nothing of it happens, and no key is read or written.
    #[param(rename = "dryRun", value_type = bool, required = false)]
    dry_run: Option<bool>,
}

/// Which holds of a wallet.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HoldFilter {
    #[param(value_type = String, required = false, pattern = "^(open|captured|released|expired)$")]
    status: Option<String>,
    /// The reference that they were placed with.
    #[param(value_type = String, required = false)]
    reference: Option<String>,
    /// Holds in one answer; 50 when left out.
    #[param(value_type = i64, required = false, minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// `nextCursor` of a former answer.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
}

/// The hold in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, rename_all = "camelCase")]
pub struct HoldId {
    hold_id: uuid::Uuid,
}

/// The version that a reader already has.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IfNoneMatch {
    /// The `ETag` of a former answer: 304 when the wallet still has this version.
    #[param(rename = "If-None-Match", value_type = String, required = false)]
    if_none_match: Option<String>,
}

/// How new a projected read must be.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct ConsistencyToken {
    /// Of a former write: the read waits, up to 5 s, until it is at least as new; then it is answered
    /// 503 `projection_behind`. What is no such token is ignored.
    #[param(rename = "Consistency-Token", value_type = String, required = false)]
    consistency_token: Option<String>,
}

/// A wallet's id in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct WalletId {
    /// The wallet.
    #[param(min_length = 1, max_length = 255, pattern = r"^\S+$", example = "w-1")]
    id: String,
}

/// Which wallets.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub struct WalletFilter {
    #[param(value_type = String, required = false)]
    owner_id: Option<String>,
    #[param(value_type = String, required = false, pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    #[param(schema_with = wallet_statuses)]
    status: Option<String>,
    /// Wallets whose metadata has this text under `KEY`: put the key into the parameter's name.
    #[param(rename = "metadata.KEY", value_type = String, required = false)]
    metadata: Option<String>,
    /// Wallets in one answer; 1000 when left out.
    #[param(value_type = i64, required = false, minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// Where the former page ended: the `Link` header of that answer has it.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
}

/// Which events.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub struct EventFilter {
    /// Events after this version; 0 when left out.
    #[param(value_type = i64, required = false, minimum = 0)]
    after_version: Option<i64>,
    /// Events in one answer; 50 when left out.
    #[param(value_type = i64, required = false, minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// Of which moment.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Instant {
    /// A time with its offset, or a date, of which the last moment (UTC) counts; now when left out. What happened at
    /// that very time counts.
    #[param(value_type = String, required = false, example = "2026-01-31T12:00:00Z")]
    at: Option<String>,
    /// By the time when an event was recorded.
    #[param(value_type = String, required = false, pattern = "^recorded$")]
    basis: Option<String>,
}

/// What if.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhatIf {
    /// An amount: what would become of a debit of it.
    #[param(value_type = String, required = false, pattern = r"^[0-9]+(\.[0-9]+)?$", example = "12.00")]
    debit: Option<String>,
}

/// Of which period, and as what.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Period {
    /// What happened from here on counts: a time with its offset, or a date, of which the first moment counts.
    #[param(value_type = String, example = "2026-01-01")]
    from: String,
    /// What happened before this counts, and nothing at this very time; now when left out.
    #[param(value_type = String, required = false, example = "2026-02-01")]
    to: Option<String>,
    /// Of dates, and of the times that are shown: a name of the IANA database; UTC when left out.
    #[param(value_type = String, required = false, example = "Europe/Berlin")]
    tz: Option<String>,
    /// By the time when an event was recorded.
    #[param(value_type = String, required = false, pattern = "^recorded$")]
    basis: Option<String>,
    /// `json` when left out.
    #[param(value_type = String, required = false, pattern = "^(json|ndjson|csv|html)$")]
    format: Option<String>,
}

/// Which entries.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub struct EntryFilter {
    #[param(schema_with = transaction_types)]
    transaction_type: Option<String>,
    /// From here on: a time with its offset, or a date, of which the first moment counts.
    #[param(value_type = String, required = false, example = "2026-01-31")]
    start_date: Option<String>,
    /// Up to and with this: a time with its offset, or a date, of which the last moment counts.
    #[param(value_type = String, required = false, example = "2026-01-31T12:00:00Z")]
    end_date: Option<String>,
    #[param(value_type = String, required = false)]
    reference: Option<String>,
    /// Of this currency. On all wallets' entries this and the amounts need a `reference`, or a period of at most 92 days.
    #[param(value_type = String, required = false, pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    /// Of exactly this amount.
    #[param(value_type = String, required = false, pattern = r"^[0-9]+(\.[0-9]+)?$")]
    amount: Option<String>,
    /// Of at least this amount.
    #[param(value_type = String, required = false, pattern = r"^[0-9]+(\.[0-9]+)?$")]
    min_amount: Option<String>,
    /// Of at most this amount.
    #[param(value_type = String, required = false, pattern = r"^[0-9]+(\.[0-9]+)?$")]
    max_amount: Option<String>,
    /// Entries in one answer; 50 when left out.
    #[param(value_type = i64, required = false, minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// Entries to skip. Beyond 100 000 a cursor is the way.
    #[param(value_type = i64, required = false, minimum = 0, maximum = 100_000)]
    offset: Option<i64>,
    /// `nextCursor` of a former answer.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
}

/// Which part of the entries.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Entries in one answer; 50 when left out.
    #[param(value_type = i64, required = false, minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// `nextCursor` of a former answer.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
}
