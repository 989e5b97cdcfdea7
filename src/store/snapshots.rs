//! Who holds the oldest snapshot or transaction: while it lasts, nothing that was replaced or deleted since
//! is cleaned up, and the feed from Postgres cannot move its cursors past it.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Pool, Result};

/// A session, a slot or a prepared transaction that keeps the server from cleaning up, and the feed from
/// Postgres from moving its cursors.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow, Serialize, ToSchema)]
#[schema(as = HeldSnapshot)]
pub struct Snapshot {
    #[schema(pattern = "^(session|prepared transaction|replication slot)$")]
    pub kind: String,
    #[schema(required)]
    pub pid: Option<i32>,
    /// Its application, global identifier or slot.
    pub name: String,
    #[schema(required)]
    pub database: Option<String>,
    /// Null: no age is known, as of a slot.
    #[schema(required)]
    pub seconds: Option<i64>,
    /// Transactions that began since.
    #[schema(required)]
    pub transactions: Option<i64>,
}

impl Snapshot {
    /// Names the holder for operators.
    pub fn text(&self) -> String {
        let pid = self.pid.map(|pid| format!(" pid {pid}")).unwrap_or_default();
        let database = self.database.as_ref().map(|name| format!(" in {name}"));
        let age = match (self.seconds, self.transactions) {
            (Some(seconds), _) => format!(" for {seconds} s"),
            (None, Some(transactions)) => format!(" for {transactions} transactions"),
            (None, None) => String::new(),
        };
        format!("{} {}{pid}{}{age}", self.kind, self.name, database.unwrap_or_default())
    }
}

/// The holders of the oldest of them, of all that the schema's owner may see, the oldest first; slots,
/// whose age is unknown, come last.
pub async fn oldest(pool: &Pool, limit: i64) -> Result<Vec<Snapshot>> {
    Ok(sqlx::query_as(
        "select kind, pid, name, database, seconds, transactions from wallex_snapshots() \
         order by seconds desc nulls last, transactions desc nulls last limit $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?)
}
