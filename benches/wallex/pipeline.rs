//! The way behind the answer: outbox, Kafka, projections.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::commands::{Command, seconds};
use crate::load;
use crate::reading::Reading;
use crate::request::{Aim, Request, wallet_text};
use crate::seed::Seed;
use crate::service::{Service, waiting};
use crate::wire::Wire;
use crate::world::World;

/// Readers of `readable`: enough for a distribution, too few to be a load of their own.
const PROBES: u64 = 2;

/// From the answer of a credit until the ledger's page shows it, at so many credits a second.
pub async fn readable(world: &mut World, rate: f64) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Wallets).await?;
    let service = Service::start(world, &database, &[]).await?;
    let request = Command::Credit.request(Aim::Uniform);
    load::open(service.port, 32, &request, world.scale.warm_up, rate).await?;
    service.drain(world.scale.patience).await?;
    let time = world.scale.reading * 2;
    let mut probes = JoinSet::new();
    for number in 0..PROBES {
        // Another random sequence than any connection of the load.
        let request = request.clone().seeded(1_000 + number);
        probes.spawn(probe(service.port, request, Instant::now() + time));
    }
    let pid = Some(service.pid());
    let from = world.begin(pid).await?;
    let tally = load::open(service.port, 32, &request, time, rate).await?;
    let cost = from.until(&world.mark(pid).await?, tally.answered);
    let statements = world.breakdown(&database, cost, tally.answered).await?;
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    while let Some(ended) = probes.join_next().await {
        latency.add(ended??)?;
    }
    service.drain(world.scale.patience).await?;
    service.stop().await?;
    world.discard(database).await?;
    let reading = Reading { errors: tally.errors, ..Reading::of(tally.rate()) };
    let reading = reading.with_latency(&latency).with_cost(cost).with_statements(statements);
    Ok(reading.with("probes", latency.len() as f64))
}

/// Credits, and asks for the ledger's page with the credit's Consistency-Token: that read is answered
/// once the entry is there. The time ends with its answer.
async fn probe(port: u16, mut request: Request, end: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    let mut wire = Wire::open(port).await?;
    while Instant::now() < end {
        let status = wire.call(request.next()).await?;
        let answered = Instant::now();
        ensure!(status == 201, "a probe's credit was answered {status}");
        let version = number_after(wire.body(), "\"version\":").context("no version")?;
        let token = wire.header("consistency-token").context("no consistency-token")?;
        let wallet = wallet_text(request.wallet);
        let page = format!(
            "GET /ledger/wallet/{wallet}?limit=1 HTTP/1.1\r\nhost: bench\r\n\
             consistency-token: {token}\r\n\r\n"
        );
        let asked = wire.call(page.as_bytes()).await?;
        ensure!(asked == 200, "a probe's ledger page was answered {asked}");
        let projected = number_after(wire.body(), "\"projectedVersion\":").unwrap_or(0);
        ensure!(projected >= version, "an entry did not become readable in time");
        latency.saturating_record(answered.elapsed().as_micros() as u64);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(latency)
}

/// The number behind the last place of `name` in a JSON text.
fn number_after(body: &[u8], name: &str) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let rest = text.rsplit_once(name)?.1;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

/// The rate at which the publisher empties a full outbox into an empty topic, from its first mark to its
/// last. The rows say themselves when they were marked: counting what is left, again and again, would
/// take a third of a core from what is measured.
pub async fn publisher_drain(world: &mut World, codec: &str) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Backlog).await?;
    let mut connection = PgConnection::connect(&database.url).await?;
    let all =
        count(&mut connection, "select count(*) from outbox where processed_at is null").await?;
    let from = world.begin(None).await?;
    let service = Service::start(world, &database, &[("PRODUCER_COMPRESSION", codec)]).await?;
    let begin = Instant::now();
    while waiting(&mut connection).await? {
        ensure!(begin.elapsed() < world.scale.patience * 3, "the outbox is not empty");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let to = world.mark(Some(service.pid())).await?;
    let statements = world.breakdown(&database, from.until(&to, all), all).await?;
    let highest = crate::cost::memory(service.pid())?.1;
    let stored = crate::cost::stored(&world.kafka.data.join("log"), database.topic)? / all as f64;
    service.drain(world.scale.patience).await?;
    let rate: f64 = sqlx::query_scalar(
        "with marked as (select processed_at as at, count(*) as rows from outbox group by 1) \
         select ((select sum(rows) from marked where at > (select min(at) from marked)) \
            / extract(epoch from (select max(at) - min(at) from marked)))::float8",
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    service.stop().await?;
    world.discard(database).await?;
    let reading = Reading::of(rate).with_cost(from.until(&to, all)).with_statements(statements);
    Ok(reading.with("B stored", stored).with("MB highest", highest))
}

/// The rate at which both projectors, fed from PostgreSQL, apply events from nothing. A command that
/// rebuilds one projection online would be started here in place of the service.
pub async fn rebuild(world: &mut World) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Unprojected).await?;
    let mut connection = PgConnection::connect(&database.url).await?;
    let all = count(&mut connection, "select count(*) from events").await?;
    let from = world.begin(None).await?;
    let service = Service::start(world, &database, &[("KAFKA_ENABLED", "false")]).await?;
    let left = format!(
        "select /* bench */ {all} - least( \
            (select coalesce(sum(version), 0) from projected_versions \
             where projector = 'ledger-projector'), \
            (select coalesce(sum(version), 0) from projected_versions \
             where projector = 'read-model-projector'))::bigint"
    );
    let rate = empty(&mut connection, &left, all, world.scale.patience * 3).await?;
    let to = world.mark(Some(service.pid())).await?;
    let statements = world.breakdown(&database, from.until(&to, all), all).await?;
    connection.close().await?;
    service.stop().await?;
    world.discard(database).await?;
    Ok(Reading::of(rate).with_cost(from.until(&to, all)).with_statements(statements))
}

async fn count(connection: &mut PgConnection, question: &'static str) -> anyhow::Result<u64> {
    let count: i64 = sqlx::query_scalar(question).fetch_one(connection).await?;
    Ok(u64::try_from(count)?)
}

/// Waits until `question` answers zero: how many a second, from the first that was seen to be done.
/// Starting the service is no part of it.
async fn empty(
    connection: &mut PgConnection,
    question: &str,
    all: u64,
    patience: Duration,
) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let mut first = None;
    loop {
        let question = sqlx::AssertSqlSafe(question.to_owned());
        let left: i64 = sqlx::query_scalar(question).fetch_one(&mut *connection).await?;
        let left = u64::try_from(left)?;
        if left == 0 {
            // Too few to be seen on the way: all of them, from the start.
            let (at, from) = first.unwrap_or((begin, all));
            return Ok(from as f64 / seconds(at.elapsed()));
        }
        if left < all {
            first.get_or_insert((Instant::now(), left));
        }
        ensure!(begin.elapsed() < patience, "after {patience:?} {left} are left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
