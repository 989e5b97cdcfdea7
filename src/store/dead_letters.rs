//! Records of the topic that are no event of ours, kept whole with the reason.

use chrono::{DateTime, Utc};

use super::checkpoints::Subscription;
use super::{Connection, Result};
use crate::wallet::TenantId;

/// A record to be set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// A JSON object, name to value.
    pub headers: String,
    pub error_class: &'static str,
    pub error_message: String,
}

/// One dead letter as operators list it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Kept {
    pub id: i64,
    pub projector: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub error_class: String,
    pub error_message: String,
    pub created_at: DateTime<Utc>,
}

/// Sets records aside; returns how many are new. The same record met again stays one dead letter.
pub async fn insert(
    connection: &mut Connection,
    of: &Subscription,
    letters: &[&DeadLetter],
) -> Result<u64> {
    let done = sqlx::query(
        "insert into dead_letters (tenant_id, projector, topic, partition, \"offset\", key, \
             value, headers, error_class, error_message) \
         select $1, $2, $3, d.* from unnest($4::int[], $5::bigint[], $6::bytea[], $7::bytea[], \
             $8::json[], $9::text[], $10::text[]) d \
         on conflict (tenant_id, projector, topic, partition, \"offset\") do nothing",
    )
    .bind(of.tenant.as_str())
    .bind(of.projector)
    .bind(&of.topic)
    .bind(letters.iter().map(|l| l.partition).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.offset).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.key.as_deref()).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.value.as_deref()).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.headers.as_str()).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.error_class).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.error_message.replace('\0', "\u{fffd}")).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The newest dead letters.
pub async fn list(connection: &mut Connection, tenant: &TenantId, limit: i64) -> Result<Vec<Kept>> {
    Ok(sqlx::query_as(
        "select id, projector, topic, partition, \"offset\", error_class, error_message, \
             created_at from dead_letters where tenant_id = $1 order by id desc limit $2",
    )
    .bind(tenant.as_str())
    .bind(limit)
    .fetch_all(connection)
    .await?)
}
