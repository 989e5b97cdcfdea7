//! What the admin routes answer, where no type of the service has that shape.

#![allow(dead_code, reason = "only the schemas of these shapes are used")]

use utoipa::ToSchema;

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
