//! The partition count that a topic's keys are hashed over, frozen in the database.

use super::{Connection, Result};
use crate::wallet::TenantId;

/// The topic's frozen count; `default` is frozen if there is none yet.
pub async fn partitions_frozen(
    connection: &mut Connection,
    tenant: &TenantId,
    topic: &str,
    default: i32,
) -> Result<i32> {
    sqlx::query(
        "insert into topics (tenant_id, name, partitions) values ($1, $2, $3) \
         on conflict (tenant_id, name) do nothing",
    )
    .bind(tenant.as_str())
    .bind(topic)
    .bind(default)
    .execute(&mut *connection)
    .await?;
    Ok(sqlx::query_scalar("select partitions from topics where tenant_id = $1 and name = $2")
        .bind(tenant.as_str())
        .bind(topic)
        .fetch_one(connection)
        .await?)
}
