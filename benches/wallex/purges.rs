//! What an event costs later: its outbox row is purged, and its key, with the vacuum of both. No other
//! line sees it, because nothing gets old in a run.

use std::time::{Duration, Instant};

use anyhow::ensure;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::commands::seconds;
use crate::cost::Cost;
use crate::layout::Layout;
use crate::reading::Reading;
use crate::seed::Seed;
use crate::service::Service;
use crate::world::{Database, World};

const LOOK: Duration = Duration::from_millis(250);
/// Nothing more is purged: sessions tell what they changed a second later.
const STILL: Duration = Duration::from_secs(4);

/// Retention over events whose outbox rows and keys are past their time: first with the settings as they
/// are, which takes outbox rows and answers, then with so short a life of keys that they go, too.
pub async fn measure(world: &mut World) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Aged).await?;
    let mut connection = PgConnection::connect(&database.url).await?;
    let layout = Layout::of(&mut connection).await?;
    world.begin(None).await?;
    let (took, first) = purge(world, &database, layout, &[]).await?;
    let answers = "select count(*) from idempotency_keys where status is not null";
    let answers = count(&mut connection, answers).await?;
    let days = [("IDEMPOTENCY_KEY_RETENTION_DAYS", "1")];
    let (took_keys, second) = purge(world, &database, layout, &days).await?;
    for table in [layout.outbox(), "idempotency_keys"] {
        let left = count(&mut connection, &format!("select count(*) from {table}")).await?;
        ensure!(left == 0, "{left} rows of {table} were not purged");
    }
    let from = world.mark(None).await?;
    let vacuum = format!("vacuum {}, idempotency_keys", layout.outbox());
    sqlx::raw_sql(AssertSqlSafe(vacuum)).execute(&mut connection).await?;
    let vacuum = from.until(&world.mark(None).await?, world.scale.purged);
    connection.close().await?;
    let cost = first + second + vacuum;
    let statements = world.breakdown(&database, cost, world.scale.purged).await?;
    world.discard(database).await?;
    let rate = world.scale.purged as f64 / seconds(took + took_keys);
    let reading = Reading::of(rate).with_cost(cost).with_statements(statements);
    Ok(reading
        .with("answers that stay", answers as f64)
        .with("µs of the vacuum", vacuum.postgres_us)
        .with("WAL B of the vacuum", vacuum.wal_bytes))
}

/// Runs the service until it has purged what it will: how long that took, and what it cost.
async fn purge(
    world: &World,
    database: &Database,
    layout: Layout,
    settings: &[(&str, &str)],
) -> anyhow::Result<(Duration, Cost)> {
    let mut connection = PgConnection::connect(&database.url).await?;
    // Not rows: counting them would cost as much as purging them.
    let changes = format!(
        "select /* bench */ sum(n_tup_upd + n_tup_del)::bigint from pg_stat_user_tables \
         where relname like '{}%' or relname like 'idempotency_keys%'",
        layout.outbox()
    );
    let before = count(&mut connection, &changes).await?;
    let from = world.mark(None).await?;
    let service = Service::start(world, database, settings).await?;
    let (begin, mut seen) = (Instant::now(), (Instant::now(), 0));
    while seen.1 == 0 || seen.0.elapsed() < STILL {
        tokio::time::sleep(LOOK).await;
        let changed = count(&mut connection, &changes).await? - before;
        if changed > seen.1 {
            seen = (Instant::now(), changed);
        }
        ensure!(begin.elapsed() < world.scale.patience, "purging does not end");
    }
    let cost = from.until(&world.mark(Some(service.pid())).await?, world.scale.purged);
    connection.close().await?;
    service.stop().await?;
    Ok((seen.0 - begin, cost))
}

async fn count(connection: &mut PgConnection, question: &str) -> anyhow::Result<i64> {
    let question = AssertSqlSafe(question.to_owned());
    Ok(sqlx::query_scalar(question).fetch_one(connection).await?)
}
