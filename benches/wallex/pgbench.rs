//! The first ceiling: pgbench, one transaction for each operation, doing by hand what the service
//! does for a credit with a key, in the service's own tables.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use crate::layout::Layout;
use crate::reading::Reading;
use crate::request::WALLETS;
use crate::seed::Seed;
use crate::world::World;

/// Event ids ascend with time, as the service's version 7 ids do: random ones would make the index
/// slower than ours. A name behind a colon is a variable to pgbench, in JSON too: hence the blanks.
/// With the key goes what the service keeps of a success: the version that says it.
const SCRIPT: &str = r#"
\set wallet {wallet}
begin;
insert into idempotency_keys (tenant_id, scope_hash, fingerprint, transaction_id, status, version, created_at)
values ('default', uuid_send(gen_random_uuid()), uuid_send(gen_random_uuid()), gen_random_uuid(), 201, 3, clock_timestamp());
update wallets set balance = balance + 1, version = version + 1, updated_at = clock_timestamp()
where tenant_id = 'default' and id = 'w-' || lpad(:wallet::text, 6, '0')
returning balance, version \gset
insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, transaction_id, partition, created_at)
values ('default', 'w-' || lpad(:wallet::text, 6, '0'), :version,
  encode(overlay(uuid_send(gen_random_uuid()) placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 'hex')::uuid,
  'WalletCredited',
  '{"transactionId": "00000000-0000-7000-8000-000000000000", "previousBalance": "1000000000.00", "newBalance": "1000000001.00", "changeAmount": "1.00", "changeType": "CREDIT", "reason": null, "currency": "USD", "reference": null, "metadata": null}',
  gen_random_uuid(), :wallet::int % 10, clock_timestamp());
{outbox}
commit;
"#;

/// One reading with so many clients, over all wallets or over one.
pub async fn measure(world: &mut World, clients: usize, hot: bool) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Wallets).await?;
    let folder = tempfile::tempdir_in(world.folder.path())?;
    let script = folder.path().join("credit.sql");
    let wallet = if hot { "0".to_owned() } else { format!("random(0, {})", WALLETS - 1) };
    let mut connection = PgConnection::connect(&database.url).await?;
    let outbox = Layout::of(&mut connection).await?.outbox_of_one();
    connection.close().await?;
    let text = SCRIPT.replace("{wallet}", &wallet).replace("{outbox}", &outbox);
    tokio::fs::write(&script, text).await?;

    let program = world.postgres.bin.join("pgbench");
    let program = if program.exists() { program } else { "pgbench".into() };
    let port = world.postgres.port.to_string();
    let mut command = Command::new(program);
    command.args(["-n", "-M", "prepared", "-h", "127.0.0.1", "-U", "postgres", "-p", &port]);
    command.args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string()]);
    command.args(["-T", &world.scale.reading.as_secs().max(1).to_string()]);
    command.args(["--log", "--log-prefix=run", "-f"]).arg(&script).arg(&database.name);
    command.current_dir(folder.path()).stdin(Stdio::null());

    let begin = world.begin(None).await?;
    let output = command.output().await.context("pgbench (Debian: postgresql-contrib)")?;
    let end = world.mark(None).await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench failed: {complaint}");
    let rate: f64 = said
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
        .with_context(|| format!("pgbench said no rate: {said}"))?;
    let latency = latencies(folder.path())?;
    let cost = begin.until(&end, latency.len());
    let statements = world.breakdown(&database, cost, latency.len()).await?;
    world.discard(database).await?;
    Ok(Reading::of(rate).with_latency(&latency).with_cost(cost).with_statements(statements))
}

/// pgbench's log has a line for each transaction; its third field is the latency in µs.
fn latencies(folder: &Path) -> anyhow::Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("run.")) {
            let text = std::fs::read_to_string(path)?;
            let fields = text.lines().filter_map(|line| line.split(' ').nth(2)?.parse().ok());
            fields.for_each(|micros| latency.saturating_record(micros));
        }
    }
    Ok(latency)
}
