//! Prepared databases: the service's schema, 1,000 wallets, and events without end if asked for.
//!
//! Events are written as the service would leave them, one transaction for one event of each
//! wallet, without waiting for the disk: nobody measures this part.

use std::process::Command;

use anyhow::ensure;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use wallex::envelope::partition_of;

use crate::layout::Layout;
use crate::request::{WALLETS, wallet_text};
use crate::world::{PARTITIONS, World};

/// The topic of prepared events.
pub const TOPIC: &str = "events-bench";

/// What a prepared database holds besides 1,000 wallets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seed {
    Wallets,
    /// 100 events and ledger entries for each wallet, all published and projected.
    Reads,
    /// Rows that wait for the publisher; projections are done, as when Kafka was away for a while
    /// and the feed from Postgres kept them in step.
    Backlog,
    /// Outbox rows and keys that are past their time.
    Aged,
    /// Events that no projector has seen.
    Unprojected,
    /// Millions of events, keys, outbox rows and ledger entries: a service that has run for long.
    Grown,
}

impl Seed {
    pub fn database(self) -> &'static str {
        match self {
            Seed::Wallets => "seed_wallets",
            Seed::Reads => "seed_reads",
            Seed::Backlog => "seed_backlog",
            Seed::Aged => "seed_aged",
            Seed::Unprojected => "seed_unprojected",
            Seed::Grown => "seed_grown",
        }
    }

    /// The topic that its rows speak of. The grown database is used again and again, and its topic
    /// with it; all others are copies, with a topic that begins empty.
    pub fn topic(self) -> &'static str {
        match self {
            Seed::Grown => "events-grown",
            _ => TOPIC,
        }
    }

    /// Events for each wallet behind its opening.
    fn versions(self, world: &World) -> u64 {
        let all = match self {
            Seed::Wallets => 0,
            Seed::Reads => 100 * WALLETS,
            Seed::Backlog => world.scale.backlog,
            Seed::Aged => world.scale.purged,
            Seed::Unprojected => world.scale.rebuild,
            Seed::Grown => world.scale.grown,
        };
        all / WALLETS
    }
}

/// Fills a new database.
pub async fn fill(world: &World, seed: Seed, url: &str) -> anyhow::Result<()> {
    migrate(world, url)?;
    let mut connection = PgConnection::connect(url).await?;
    open_wallets(&mut connection).await?;
    let (layout, versions) = (Layout::of(&mut connection).await?, seed.versions(world));
    if versions > 0 {
        run(&mut connection, "set synchronous_commit = off").await?;
        run(&mut connection, &events(layout, seed, versions)).await?;
    }
    run(&mut connection, &finish(layout, seed, versions)).await?;
    // Not within a transaction, and not while measuring.
    run(&mut connection, "vacuum analyze").await?;
    Ok(connection.close().await?)
}

/// `wallex migrate`: the schema is the service's own.
fn migrate(world: &World, url: &str) -> anyhow::Result<()> {
    let mut command = Command::new(&world.program);
    command.env_clear().env("DATABASE_URL", url).env("KAFKA_ENABLED", "false");
    let output = command.current_dir(world.folder.path()).arg("migrate").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "wallex migrate failed: {said}");
    Ok(())
}

async fn run(connection: &mut PgConnection, statements: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(connection).await?;
    Ok(())
}

/// Wallets with an opening balance of 1,000,000,000.00, as `POST /wallets` leaves them: two events.
async fn open_wallets(connection: &mut PgConnection) -> anyhow::Result<()> {
    let ids: Vec<String> = (0..WALLETS).map(wallet_text).collect();
    let partitions: Vec<i32> = ids.iter().map(|id| partition_of(id, PARTITIONS)).collect();
    sqlx::query(
        "insert into wallets (tenant_id, id, owner_id, currency, status, balance, version, \
            created_at, updated_at) \
         select 'default', id, 'bench', 'USD', 'active', 1000000000, 2, now(), now() \
         from unnest($1::text[]) as w(id)",
    )
    .bind(&ids)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, \
            transaction_id, partition, created_at) \
         select 'default', id, version, gen_random_uuid(), \
            case version when 1 then 'WalletCreated' else 'WalletCredited' end, \
            (case version when 1 then '{\"transactionId\":\"00000000-0000-7000-8000-000000000000\",\
            \"ownerId\":\"bench\",\"currency\":\"USD\",\"overdraftLimit\":\"0.00\",\
            \"previousBalance\":\"0.00\",\"newBalance\":\"0.00\",\"changeAmount\":\"0.00\",\
            \"changeType\":\"CREDIT\",\"reason\":null,\"metadata\":null}' \
            else '{\"transactionId\":\"00000000-0000-7000-8000-000000000000\",\
            \"previousBalance\":\"0.00\",\"newBalance\":\"1000000000.00\",\
            \"changeAmount\":\"1000000000.00\",\"changeType\":\"CREDIT\",\"reason\":null,\
            \"currency\":\"USD\",\"reference\":null,\"metadata\":null}' end)::json, \
            gen_random_uuid(), partition, now() \
         from unnest($1::text[], $2::int[]) as w(id, partition), generate_series(1, 2) version",
    )
    .bind(&ids)
    .bind(&partitions)
    .execute(&mut *connection)
    .await?;
    run(
        connection,
        "create table bench_wallets as select wallet_id as id, min(partition) as partition, \
            row_number() over (order by wallet_id) as number from events group by wallet_id",
    )
    .await
}

