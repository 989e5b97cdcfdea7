//! How many partitions a topic's keys are hashed over. Frozen at first use: a broker whose count
//! is raised later must not split a wallet's order.

use super::{Connection, Result};
use crate::wallet::TenantId;

/// The count that the topic's keys are hashed with; `first` is frozen where there is none yet.
pub async fn partitions_frozen(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
    first: i32,
) -> Result<i32> {
    sqlx::query(
        "insert into topics (tenant_id, name, partitions) values ($1, $2, $3) \
         on conflict on constraint topics_pkey do nothing",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .bind(first)
    .execute(&mut *connection)
    .await?;
    // A statement of its own: the insert's snapshot may be older than the row it met.
    Ok(sqlx::query_scalar("select partitions from topics where tenant_id = $1 and name = $2")
        .bind(tenant.as_str())
        .bind(topic)
        .fetch_one(connection)
        .await?)
}
