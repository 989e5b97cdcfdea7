//! The books checked against themselves. Reads only, some wallets at a time, each in one snapshot, so that a running
//! service neither disturbs the check nor is disturbed by it: a snapshot that is held for long keeps Postgres from
//! cleaning up.
//!
//! Every wallet is compared at the version that its projection has reached: what a projector has
//! not applied yet is lag and no failure. Expectations are worked out here in SQL, from `events`
//! alone, and share nothing with the code that wrote the tables.

mod check;
mod equations;
mod outbox;

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::connect::OVER_ALL;
use super::{Connection, Error, Pool, Result};
pub use check::{Check, Place};

/// Findings that an equation lists; the rest is counted.
const FINDINGS_MAX: i64 = 20;

/// Whose projections are checked.
#[derive(Debug, Clone, Copy)]
pub struct Projectors<'a> {
    pub ledger: &'a str,
    pub read_model: &'a str,
}

/// How long a check may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub a_question: Duration,
    pub in_all: Option<Duration>,
}

/// One equation and where it does not hold.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Equation)]
pub struct Checked {
    pub name: &'static str,
    pub holds: bool,
    /// Everything that contradicts it.
    #[schema(minimum = 0)]
    pub count: i64,
    /// The first of them, with ids and numbers.
    pub findings: Vec<String>,
    /// What to run where it does not hold; absent where it holds, or where no command mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub mend: Option<&'static str>,
}

/// What contradicts an equation so far.
#[derive(Debug, Default)]
struct Found {
    count: i64,
    /// The first of them, with their tenants.
    findings: Vec<(String, String)>,
}

impl Found {
    /// Enough are listed: more are only counted.
    fn is_full(&self) -> bool {
        i64::try_from(self.findings.len()).is_ok_and(|listed| listed >= FINDINGS_MAX)
    }

    fn add(&mut self, tenant: &str, finding: String) {
        self.add_all(tenant, 1, [finding]);
    }

    fn add_all(&mut self, tenant: &str, count: i64, findings: impl IntoIterator<Item = String>) {
        self.count += count;
        let room = usize::try_from(FINDINGS_MAX).unwrap_or(0).saturating_sub(self.findings.len());
        let findings = findings.into_iter().take(room);
        self.findings.extend(findings.map(|finding| (tenant.to_owned(), finding)));
    }
}

/// What a projector has yet to apply.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProjectionLag)]
pub struct Lag {
    pub projector: String,
    pub wallets: i64,
    pub events: i64,
}

/// A wallet that waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParkedLag {
    pub projector: String,
    pub wallet_id: String,
    pub version: i64,
    pub events: i64,
    pub cause: String,
}

/// The state of the books, each wallet in one snapshot.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Reconciled)]
pub struct Report {
    /// Every equation holds.
    pub clean: bool,
    #[schema(minimum = 0)]
    pub wallets: i64,
    #[schema(minimum = 0)]
    pub events: i64,
    pub equations: Vec<Checked>,
    /// Without what parked wallets hold back.
    pub lag: Vec<Lag>,
    pub parked: Vec<ParkedLag>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.clean
    }

    /// The report as commands print it and routes answer it.
    pub fn json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// The report of all tenants, page by page, each in a snapshot of its own; no question of it may take longer than
/// `limit`. A page can be told to `tell`, with the wallet behind which the next begins.
pub async fn checked(
    pool: &Pool,
    of: Projectors<'_>,
    from: Option<Place>,
    bounds: Bounds,
    mut tell: impl FnMut(&Check<'_>),
) -> Result<Report> {
    let begun = Instant::now();
    let mut connection = pool.acquire().await?;
    let mut check = {
        begin(&mut connection, bounds).await?;
        let check = Check::begin(&mut connection, of, from).await;
        ended(&mut connection, check).await?
    };
    loop {
        begin(&mut connection, bounds).await?;
        let more = check.page(&mut connection).await;
        if !ended(&mut connection, more).await? {
            break;
        }
        if bounds.in_all.is_some_and(|limit| begun.elapsed() > limit) {
            return Err(Error::no_answer(begun.elapsed()));
        }
        tell(&check);
    }
    begin(&mut connection, bounds).await?;
    let parked = parked(&mut connection).await;
    Ok(check.report(ended(&mut connection, parked).await?))
}

async fn begin(connection: &mut Connection, bounds: Bounds) -> Result<()> {
    super::begin(connection).await?;
    snapshot(connection).await?;
    let limit = format!("set local statement_timeout = {}", bounds.a_question.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(connection).await?;
    Ok(())
}

async fn ended<T>(connection: &mut Connection, result: Result<T>) -> Result<T> {
    super::rollback(connection).await?;
    result
}

/// Makes the running transaction a read-only snapshot. Must be its first statement.
pub async fn snapshot(connection: &mut Connection) -> Result<()> {
    let settings = "set transaction isolation level repeatable read, read only; \
                    set local statement_timeout = '30min'; \
                    set local idle_in_transaction_session_timeout = '10min'";
    sqlx::raw_sql(settings).execute(&mut *connection).await?;
    sqlx::raw_sql(OVER_ALL).execute(&mut *connection).await?;
    // A plan for any range of wallets would be one for none in particular; and where nothing is known of
    // tables yet, a range is taken for a few rows, each of which would be looked up in the others' whole range.
    let custom = "set local plan_cache_mode = force_custom_plan; set local enable_nestloop = off; \
                  set local enable_seqscan = off";
    Ok(sqlx::raw_sql(custom).execute(connection).await.map(drop)?)
}

/// Checks every equation for each tenant, in the caller's snapshot.
pub async fn report(connection: &mut Connection, ledger: &str, read_model: &str) -> Result<Report> {
    let mut check = Check::begin(connection, Projectors { ledger, read_model }, None).await?;
    while check.page(connection).await? {}
    Ok(check.report(parked(connection).await?))
}

/// What each projector has yet to apply, without parked wallets.
pub async fn lag(connection: &mut Connection, projectors: &[&str]) -> Result<Vec<Lag>> {
    Ok(sqlx::query_as(
        "select p.projector, count(b.id) as wallets, \
             coalesce(sum(b.events), 0)::bigint as events \
         from unnest($1::text[]) p(projector) left join lateral ( \
             select w.id, w.version - coalesce(v.version, 0) as events from wallets w \
             left join projected_versions v on v.tenant_id = w.tenant_id \
                 and v.projector = p.projector and v.wallet_id = w.id \
             where w.version > coalesce(v.version, 0) \
               and not exists (select from parked_wallets k where k.tenant_id = w.tenant_id \
                   and k.projector = p.projector and k.wallet_id = w.id)) b on true \
         group by p.projector order by p.projector",
    )
    .bind(projectors)
    .fetch_all(connection)
    .await?)
}

/// What parked wallets hold back, with the reason.
async fn parked(connection: &mut Connection) -> Result<Vec<ParkedLag>> {
    Ok(sqlx::query_as(
        "select p.projector, p.wallet_id, p.version, p.cause, \
             greatest(coalesce(w.version, 0) - p.version + 1, 0) as events \
         from parked_wallets p left join wallets w \
             on w.tenant_id = p.tenant_id and w.id = p.wallet_id \
         order by p.projector, p.tenant_id, p.wallet_id limit 1000",
    )
    .fetch_all(connection)
    .await?)
}
