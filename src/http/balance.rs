//! A wallet's balance at a moment, strongly consistent: read from its events.

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::problems::WalletEventsProblems;
use super::openapi::requests::{self as shapes, Instant};
use super::path::WalletPath;
use super::problem::HttpResult;
use super::query::Parameters;
use super::views::json;
use super::wallets::{is_at_hand, not_found};
use super::{Caller, HttpState};
use crate::envelope::timestamp;
use crate::store::{self, history, wallets};
use crate::wallet::Wallet;

/// A wallet's balance at a moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Balance)]
struct BalanceView<'a> {
    wallet_id: &'a str,
    currency: &'static str,
    /// Null: now.
    #[schema(required, format = DateTime)]
    at: Option<String>,
    /// By which of an event's times.
    #[schema(pattern = "^recorded$")]
    basis: &'static str,
    /// Of the last event up to and with that moment; 0: the wallet was not there yet.
    #[schema(minimum = 0)]
    version: i64,
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    balance: String,
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    held_balance: String,
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    available_balance: String,
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    overdraft_limit: String,
    /// When that event was recorded.
    #[schema(required, format = DateTime)]
    updated_at: Option<String>,
}

impl<'a> BalanceView<'a> {
    fn of(wallet: &'a Wallet, at: Option<DateTime<Utc>>) -> Self {
        Self {
            wallet_id: wallet.id.as_str(),
            currency: wallet.currency.code(),
            at: at.map(timestamp),
            basis: RECORDED,
            version: wallet.version,
            balance: wallet.balance.to_string(),
            held_balance: wallet.held_balance.to_string(),
            available_balance: wallet.available().to_string(),
            overdraft_limit: wallet.overdraft_limit.to_string(),
            updated_at: (wallet.version > 0).then(|| timestamp(wallet.updated_at)),
        }
    }
}

/// By which time of an event: that of its recording.
pub(super) const RECORDED: &str = "recorded";

/// A wallet's balance at a moment: after its last event up to and with it.
#[utoipa::path(
    get, path = "/wallets/{id}/balance", tag = "wallets", operation_id = "getBalance",
    params(shapes::WalletId, Instant),
    responses((status = 200, description = "The balance", body = BalanceView), WalletEventsProblems)
)]
pub(super) async fn show(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    WalletPath(id): WalletPath,
    parameters: Parameters,
) -> HttpResult<Response> {
    let at = parameters.time("at", true)?;
    basis(&parameters)?;
    let mut connection = store::session(&state.pools.reads, &tenant).await?;
    let wallet = wallets::wallet_fetch(&mut connection, &tenant, &id).await?;
    let wallet = wallet.ok_or_else(|| not_found(&id))?;
    let Some(moment) = at else { return Ok(json(&BalanceView::of(&wallet, None))) };
    let reached = history::version_at(&mut connection, &tenant, &id, moment).await?;
    let version = reached.map_or(0, |reached| reached.version);
    is_at_hand(&mut connection, &tenant, &id, version).await?;
    let then = match version {
        0 => before_its_first_event(wallet),
        _ => history::wallet_at(&mut connection, &tenant, &id, version).await?,
    };
    Ok(json(&BalanceView::of(&then, at)))
}

fn before_its_first_event(wallet: Wallet) -> Wallet {
    let zero = wallet.currency.scaled(Decimal::ZERO);
    Wallet { balance: zero, held_balance: zero, overdraft_limit: zero, version: 0, ..wallet }
}

/// `?basis=`
pub(super) fn basis(parameters: &Parameters) -> HttpResult<()> {
    parameters.one_of("basis", |word| (word == RECORDED).then_some(())).map(|_| ())
}
