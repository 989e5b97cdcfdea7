//! The books checked against themselves. Reads only, in one snapshot, so that a running service
//! neither disturbs the check nor is disturbed by it.
//!
//! Every wallet is compared at the version that its projection has reached: what a projector has
//! not applied yet is lag and no failure. Expectations are worked out here in SQL, from `events`
//! alone, and share nothing with the code that wrote the tables.

mod equations;

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::connect::OVER_ALL;
use super::{Connection, Pool, Result, clusters};
use equations::EQUATIONS;

/// Findings that an equation lists; the rest is counted.
const FINDINGS_MAX: i64 = 20;

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

/// The state of the books in one snapshot.
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

/// The report of all tenants, in one snapshot; no question of it may take longer than `limit`.
pub async fn checked(
    pool: &Pool,
    ledger: &str,
    read_model: &str,
    limit: Duration,
) -> Result<Report> {
    let mut connection = pool.acquire().await?;
    super::begin(&mut connection).await?;
    snapshot(&mut connection).await?;
    let limit = format!("set local statement_timeout = {}", limit.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(&mut *connection).await?;
    let report = report(&mut connection, ledger, read_model).await;
    super::rollback(&mut connection).await?;
    report
}

/// Makes the running transaction a read-only snapshot. Must be its first statement.
pub async fn snapshot(connection: &mut Connection) -> Result<()> {
    let settings = "set transaction isolation level repeatable read, read only; \
                    set local statement_timeout = '30min'; \
                    set local idle_in_transaction_session_timeout = '10min'";
    sqlx::raw_sql(settings).execute(&mut *connection).await?;
    Ok(sqlx::raw_sql(OVER_ALL).execute(connection).await.map(drop)?)
}

/// Checks every equation for each tenant.
pub async fn report(connection: &mut Connection, ledger: &str, read_model: &str) -> Result<Report> {
    let (wallets, events): (i64, i64) =
        sqlx::query_as("select (select count(*) from wallets), (select count(*) from events)")
            .fetch_one(&mut *connection)
            .await?;
    let tenants = tenants(connection).await?;
    let cluster = clusters::identify(connection).await?;
    let mut equations = Vec::with_capacity(EQUATIONS.len());
    for equation in EQUATIONS {
        // The text is a constant; values are bound. Every equation may use all four, and the types of
        // unused ones must be known too.
        let sql = format!(
            "with given as (select $1::text, $2::text, $3::text, $4::bigint) \
             select count(*) over (), finding \
             from ({}) f order by finding collate \"C\" limit $5",
            equation.sql
        );
        let (mut count, mut findings) = (0, Vec::new());
        for tenant in &tenants {
            // How many contradictions there are, and the first of them.
            let found: Vec<(i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql.as_str()))
                .bind(tenant)
                .bind(ledger)
                .bind(read_model)
                .bind(cluster)
                .bind(FINDINGS_MAX)
                .fetch_all(&mut *connection)
                .await?;
            count += found.first().map_or(0, |(count, _)| *count);
            findings.extend(found.into_iter().map(|(_, finding)| match tenants.len() {
                1 => finding,
                _ => format!("tenant {tenant}: {finding}"),
            }));
        }
        findings.truncate(usize::try_from(FINDINGS_MAX).unwrap_or(0));
        equations.push(Checked { name: equation.name, holds: count == 0, count, findings });
    }
    let lag = lag(connection, &[ledger, read_model]).await?;
    let parked = parked(connection).await?;
    let clean = equations.iter().all(|equation| equation.holds);
    Ok(Report { clean, wallets, events, equations, lag, parked })
}

/// The tenants that have a row in the books or in what is projected from them.
async fn tenants(connection: &mut Connection) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "select tenant_id from wallets union select tenant_id from events \
         union select tenant_id from postings union select tenant_id from wallets_read_model \
         order by tenant_id",
    )
    .fetch_all(connection)
    .await?)
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
