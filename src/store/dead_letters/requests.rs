//! Operators' requests: replays, quarantine. Both only change rows here; an instance with Kafka does
//! the rest, so that a request outlives the process that made it.

use super::{STATE, Source};
use crate::store::{Connection, PIPELINE, Result};

/// The cause by which parked wallets are chosen; dead letters have classes of their own.
pub const PARKED: &str = "parked";

/// Which dead letters and parked wallets are meant. Everything that is given must agree; with
/// nothing given, all are. What is named by its id is meant whatever its state, else only what is
/// open.
#[derive(Debug, Clone, Default)]
pub struct ReplaySelector {
    pub ids: Vec<i64>,
    pub wallet: Option<String>,
    pub cause: Option<String>,
    /// One of [`Source::WORDS`]; parked wallets are of events.
    pub source: Option<String>,
}

/// Rows that match a replay or quarantine request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchedRows {
    /// Dead letters, ascending.
    pub ids: Vec<i64>,
    /// Parked wallets of any tenant.
    pub wallets: Vec<ParkedWallet>,
}

/// A parked wallet and the attempts so far.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ParkedWallet {
    pub tenant_id: String,
    pub projector: String,
    pub wallet_id: String,
    pub attempts: i32,
}

/// A request that has not been carried out yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Outstanding {
    pub letters: i64,
    pub wallets: i64,
}

impl MatchedRows {
    fn column(&self, of: impl Fn(&ParkedWallet) -> &String) -> Vec<&String> {
        self.wallets.iter().map(of).collect()
    }
}

/// What a replay of the selection would touch.
pub async fn choose(
    connection: &mut Connection,
    selection: &ReplaySelector,
) -> Result<MatchedRows> {
    let sql = format!(
        "select d.id from dead_letters d where d.tenant_id = $1 \
             and (cardinality($2::bigint[]) = 0 or d.id = any($2)) \
             and ($3::bytea is null or d.key = $3) and ($4::text is null or d.error_class = $4) \
             and ($5::text is null or d.source = $5) \
             and (cardinality($2::bigint[]) > 0 or {STATE} = 'open') order by d.id"
    );
    let ids = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(PIPELINE)
        .bind(&selection.ids)
        .bind(selection.wallet.as_deref().map(str::as_bytes))
        .bind(&selection.cause)
        .bind(&selection.source)
        .fetch_all(&mut *connection)
        .await?;
    let parked = selection.ids.is_empty() && has_parked(&selection.cause, &selection.source);
    let wallets = match parked {
        false => Vec::new(),
        true => {
            sqlx::query_as(
                "select tenant_id, projector, wallet_id, attempts from parked_wallets \
                 where $1::text is null or wallet_id = $1 \
                 order by projector, tenant_id, wallet_id",
            )
            .bind(&selection.wallet)
            .fetch_all(connection)
            .await?
        }
    };
    Ok(MatchedRows { ids, wallets })
}

/// Whether parked wallets are among what is chosen by a cause and a source.
pub fn has_parked(cause: &Option<String>, source: &Option<String>) -> bool {
    let events = Source::Events.as_str();
    cause.as_deref().is_none_or(|cause| cause == PARKED)
        && source.as_deref().is_none_or(|source| source == events)
}

/// Asks for the replay of dead letters and for the next attempt at parked wallets.
pub async fn replay(connection: &mut Connection, chosen: &MatchedRows) -> Result<()> {
    sqlx::query(
        "update dead_letters set replay_requested_at = clock_timestamp(), refusal = null, \
             quarantined_at = null \
         where tenant_id = $1 and id = any($2) and replay_requested_at is null",
    )
    .bind(PIPELINE)
    .bind(&chosen.ids)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "update parked_wallets p set next_retry_at = clock_timestamp() \
         from unnest($1::text[], $2::text[], $3::text[]) c(tenant_id, projector, wallet_id) \
         where p.tenant_id = c.tenant_id and p.projector = c.projector \
           and p.wallet_id = c.wallet_id",
    )
    .bind(chosen.column(|wallet| &wallet.tenant_id))
    .bind(chosen.column(|wallet| &wallet.projector))
    .bind(chosen.column(|wallet| &wallet.wallet_id))
    .execute(connection)
    .await?;
    Ok(())
}

/// Marks dead letters as settled by a person. Requests for their replay are withdrawn.
pub async fn quarantine(connection: &mut Connection, ids: &[i64], note: &str) -> Result<()> {
    sqlx::query(
        "update dead_letters set quarantined_at = clock_timestamp(), note = $3, \
             replay_requested_at = null \
         where tenant_id = $1 and id = any($2)",
    )
    .bind(PIPELINE)
    .bind(ids)
    .bind(super::printable(note))
    .execute(connection)
    .await?;
    Ok(())
}

/// How much of a request is still to be done. A wallet is done once it is released or was tried.
pub async fn outstanding(connection: &mut Connection, chosen: &MatchedRows) -> Result<Outstanding> {
    Ok(sqlx::query_as(
        "select (select count(*) from dead_letters where tenant_id = $1 and id = any($2) \
                and replay_requested_at is not null) as letters, \
             (select count(*) from parked_wallets p \
                join unnest($3::text[], $4::text[], $5::int[], $6::text[]) \
                    c(projector, wallet_id, attempts, tenant_id) on p.tenant_id = c.tenant_id \
                  and p.projector = c.projector and p.wallet_id = c.wallet_id \
                where p.attempts <= c.attempts) as wallets",
    )
    .bind(PIPELINE)
    .bind(&chosen.ids)
    .bind(chosen.column(|wallet| &wallet.projector))
    .bind(chosen.column(|wallet| &wallet.wallet_id))
    .bind(chosen.wallets.iter().map(|wallet| wallet.attempts).collect::<Vec<_>>())
    .bind(chosen.column(|wallet| &wallet.tenant_id))
    .fetch_one(connection)
    .await?)
}

/// Those that the broker would not take, with the cause.
pub async fn refused(connection: &mut Connection, ids: &[i64]) -> Result<Vec<(i64, String)>> {
    Ok(sqlx::query_as(
        "select id, refusal from dead_letters \
         where tenant_id = $1 and id = any($2) and refusal is not null order by id",
    )
    .bind(PIPELINE)
    .bind(ids)
    .fetch_all(connection)
    .await?)
}
