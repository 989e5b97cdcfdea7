//! How a wallet's balance comes about, for the one who asks about it: what its entries came to, how far its last events
//! have got, and whether the books agree on it. All of it in one snapshot.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::{Connection, Result};
use crate::ledger::TransactionType;
use crate::wallet::{TenantId, WalletId};

/// Entries that are added up by their types; a wallet with more has its totals only.
const ENTRIES_MAX: i64 = 200_000;
/// Events that are shown.
const EVENTS: i64 = 5;

/// What the entries of one type came to, as decimal text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumOfType {
    pub kind: TransactionType,
    pub amount: String,
    pub count: i64,
}

/// One of a wallet's last events.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LastEvent {
    pub version: i64,
    pub event_id: Uuid,
    pub event_type: String,
    pub partition: i32,
    pub created_at: chrono::DateTime<chrono::Utc>,
    /// None that was recorded as early, or earlier, waits for Kafka in its partition.
    pub sent: bool,
}

/// Where a projection stands with a wallet, and what it has of it there.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Projected {
    pub version: i64,
    /// None: they are being worked out.
    pub balance: Option<Decimal>,
    pub held_balance: Option<Decimal>,
}

/// Begins the snapshot that all questions are asked in; [`super::answered`] ends it.
pub async fn snapshot(connection: &mut Connection) -> Result<()> {
    let begin = "begin isolation level repeatable read, read only";
    Ok(sqlx::raw_sql(begin).execute(connection).await.map(drop)?)
}

/// What a wallet's entries came to, by type; none where there are too many to add up for a question.
pub async fn by_type(
    connection: &mut Connection,
    tenant: &TenantId,
    wallet: &WalletId,
) -> Result<Option<Vec<SumOfType>>> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select transaction_type, sum(amount)::text, count(*) from (select transaction_type, amount \
             from postings where tenant_id = $1 and wallet_id = $2 order by version limit $3) p \
         group by transaction_type",
    )
    .bind(tenant.as_str())
    .bind(wallet.as_str())
    .bind(ENTRIES_MAX + 1)
    .fetch_all(connection)
    .await?;
    if rows.iter().map(|(.., count)| count).sum::<i64>() > ENTRIES_MAX {
        return Ok(None);
    }
    let named = rows.into_iter().filter_map(|(kind, amount, count)| {
        Some(SumOfType { kind: TransactionType::parse(&kind)?, amount, count })
    });
    let mut named: Vec<SumOfType> = named.collect();
    named.sort_by_key(|sum| TransactionType::ALL.iter().position(|kind| *kind == sum.kind));
    Ok(Some(named))
}

/// A wallet's last events, the newest first.
pub async fn last_events(
    connection: &mut Connection,
    tenant: &TenantId,
    wallet: &WalletId,
    topic: &str,
) -> Result<Vec<LastEvent>> {
    // A partition's rows are sent in the order of their ids; those that are sent again have ids below zero.
    Ok(sqlx::query_as(
        "select e.version, e.event_id, e.event_type, e.partition, e.created_at, \
             o.created_at is null or o.created_at > e.created_at as sent \
         from (select version, event_id, event_type, partition, created_at from events \
             where tenant_id = $1 and wallet_id = $2 order by version desc limit $4) e \
         left join lateral (select created_at from outbox_batches \
             where topic = $3 and partition = e.partition and id > 0 and processed_at is null \
             order by id, part limit 1) o on true \
         order by e.version desc",
    )
    .bind(tenant.as_str())
    .bind(wallet.as_str())
    .bind(topic)
    .bind(EVENTS)
    .fetch_all(connection)
    .await?)
}

/// What the ledger has of a wallet: its version, and what its totals come to.
pub async fn in_ledger(
    connection: &mut Connection,
    tenant: &TenantId,
    projector: &str,
    wallet: &WalletId,
) -> Result<Option<Projected>> {
    Ok(sqlx::query_as(
        "select version, case when totals_at = version \
                 and abs(total_credits - total_debits) < 10::numeric ^ 20 \
             then (total_credits - total_debits)::numeric(28,8) end as balance, \
             null::numeric as held_balance \
         from projected_wallets where tenant_id = $1 and projector = $2 and wallet_id = $3",
    )
    .bind(tenant.as_str())
    .bind(projector)
    .bind(wallet.as_str())
    .fetch_optional(connection)
    .await?)
}

/// What the read model has of a wallet.
pub async fn in_read_model(
    connection: &mut Connection,
    tenant: &TenantId,
    wallet: &WalletId,
) -> Result<Option<Projected>> {
    Ok(sqlx::query_as(
        "select version, balance, held_balance from wallets_read_model \
         where tenant_id = $1 and id = $2",
    )
    .bind(tenant.as_str())
    .bind(wallet.as_str())
    .fetch_optional(connection)
    .await?)
}
