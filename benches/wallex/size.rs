//! At size: what an event costs over tables of years, beside the same over a tenth of them. The tables' relation to
//! memory and to checkpoints is that of a large server, not their size: PostgreSQL gets a gigabyte and a checkpoint
//! each 30 s. In thirds of the time: steady load, the same beside two forced freezes, the same under a snapshot
//! that is held.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::commands::{Command, Work};
use crate::cost::Cost;
use crate::load::{self, Tally};
use crate::request::Aim;
use crate::seed::Seed;
use crate::service::{Service, position};
use crate::table;
use crate::world::{Database, World};

/// What the run's PostgreSQL is given.
pub const SETTINGS: [(&str, &str); 7] = [
    ("shared_buffers", "256MB"),
    ("checkpoint_timeout", "30s"),
    ("max_wal_size", "8GB"),
    ("max_connections", "300"),
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
];
const MEMORY: u64 = 1 << 30;
/// Of what closed connections reach in a burst: about 60 % of what lasts.
const SHARE: f64 = 0.36;
const BURST: Duration = Duration::from_secs(5);
const PHASES: [&str; 3] = ["steady", "two freezes", "a held snapshot"];

/// What one phase came to.
pub struct Phase {
    name: &'static str,
    rows: u64,
    tally: Tally,
    cost: Cost,
    /// Pages that an event read, from memory and from elsewhere.
    hit: f64,
    read: f64,
    /// How far the slower projection was behind at its end.
    behind: i64,
}

/// Puts the server into a control group of its own; why not, where that cannot be.
pub fn confine(pid: Option<u32>) -> Result<PathBuf, String> {
    let pid = pid.ok_or("PostgreSQL has no process")?;
    let group = PathBuf::from(format!("/sys/fs/cgroup/wallex-bench-{pid}"));
    let confine = || -> std::io::Result<()> {
        std::fs::create_dir(&group)?;
        std::fs::write(group.join("memory.max"), MEMORY.to_string())?;
        // Sessions that begin from here on are its children.
        std::fs::write(group.join("cgroup.procs"), pid.to_string())
    };
    confine().map(|()| group.clone()).map_err(|error| {
        let _ = std::fs::remove_dir(&group);
        format!("no control group can be made ({error}): shared_buffers alone bounds its memory")
    })
}

/// All phases at a tenth of the rows, then at all of them, at one rate.
pub async fn measure(world: &mut World, rows: u64, time: Duration) -> anyhow::Result<Vec<Phase>> {
    let (mut all, mut rate) = (Vec::new(), None);
    let each = time / 6;
    for rows in [rows / 10, rows] {
        let database = world.filled(Seed::Grown, rows).await?;
        age(&database).await?;
        let service = Service::start(world, &database, &[]).await?;
        let request = Command::Credit.request(Aim::Uniform);
        if rate.is_none() {
            let burst = load::closed(service.port, 128, &request, BURST.min(each)).await?;
            rate = Some(burst.rate() * SHARE);
        }
        service.drain(world.scale.patience).await?;
        for name in PHASES {
            let rate = rate.unwrap_or(100.0);
            let phase = phase(world, &service, &database, name, (rows, rate, each));
            let phase = phase.await.with_context(|| format!("{name}, {rows} rows"))?;
            eprintln!(
                "  {rows:9} rows  {name}: {:.1} µs, {:.0} B of WAL",
                phase.cost.postgres_us, phase.cost.wal_bytes
            );
            all.push(phase);
        }
        service.drain(world.scale.patience).await?;
        service.stop().await?;
        world.discard(database).await?;
    }
    Ok(all)
}

/// Outbox rows are past their time: retention has work all the while.
async fn age(database: &Database) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&database.url).await?;
    let age = "update outbox_batches set processed_at = processed_at - interval '30 days', \
            created_at = created_at - interval '30 days'";
    sqlx::raw_sql(age).execute(&mut connection).await?;
    sqlx::raw_sql("vacuum analyze outbox_batches").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

async fn phase(
    world: &World,
    service: &Service,
    database: &Database,
    name: &'static str,
    (rows, rate, time): (u64, f64, Duration),
) -> anyhow::Result<Phase> {
    let mut beside = PgConnection::connect(&database.url).await?;
    let mut connection = service.connect().await?;
    let before = pages(&mut connection).await?;
    let written = position(&mut connection).await?.written;
    let pid = Some(service.pid());
    let from = world.mark(pid).await?;
    let request = Command::Credit.request(Aim::Uniform);
    let work = Work::CREDIT.connections().min(128);
    let loading = load::open(service.port, work, &request, time, rate);
    let (tally, ()) = tokio::try_join!(loading, disturb(&mut beside, name, time))?;
    let to = world.mark(pid).await?;
    let position = position(&mut connection).await?;
    let events = u64::try_from(position.written - written)?;
    let after = pages(&mut connection).await?;
    let each = |of: fn((i64, i64)) -> i64| (of(after) - of(before)) as f64 / events.max(1) as f64;
    connection.close().await?;
    beside.close().await?;
    Ok(Phase {
        name,
        rows,
        tally,
        cost: from.until(&to, events),
        hit: each(|(hit, _)| hit),
        read: each(|(_, read)| read),
        behind: position.behind(),
    })
}

/// What goes on beside the load.
async fn disturb(beside: &mut PgConnection, name: &str, time: Duration) -> anyhow::Result<()> {
    match name {
        "two freezes" => {
            for table in ["events", "postings"] {
                let freeze = format!("vacuum (freeze) {table}");
                sqlx::raw_sql(AssertSqlSafe(freeze)).execute(&mut *beside).await?;
            }
        }
        "a held snapshot" => {
            let hold = "begin isolation level repeatable read; select 1";
            sqlx::raw_sql(hold).execute(&mut *beside).await?;
            tokio::time::sleep(time).await;
            sqlx::raw_sql("rollback").execute(&mut *beside).await?;
        }
        _ => {}
    }
    Ok(())
}

/// Pages of this database so far: from memory, and read.
async fn pages(connection: &mut PgConnection) -> anyhow::Result<(i64, i64)> {
    Ok(sqlx::query_as(
        "select /* bench */ blks_hit, blks_read from pg_stat_database \
         where datname = current_database()",
    )
    .fetch_one(connection)
    .await?)
}

/// The table, as Markdown; beside the figures of all rows their ratio to those of a tenth.
pub fn markdown(all: &[Phase]) -> String {
    let mut text = String::from(
        "| phase | rows | per s | p50 ms | p99 ms | PostgreSQL µs | of these in the background | WAL B | \
         pages | pages read | events behind | errors |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for phase in all {
        let least = all.iter().find(|other| other.name == phase.name && other.rows < phase.rows);
        let ratio = |of: fn(&Phase) -> f64| {
            let ratio = least.map(|least| of(phase) / of(least).max(1e-9));
            let ratio = ratio.map(|ratio| format!(" ({ratio:.2} ×)")).unwrap_or_default();
            format!("{}{ratio}", table::short(of(phase)))
        };
        let ms = |quantile| phase.tally.latency.value_at_quantile(quantile) as f64 / 1000.0;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} | {:.2} | {} | {} | {} | {} | {} | {} | {} |",
            phase.name,
            phase.rows,
            table::short(phase.tally.rate()),
            ms(0.5),
            ms(0.99),
            ratio(|phase| phase.cost.postgres_us),
            ratio(|phase| phase.cost.background_us),
            ratio(|phase| phase.cost.wal_bytes),
            ratio(|phase| phase.hit + phase.read),
            ratio(|phase| phase.read),
            phase.behind,
            phase.tally.errors,
        );
    }
    text
}
