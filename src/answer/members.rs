//! The numbers behind a refusal, as members of its problem document: only those that it has.

use rust_decimal::Decimal;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::envelope::timestamp;
use crate::wallet::{HoldBrief, Rejection};

/// What explains a refusal. Each refusal has some of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// What may be spent: the balance without what is held, with the overdraft.
    pub available: Option<Decimal>,
    /// The balance without what is held.
    pub own: Option<Decimal>,
    /// The balance without grants.
    pub main: Option<Decimal>,
    pub held: Option<Decimal>,
    pub overdraft_limit: Option<Decimal>,
    /// What was asked for.
    pub amount: Option<Decimal>,
    /// What may still be asked for.
    pub left: Option<Decimal>,
    /// What is in use of a limit.
    pub used: Option<Decimal>,
    pub hold_status: Option<&'static str>,
    pub closed_by: Option<&'static str>,
    pub closed_at: Option<String>,
    /// The wallet's largest open holds.
    pub holds: Vec<OpenHold>,
}

/// An open hold among others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenHold {
    pub id: Uuid,
    /// What remains.
    #[schema(value_type = String)]
    pub amount: Decimal,
    #[schema(format = DateTime)]
    pub expires_at: String,
}

impl Members {
    pub fn of(rejection: &Rejection) -> Self {
        match rejection {
            // A refusal that was kept before these were told is answered as it was.
            Rejection::InsufficientFunds { available, amount, funds: Some(funds) } => Self {
                available: Some(*available),
                amount: Some(*amount),
                own: Some(funds.own),
                main: Some(funds.main),
                held: Some(funds.held),
                overdraft_limit: Some(funds.overdraft_limit),
                holds: funds.holds.iter().map(OpenHold::of).collect(),
                ..Self::default()
            },
            Rejection::HoldClosed { status, closed_by, closed_at, .. }
            | Rejection::HoldExpired { status, closed_by, closed_at, .. } => Self {
                hold_status: Some(status.as_str()),
                closed_by: Some(closed_by.as_str()),
                closed_at: Some(timestamp(*closed_at)),
                ..Self::default()
            },
            Rejection::AmountExceedsHold { amount, left } => {
                Self { amount: Some(*amount), left: Some(*left), ..Self::default() }
            }
            Rejection::LimitInUse { used } => Self { used: Some(*used), ..Self::default() },
            _ => Self::default(),
        }
    }
}

impl OpenHold {
    fn of(hold: &HoldBrief) -> Self {
        Self { id: hold.id, amount: hold.amount, expires_at: timestamp(hold.expires_at) }
    }
}
