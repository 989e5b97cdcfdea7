//! What requests carry: bodies, headers and parameters. The bodies are read field by field in
//! `fields`, without a type; these shapes are for the document alone.

#![allow(dead_code, reason = "only the schemas of these shapes are used")]

use utoipa::{IntoParams, ToSchema};

use super::schemas::{amount, optional_amount, transaction_types, wallet_statuses};

/// A wallet to open.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateWallet {
    /// Made when left out. Visible characters, stored as sent; not `.` or `..`, which no client can
    /// ask for.
    #[schema(min_length = 1, max_length = 255, pattern = r"^\S+$", example = "w-1")]
    wallet_id: Option<String>,
    #[schema(min_length = 1, max_length = 255, pattern = r"^\S+$", example = "alice")]
    owner_id: String,
    #[schema(schema_with = optional_amount)]
    initial_balance: Option<String>,
    /// ISO 4217 code; USD when left out.
    #[schema(pattern = "^[A-Z]{3}$", example = "USD")]
    currency: Option<String>,
    /// How far below zero the wallet may go.
    #[schema(schema_with = optional_amount)]
    overdraft_limit: Option<String>,
    /// At most 16 KiB and 32 levels.
    #[schema(value_type = Option<Object>)]
    metadata: Option<()>,
}

/// A credit or a debit.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Movement {
    #[schema(schema_with = amount)]
    amount: String,
    #[schema(max_length = 1024)]
    description: Option<String>,
    /// The caller's own id of this: what `/ledger/reference/{reference}` finds.
    #[schema(min_length = 1, max_length = 255, pattern = r"^\S+( \S+)*$")]
    reference: Option<String>,
    /// At most 16 KiB and 32 levels.
    #[schema(value_type = Option<Object>)]
    metadata: Option<()>,
}

/// A transfer from the wallet in the path.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Transfer {
    #[schema(min_length = 1, max_length = 255, pattern = r"^\S+$")]
    to_wallet_id: String,
    #[schema(schema_with = amount)]
    amount: String,
    #[schema(max_length = 1024)]
    description: Option<String>,
    /// The caller's own id of this: what `/ledger/reference/{reference}` finds.
    #[schema(min_length = 1, max_length = 255, pattern = r"^\S+( \S+)*$")]
    reference: Option<String>,
    /// At most 16 KiB and 32 levels.
    #[schema(value_type = Option<Object>)]
    metadata: Option<()>,
}

/// Many operations.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bulk {
    /// All of them or none; false when left out.
    atomic: Option<bool>,
    #[schema(min_items = 1, max_items = 1000)]
    operations: Vec<BulkOperation>,
}

/// What the single route of `op` takes, with the wallet of its path and the key of its header.
#[derive(ToSchema)]
#[serde(tag = "op", rename_all = "camelCase")]
pub enum BulkOperation {
    Create(BulkCreate),
    Credit(BulkMovement),
    Debit(BulkMovement),
    Transfer(BulkTransfer),
}

/// A wallet to open.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkCreate {
    #[serde(flatten)]
    command: CreateWallet,
    #[serde(flatten)]
    key: OperationKey,
}

/// A credit or a debit.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkMovement {
    #[schema(min_length = 1, max_length = 255, pattern = r"^\S+$", example = "w-1")]
    wallet_id: String,
    #[serde(flatten)]
    command: Movement,
    #[serde(flatten)]
    key: OperationKey,
}

/// A transfer.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkTransfer {
    /// The source.
    #[schema(min_length = 1, max_length = 255, pattern = r"^\S+$", example = "w-1")]
    wallet_id: String,
    #[serde(flatten)]
    command: Transfer,
    #[serde(flatten)]
    key: OperationKey,
}

/// An operation's own key.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationKey {
    /// As `Idempotency-Key` of the single route: a retry through either meets the first. Left out, the
    /// key of the whole request covers it, where there is one.
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    idempotency_key: Option<String>,
}

/// Which dead letters and parked wallets are to be tried again. Everything given must agree.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayDeadLetters {
    /// Whatever their state; without ids only what is open.
    ids: Option<Vec<i64>>,
    /// What has this wallet's id as its key, and the wallet itself where it is parked.
    #[schema(min_length = 1, max_length = 255, pattern = r"^\S+$")]
    wallet_id: Option<String>,
    /// An error class; `parked` for the parked wallets alone.
    cause: Option<String>,
    /// What was meant to be an event, or a command; parked wallets are of events.
    #[schema(pattern = "^(events|commands)$")]
    source: Option<String>,
    /// Needed where none of the others is given.
    all: Option<bool>,
    /// Changes nothing.
    dry_run: Option<bool>,
}

/// Which dead letters are settled. Everything given must agree.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuarantineDeadLetters {
    /// Whatever their state; without ids only what is open.
    ids: Option<Vec<i64>>,
    /// What has this wallet's id as its key.
    #[schema(min_length = 1, max_length = 255, pattern = r"^\S+$")]
    wallet_id: Option<String>,
    /// An error class.
    cause: Option<String>,
    /// What was meant to be an event, or a command; parked wallets are of events.
    #[schema(pattern = "^(events|commands)$")]
    source: Option<String>,
    /// Needed where none of the others is given.
    all: Option<bool>,
    /// Why, for whoever looks later.
    note: String,
    /// Changes nothing.
    dry_run: Option<bool>,
}

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
    /// 503 `projection_behind`. What is no such token asks for nothing.
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