/// Ascends with the version, below every version 7 id of today.
pub const EVENT_ID: &str =
    "(lpad(to_hex(v), 12, '0') || '70008' || lpad(to_hex(number), 15, '0'))::uuid";

/// A block that commits after each version: one event for every wallet.
fn events(layout: Layout, seed: Seed, versions: u64) -> String {
    let last = versions + 2;
    let outbox = layout.outbox_of_version(seed);
    let age = if seed == Seed::Aged { "interval '2 days'" } else { "interval '0'" };
    let keys = format!(
        "insert into idempotency_keys (tenant_id, scope_hash, fingerprint, transaction_id, \
            status, version, created_at) \
         select 'default', uuid_send(md5(id || v)::uuid), uuid_send(md5(id || v)::uuid), \
            gen_random_uuid(), 201, v, clock_timestamp() - {age} from bench_wallets;"
    );
    let entries = layout.ledger_of_version();
    let (keys, entries) = match seed {
        Seed::Grown => (keys.as_str(), entries.as_str()),
        Seed::Aged => (keys.as_str(), ""),
        Seed::Reads => ("", entries.as_str()),
        _ => ("", ""),
    };
    // How small a record becomes depends on what no two of them share.
    let (transaction, correlation) = match seed {
        Seed::Backlog => ("' || gen_random_uuid() || '", "gen_random_uuid()::text"),
        _ => ("00000000-0000-7000-8000-000000000000", "null"),
    };
    format!(
        "do $$ begin for v in 3..{last} loop \
         insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, \
            transaction_id, correlation_id, partition, created_at) \
         select 'default', id, v, \
            {EVENT_ID}, \
            'WalletCredited', ('{{\"transactionId\":\"{transaction}\",\
            \"previousBalance\":\"' || 1000000000 + v - 3 || '.00\",\"newBalance\":\"' \
            || 1000000000 + v - 2 || '.00\",\"changeAmount\":\"1.00\",\"changeType\":\"CREDIT\",\
            \"reason\":null,\"currency\":\"USD\",\"reference\":null,\"metadata\":null}}')::json, \
            gen_random_uuid(), {correlation}, partition, now() from bench_wallets; \
         {outbox} {keys} {entries} commit; end loop; end $$"
    )
}

/// Wallets at their last version; projections at it too, unless they are what is measured.
fn finish(layout: Layout, seed: Seed, versions: u64) -> String {
    // Without the frozen count projectors would wait for a first command.
    let wallets = format!(
        "insert into topics (tenant_id, name, partitions) \
            values ('default', '{topic}', {PARTITIONS}); \
         update wallets set version = 2 + {versions}, balance = 1000000000 + {versions}; ",
        topic = seed.topic(),
    );
    if seed == Seed::Unprojected {
        return wallets;
    }
    wallets
        + &format!(
            "{projected} \
             insert into projector_checkpoints (tenant_id, projector, topic, partition, feed_xid) \
             select 'default', projector, '{topic}', partition, pg_current_xact_id() \
             from generate_series(0, {last}) partition, \
                (values ('ledger-projector'), ('read-model-projector')) as p(projector); \
             insert into wallets_read_model (tenant_id, id, owner_id, currency, status, balance, \
                held_balance, overdraft_limit, version, metadata, created_at, updated_at) \
             select tenant_id, id, owner_id, currency, status, balance, held_balance, \
                overdraft_limit, version, metadata, created_at, updated_at from wallets",
            projected = layout.projected(2 + versions),
            topic = seed.topic(),
            last = PARTITIONS - 1,
        )
}
