//! Why a wallet's balance is what it is, and what would become of a debit.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use rust_decimal::Decimal;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::openapi::problems::ExplainProblems;
use super::openapi::requests::{self as shapes, WhatIf};
use super::path::WalletPath;
use super::problem::{HttpError, HttpResult};
use super::query::Parameters;
use super::views::json;
use super::wallets::not_found;
use super::{Caller, HttpState};
use crate::answer::{Problem, ProblemCode};
use crate::envelope::timestamp;
use crate::projector::LEDGER;
use crate::store::explain::{self, LastEvent, Projected, SumOfType};
use crate::store::{self, Connection, history, recorded, wallets};
use crate::wallet::{
    Amount, Command, Details, Movement, Policy, TenantId, Wallet, WalletId, World, decide,
};

/// Longer than the questions take; a session that does not answer is given up by then.
const LIMIT: Duration = Duration::from_secs(10);

/// How a wallet's balance comes about.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Explanation)]
struct ExplanationView {
    wallet_id: String,
    currency: &'static str,
    status: &'static str,
    #[schema(minimum = 1)]
    version: i64,
    balance: BalanceStory,
    held: HeldStory,
    available: AvailableStory,
    /// The last events, newest first.
    last_events: Vec<EventStory>,
    /// The equations that the books are checked by, for this wallet.
    checks: Vec<CheckView>,
    /// What a debit as asked for would come to.
    #[schema(required)]
    debit: Option<DebitStory>,
}

/// The balance, and the entries that it is the sum of.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BalanceStory {
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    amount: String,
    /// By type, as far as the ledger is projected; null where there are more than 200,000.
    #[schema(required)]
    by_type: Option<Vec<SumView>>,
    /// The version up to which the ledger is projected.
    #[schema(minimum = 0)]
    projected_version: i64,
}

/// What the entries of one type came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SumView {
    transaction_type: &'static str,
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    amount: String,
    #[schema(minimum = 1)]
    count: i64,
}

/// What is reserved for open holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HeldStory {
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    amount: String,
}

/// What may be spent: balance − held + overdraft limit.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AvailableStory {
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    amount: String,
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    overdraft_limit: String,
}

/// How far an event has come.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EventStory {
    event_id: Uuid,
    event_type: String,
    #[schema(minimum = 1)]
    version: i64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(minimum = 0)]
    partition: i32,
    /// Nothing that was recorded as early waits for Kafka in its partition.
    sent: bool,
    in_ledger: bool,
    in_read_model: bool,
}

/// One equation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CheckView {
    name: &'static str,
    /// Null: it cannot be said yet.
    #[schema(required)]
    holds: Option<bool>,
    /// Both sides.
    detail: String,
}

/// What a debit would come to now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DebitStory {
    #[schema(pattern = r"^[0-9]+(\.[0-9]+)?$")]
    amount: String,
    would_succeed: bool,
    /// The code of the problem that it would end in, and why.
    #[schema(required)]
    code: Option<&'static str>,
    #[schema(required)]
    detail: Option<String>,
}

/// Why a wallet's balance is what it is: its entries by type, what is held, what may be spent, how far its last events have
/// come, and whether the books agree on it. With `debit`: what would refuse a debit of that amount. Nothing is changed.
#[utoipa::path(
    get, path = "/wallets/{id}/explain", tag = "wallets", operation_id = "explainWallet",
    params(shapes::WalletId, WhatIf),
    responses((status = 200, description = "The explanation", body = ExplanationView), ExplainProblems)
)]
pub(super) async fn show(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    WalletPath(id): WalletPath,
    parameters: Parameters,
) -> HttpResult<Response> {
    let amount =
        parameters.text("debit").map(Amount::parse).transpose().map_err(|error| {
            HttpError::at(ProblemCode::InvalidAmount, "?debit", error.to_string())
        })?;
    let mut connection = store::session(&state.pools.reads, &tenant).await?;
    let topic = &state.repairs.events_topic;
    let found = store::bounded(LIMIT, async {
        explain::snapshot(&mut connection).await?;
        let found = Found::read(&mut connection, &tenant, &id, topic).await;
        store::answered(&mut connection, found).await
    });
    let found = found.await?.ok_or_else(|| not_found(&id))?;
    Ok(json(&found.view(amount)))
}

/// A wallet and what the books have of it, in one snapshot.
struct Found {
    wallet: Wallet,
    /// As its last event left it, with that event's version.
    last: Option<Wallet>,
    by_type: Option<Vec<SumOfType>>,
    events: Vec<LastEvent>,
    ledger: Side,
    read_model: Side,
}

/// A projection's side, and the wallet as the events left it at that version.
#[derive(Default)]
struct Side {
    projected: Option<Projected>,
    then: Option<Wallet>,
}

impl Found {
    async fn read(
        connection: &mut Connection,
        tenant: &TenantId,
        id: &WalletId,
        topic: &str,
    ) -> store::Result<Option<Self>> {
        let Some(wallet) = wallets::wallet_fetch(connection, tenant, id).await? else {
            return Ok(None);
        };
        let key = (tenant.clone(), id.clone());
        let last = recorded::last_version(connection, &key).await?.unwrap_or(0);
        let ledger = explain::in_ledger(connection, tenant, LEDGER, id).await?;
        let read_model = explain::in_read_model(connection, tenant, id).await?;
        Ok(Some(Self {
            last: Side::at(connection, tenant, id, Some(last)).await?,
            by_type: explain::by_type(connection, tenant, id).await?,
            events: explain::last_events(connection, tenant, id, topic).await?,
            ledger: Side::read(connection, tenant, id, ledger).await?,
            read_model: Side::read(connection, tenant, id, read_model).await?,
            wallet,
        }))
    }

