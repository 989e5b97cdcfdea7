//! A wallet's statement of a period: read from its events, some hundreds at a time, and sent as it is read.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use super::balance::{RECORDED, basis};
use super::openapi::problems::WalletEventsProblems;
use super::openapi::requests::{self as shapes, Period};
use super::path::WalletPath;
use super::problem::{HttpError, HttpResult};
use super::query::Parameters;
use super::wallets::{is_at_hand, not_found};
use super::zone::{moment, zone};
use super::{Caller, HttpState};
use crate::answer::{Form, Heading, Mismatch, ProblemCode, Statement, StatementView};
use crate::store::history::{version_at, wallet_at};
use crate::store::recorded::{Range, recorded};
use crate::store::{self, Connection, wallets};
use crate::wallet::{TenantId, Wallet, WalletKey};

/// Events that are read at once; no connection is held while they are sent.
const PAGE: i64 = 500;
/// Longer than any transaction that makes events can take.
const SETTLED: TimeDelta = TimeDelta::minutes(1);
/// Times are kept to the millisecond: a moment before another.
const TICK: TimeDelta = TimeDelta::microseconds(1);
/// A page with its own style and nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A wallet's statement of a period: the balance before it, its entries, the balance after it. The period begins with
/// `from` and ends before `to`. That balance, entries and balance add up is checked before the last byte: an answer
/// that ends without its end (the connection breaks off) is none. One of a past period never changes.
#[utoipa::path(
    get, path = "/wallets/{id}/statement", tag = "wallets", operation_id = "getStatement",
    params(shapes::WalletId, Period),
    responses(
        (status = 200, description = "The statement", content(
            (StatementView = "application/json"), (String = "application/x-ndjson"),
            (String = "text/csv"), (String = "text/html")
        )),
        WalletEventsProblems
    )
)]
pub(super) async fn show(
    State(state): State<HttpState>,
    Caller { tenant, .. }: Caller,
    WalletPath(id): WalletPath,
    parameters: Parameters,
) -> HttpResult<Response> {
    let zone = zone(&parameters)?;
    let missing = || HttpError::at(ProblemCode::InvalidValue, "?from", "is required");
    let from = moment(&parameters, "from", &zone)?.ok_or_else(missing)?;
    let to = moment(&parameters, "to", &zone)?;
    basis(&parameters)?;
    let form = parameters.one_of("format", Form::parse)?.unwrap_or(Form::Json);
    let mut connection = store::session(&state.pools.reads, &tenant).await?;
    let wallet = wallets::wallet_fetch(&mut connection, &tenant, &id).await?;
    let wallet = wallet.ok_or_else(|| not_found(&id))?;
    let key = (tenant, id);
    let heading = heading(&mut connection, &key, &wallet, zone, from, to).await?;
    drop(connection);
    let pages = Pages { state, key, statement: Statement::new(heading), form, at: Stage::Opening };
    let body = Body::from_stream(stream::unfold(pages, Pages::next));
    Ok((headers(form), body).into_response())
}

/// What is known before the first entry. It stands on versions that never change.
async fn heading(
    connection: &mut Connection,
    key: &WalletKey,
    wallet: &Wallet,
    zone: TimeZone,
    from: DateTime<Utc>,
    to: Option<DateTime<Utc>>,
) -> HttpResult<Heading> {
    let (tenant, id) = key;
    let gone = || not_found(id);
    let before = version_at(connection, tenant, id, from - TICK).await?.ok_or_else(gone)?;
    is_at_hand(connection, tenant, id, before.version).await?;
    let to = to.unwrap_or(before.now);
    if from >= to {
        let rule = "the period must begin before it ends";
        return Err(HttpError::at(ProblemCode::InvalidValue, "?from", rule));
    }
    let after = version_at(connection, tenant, id, to - TICK).await?.ok_or_else(gone)?;
    is_at_hand(connection, tenant, id, after.version).await?;
    Ok(Heading {
        wallet_id: id.clone(),
        owner_id: wallet.owner_id.clone(),
        currency: wallet.currency,
        basis: RECORDED,
        zone,
        from,
        to,
        opening_version: before.version,
        closing_version: after.version,
        opening_balance: balance(connection, tenant, wallet, before.version).await?,
        closing_balance: balance(connection, tenant, wallet, after.version).await?,
        is_final: to + SETTLED <= after.now,
    })
}

async fn balance(
    connection: &mut Connection,
    tenant: &TenantId,
    wallet: &Wallet,
    version: i64,
) -> store::Result<Decimal> {
    match version {
        0 => Ok(wallet.currency.scaled(Decimal::ZERO)),
        _ => Ok(wallet_at(connection, tenant, &wallet.id, version).await?.balance),
    }
}

fn headers(form: Form) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    match form {
        Form::Html => _ = headers.insert(header::CONTENT_SECURITY_POLICY, POLICY),
        Form::Csv => {
            let name = HeaderValue::from_static("attachment; filename=\"statement.csv\"");
            headers.insert(header::CONTENT_DISPOSITION, name);
        }
        Form::Json | Form::Ndjson => {}
    }
    headers
}

/// A statement that is being sent.
struct Pages {
    state: HttpState,
    key: WalletKey,
    statement: Statement,
    form: Form,
    at: Stage,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Entries { is_first: bool },
    Done,
}

/// Why a statement breaks off. The caller sees that it does; the log says why.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("version {0} cannot be read: {1}")]
    Unreadable(i64, String),
    #[error("the statement does not add up: {0}")]
    Mismatch(#[from] Mismatch),
}

impl Pages {
    /// The next piece; an error is the last one.
    async fn next(mut self) -> Option<(Result<Bytes, Broken>, Self)> {
        if self.at == Stage::Done {
            return None;
        }
        let piece = self.piece().await;
        if let Err(error) = &piece {
            self.at = Stage::Done;
            tracing::error!(%error, "a statement broke off");
        }
        Some((piece.map(Bytes::from), self))
    }

    async fn piece(&mut self) -> Result<String, Broken> {
        let Stage::Entries { mut is_first } = self.at else {
            self.at = Stage::Entries { is_first: true };
            return Ok(self.form.open(&self.statement.heading));
        };
        let mut text = String::new();
        if !self.statement.is_at_its_end() {
            for event in self.events().await? {
                let event = event.map_err(|it| Broken::Unreadable(it.version, it.cause))?;
                for line in self.statement.take(&event)? {
                    self.form.line(&self.statement.heading, &line, is_first, &mut text);
                    is_first = false;
                }
            }
        }
        self.at = Stage::Entries { is_first };
        if self.statement.is_at_its_end() {
            text.push_str(&self.form.close(&self.statement.close()?));
            self.at = Stage::Done;
        }
        Ok(text)
    }

    async fn events(&self) -> Result<Vec<store::recorded::Recorded>, Broken> {
        let after = self.statement.version();
        let up_to = (after + PAGE).min(self.statement.heading.closing_version);
        let range = Range { wallet: self.key.clone(), after, up_to };
        let mut connection = store::session(&self.state.pools.reads, &self.key.0).await?;
        let events = recorded(&mut connection, &[range]).await?;
        if events.is_empty() {
            let found = self.statement.heading.closing_version;
            return Err(Mismatch::Version { expected: after + 1, found }.into());
        }
        Ok(events)
    }
}
