//! The second ceiling: a writer that has its operations at hand and writes them in batches, with
//! separate statements for keys, wallets, events and outbox, into the service's own tables or into
//! narrow ones. Into the same tables no service can write one batch faster; it may only join them into one
//! statement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};
use tokio::task::JoinSet;
use uuid::Uuid;
use wallex::cli::loadtest::ask::Draw;
use wallex::envelope::partition_of;

use crate::layout::Layout;
use crate::narrow;
use crate::reading::Reading;
use crate::request::{WALLETS, wallet_text};
use crate::seed::{Seed, TOPIC};
use crate::world::{PARTITIONS, World};

/// Which tables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    Service,
    Narrow,
}

impl Tables {
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "batched writer",
            Self::Narrow => "batched writer, narrow tables",
        }
    }
}

/// One reading with batches of `size` credits on so many connections.
pub async fn measure(
    world: &mut World,
    tables: Tables,
    size: usize,
    connections: u64,
) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Wallets).await?;
    let mut first = connect(&database.url).await?;
    let layout = Layout::of(&mut first).await?;
    if tables == Tables::Narrow {
        narrow::prepare(&mut first).await?;
    }
    first.close().await?;
    let written = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for number in 0..connections {
        writers.push((connect(&database.url).await?, number));
    }
    let from = world.begin(None).await?;
    let begin = Instant::now();
    let end = begin + world.scale.reading;
    let mut tasks = JoinSet::new();
    for (mut connection, number) in writers {
        let written = Arc::clone(&written);
        tasks.spawn(async move {
            let mut draw = Draw((number + 1) << 32);
            while Instant::now() < end {
                match tables {
                    Tables::Service => write(&mut connection, layout, size, &mut draw).await?,
                    Tables::Narrow => narrow::write(&mut connection, size, &mut draw).await?,
                }
                written.fetch_add(size as u64, Ordering::Relaxed);
            }
            connection.close().await
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let to = world.mark(None).await?;
    let operations = written.load(Ordering::Relaxed);
    let cost = from.until(&to, operations);
    let statements = world.breakdown(&database, cost, operations).await?;
    world.discard(database).await?;
    Ok(Reading::of(operations as f64 / elapsed).with_cost(cost).with_statements(statements))
}

/// Planned as the service's lanes plan: a generic plan that keeps to the indexes.
async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    let options: PgConnectOptions = url.parse()?;
    let options = options.options([
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("jit", "off"),
    ]);
    Ok(PgConnection::connect_with(&options).await?)
}

/// The columns of one batch.
#[derive(Default)]
struct Batch {
    wallets: Vec<String>,
    versions: Vec<i64>,
    event_ids: Vec<Uuid>,
    payloads: Vec<String>,
    partitions: Vec<i32>,
    scopes: Vec<Vec<u8>>,
}

async fn write(
    connection: &mut PgConnection,
    layout: Layout,
    size: usize,
    draw: &mut Draw,
) -> Result<(), sqlx::Error> {
    let mut ids: Vec<String> = (0..size).map(|_| wallet_text(draw.below(WALLETS))).collect();
    ids.sort();
    let mut transaction = connection.begin().await?;
    let rows = sqlx::query(
        "select id, balance, version, clock_timestamp() as now from wallets \
         where tenant_id = 'default' and id = any($1) order by id for no key update",
    )
    .bind(&ids)
    .fetch_all(&mut *transaction)
    .await?;
    let now: DateTime<Utc> = rows[0].get("now");
    let mut states: BTreeMap<String, (Decimal, i64)> =
        rows.iter().map(|row| (row.get("id"), (row.get("balance"), row.get("version")))).collect();
    let batch = credit(&ids, &mut states);
    insert_keys(&mut transaction, &batch, now).await?;
    update_wallets(&mut transaction, &states, now).await?;
    insert_events(&mut transaction, layout, &batch, now).await?;
    transaction.commit().await
}

/// One credit of 1.00 for each id, in order.
fn credit(ids: &[String], states: &mut BTreeMap<String, (Decimal, i64)>) -> Batch {
    let mut batch = Batch::default();
    for id in ids {
        let Some((balance, version)) = states.get_mut(id) else { continue };
        let (before, transaction) = (*balance, Uuid::now_v7());
        (*balance, *version) = (before + Decimal::ONE, *version + 1);
        batch.payloads.push(format!(
            "{{\"transactionId\":\"{transaction}\",\"previousBalance\":\"{before:.2}\",\
             \"newBalance\":\"{balance:.2}\",\"changeAmount\":\"1.00\",\"changeType\":\"CREDIT\",\
             \"reason\":null,\"currency\":\"USD\",\"reference\":null,\"metadata\":null}}"
        ));
        batch.wallets.push(id.clone());
        batch.versions.push(*version);
        batch.event_ids.push(transaction);
        batch.partitions.push(partition_of(id, PARTITIONS));
        // As random as a hash.
        let scope = Uuid::new_v5(&transaction, b"key");
        batch.scopes.push(scope.as_bytes().to_vec());
    }
    batch.scopes.sort();
    batch
}

async fn insert_keys(
    connection: &mut PgConnection,
    batch: &Batch,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into idempotency_keys \
            (tenant_id, scope_hash, fingerprint, transaction_id, status, version, created_at) \
         select 'default', scope, scope, id, 201, version, $4 \
         from unnest($1::bytea[], $2::uuid[], $3::bigint[]) as k(scope, id, version)",
    )
    .bind(&batch.scopes)
    .bind(&batch.event_ids)
    .bind(&batch.versions)
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
}

async fn update_wallets(
    connection: &mut PgConnection,
    states: &BTreeMap<String, (Decimal, i64)>,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update wallets w set balance = m.balance, version = m.version, updated_at = $4 \
         from unnest($1::text[], $2::numeric[], $3::bigint[]) as m(id, balance, version) \
         where w.tenant_id = 'default' and w.id = m.id",
    )
    .bind(states.keys().cloned().collect::<Vec<_>>())
    .bind(states.values().map(|(balance, _)| *balance).collect::<Vec<_>>())
    .bind(states.values().map(|(_, version)| *version).collect::<Vec<_>>())
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
}

/// Events, then their outbox rows.
async fn insert_events(
    connection: &mut PgConnection,
    layout: Layout,
    batch: &Batch,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, \
            transaction_id, partition, created_at) \
         select 'default', id, version, event_id, 'WalletCredited', payload::json, event_id, \
            partition, $6 \
         from unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::int[]) \
            as e(id, version, event_id, payload, partition)",
    )
    .bind(&batch.wallets)
    .bind(&batch.versions)
    .bind(&batch.event_ids)
    .bind(&batch.payloads)
    .bind(&batch.partitions)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    sqlx::query(layout.outbox_of_many())
        .bind(&batch.wallets)
        .bind(&batch.versions)
        .bind(&batch.partitions)
        .bind(TOPIC)
        .bind(now)
        .execute(connection)
        .await
        .map(drop)
}