    fn view(self, amount: Option<Amount>) -> ExplanationView {
        let Self { wallet, by_type, events, ledger, read_model, .. } = &self;
        let (in_ledger, in_read_model) = (ledger.version(), read_model.version());
        let sums = by_type.as_ref().map(|sums| sums.iter().map(|sum| SumView::of(sum, wallet)));
        let story = |event: &LastEvent| EventStory {
            event_id: event.event_id,
            event_type: event.event_type.clone(),
            version: event.version,
            created_at: timestamp(event.created_at),
            partition: event.partition,
            sent: event.sent,
            in_ledger: event.version <= in_ledger,
            in_read_model: event.version <= in_read_model,
        };
        ExplanationView {
            wallet_id: wallet.id.as_str().to_owned(),
            currency: wallet.currency.code(),
            status: wallet.status.as_str(),
            version: wallet.version,
            balance: BalanceStory {
                amount: wallet.balance.to_string(),
                by_type: sums.map(Iterator::collect),
                projected_version: in_ledger,
            },
            held: HeldStory { amount: wallet.held_balance.to_string() },
            available: AvailableStory {
                amount: wallet.available().to_string(),
                overdraft_limit: wallet.overdraft_limit.to_string(),
            },
            last_events: events.iter().map(story).collect(),
            checks: self.checks(),
            debit: amount.map(|amount| debit(&self.wallet, amount)),
        }
    }

    fn checks(&self) -> Vec<CheckView> {
        let Self { wallet, last, ledger, read_model, .. } = self;
        let available = wallet.available();
        let event = last.as_ref().map(|last| (last.version, last.balance, last.held_balance));
        let here = (wallet.version, wallet.balance, wallet.held_balance);
        let newest = self.events.first().map(|event| event.created_at);
        vec![
            CheckView {
                name: "available money is not below zero",
                holds: Some(available >= Decimal::ZERO),
                detail: format!(
                    "{} - {} + {} = {available}",
                    wallet.balance, wallet.held_balance, wallet.overdraft_limit
                ),
            },
            CheckView {
                name: "the wallet is as its last event left it",
                holds: Some(event == Some(here)),
                detail: format!(
                    "version {}, balance {}, held {}; the event: {}",
                    here.0,
                    here.1,
                    here.2,
                    event.map_or("there is none".to_owned(), |(version, balance, held)| {
                        format!("version {version}, balance {balance}, held {held}")
                    })
                ),
            },
            CheckView {
                name: "the wallet's time is that of its last event",
                holds: Some(newest == Some(wallet.updated_at)),
                detail: timestamp(wallet.updated_at),
            },
            ledger.check("the entries come to the balance", wallet),
            read_model.check("the read model has the balance", wallet),
        ]
    }
}

impl Side {
    async fn read(
        connection: &mut Connection,
        tenant: &TenantId,
        id: &WalletId,
        projected: Option<Projected>,
    ) -> store::Result<Self> {
        let version = projected.as_ref().map(|projected| projected.version);
        let then = Self::at(connection, tenant, id, version).await?;
        Ok(Self { projected, then })
    }

    /// None where the books have no such version.
    async fn at(
        connection: &mut Connection,
        tenant: &TenantId,
        id: &WalletId,
        version: Option<i64>,
    ) -> store::Result<Option<Wallet>> {
        match version.filter(|version| *version > 0) {
            Some(version) => history::find_wallet_at(connection, tenant, id, version).await,
            None => Ok(None),
        }
    }

    fn version(&self) -> i64 {
        self.projected.as_ref().map_or(0, |projected| projected.version)
    }

    fn check(&self, name: &'static str, wallet: &Wallet) -> CheckView {
        let shown = |amount: Decimal| wallet.currency.scaled(amount);
        let (Some(projected), Some(then)) = (&self.projected, &self.then) else {
            let is_new = self.projected.is_none();
            let detail =
                if is_new { "nothing is projected yet" } else { "there is no such version" };
            return CheckView {
                name,
                holds: (!is_new).then_some(false),
                detail: detail.to_owned(),
            };
        };
        let holds = projected.balance.map(|balance| {
            balance == then.balance
                && projected.held_balance.is_none_or(|held| held == then.held_balance)
        });
        let found = projected
            .balance
            .map_or("not added up yet".to_owned(), |balance| shown(balance).to_string());
        let detail =
            format!("at version {}: {found}, {} by the event", projected.version, then.balance);
        CheckView { name, holds, detail }
    }
}

impl SumView {
    fn of(sum: &SumOfType, wallet: &Wallet) -> Self {
        // Postgres shows all eight decimals; none beyond the currency's was ever accepted.
        let amount: Option<Decimal> = sum.amount.parse().ok();
        let amount = amount.map(|amount| wallet.currency.scaled(amount).to_string());
        Self {
            transaction_type: sum.kind.as_str(),
            amount: amount.unwrap_or_else(|| sum.amount.clone()),
            count: sum.count,
        }
    }
}

/// Decides a debit on the wallet as it stands, and keeps nothing of it.
fn debit(wallet: &Wallet, amount: Amount) -> DebitStory {
    let movement = Movement {
        wallet_id: wallet.id.clone(),
        amount,
        details: Details::default(),
        expected_version: None,
    };
    let world = World::new(wallet.updated_at, [wallet.clone()]);
    let refused = decide(&Command::Debit(movement), &world, &Policy::default()).err();
    let problem = refused.as_ref().map(Problem::of_rejection);
    DebitStory {
        amount: amount.value().to_string(),
        would_succeed: problem.is_none(),
        code: problem.as_ref().map(|problem| problem.code.as_str()),
        detail: problem.map(|problem| problem.detail),
    }
}
