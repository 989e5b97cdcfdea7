//! What the admin routes take and answer, where no type of the service has that shape.

#![allow(dead_code, reason = "only the schemas of these shapes are used")]

use utoipa::ToSchema;

/// Which refused rows are tried again: one of the three.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    ids: Option<Vec<i64>>,
    wallet_id: Option<String>,
    all: Option<bool>,
    /// Only count.
    dry_run: Option<bool>,
}

/// What is sent again: one of the four.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Republish {
    /// What was applied without Kafka and never sent.
    unpublished: Option<bool>,
    wallet_id: Option<String>,
    /// Events of this time or later, and what follows them.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    all: Option<bool>,
    /// Only count.
    dry_run: Option<bool>,
}

/// How many rows are tried again.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retried {
    #[schema(minimum = 0)]
    rows: i64,
    dry_run: bool,
}

/// How much is to be sent again.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Republished {
    #[schema(minimum = 0)]
    wallets: i64,
    #[schema(minimum = 0)]
    events: i64,
    dry_run: bool,
}

/// Whether those for inbound commands and the audit are created, too.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnsureTopics {
    all: Option<bool>,
    /// Only say what would be done.
    dry_run: Option<bool>,
}

/// Which topic.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteTopic {
    /// As `KAFKA_TOPICS_FILE` declares it.
    name: String,
    /// Only say what would be done.
    dry_run: Option<bool>,
}

/// Whose topics.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantTopics {
    tenant_id: String,
    /// Only say what would be done.
    dry_run: Option<bool>,
}

/// Which projection is made anew.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rebuild {
    #[schema(pattern = "^(ledger|read-model)$")]
    projection: String,
}

/// A rebuild that runs; `GET /admin/projections` shows how far it is.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rebuilding {
    projector: String,
}

/// What the books say of themselves.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reconciled {
    clean: bool,
    #[schema(minimum = 0)]
    wallets: i64,
    #[schema(minimum = 0)]
    events: i64,
    equations: Vec<Equation>,
    lag: Vec<ProjectionLag>,
    parked: Vec<ParkedLag>,
}

#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Equation {
    name: String,
    holds: bool,
    #[schema(minimum = 0)]
    count: i64,
    /// The first of what contradicts it.
    findings: Vec<String>,
}

#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectionLag {
    projector: String,
    wallets: i64,
    events: i64,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParkedLag {
    projector: String,
    wallet_id: String,
    version: i64,
    events: i64,
    cause: String,
}
