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
use crate::service::{Course, Service, position};
use crate::wire::Wire;
use crate::world::World;

/// In step: no event is applied later than this.
const IN_STEP: Duration = Duration::from_secs(1);
const TRIALS: u32 = 6;
const CONNECTIONS: usize = 128;
/// Readers of `readable`: enough for a distribution, too few to be a load of their own.
const PROBES: u64 = 2;

/// The highest rate of credits at which both projections stay within a second of the answers.
/// Halves the interval between nothing and what closed connections reach.
pub async fn in_step(world: &mut World) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Wallets).await?;
    let service = Service::start(world, &database, &[]).await?;
    let request = Command::Credit.request(Aim::Uniform);
    let time = world.scale.reading;
    let tally = load::closed(service.port, CONNECTIONS, &request, time).await?;
    service.drain(world.scale.patience).await?;
    let (mut low, mut high) = (0.0, tally.rate());
    let mut best = Reading::of(0.0).with("s behind, longest", f64::NAN);
    for _ in 0..TRIALS {
        let rate = (low + high) / 2.0;
        let (reached, longest, reading) = trial(world, &service, &request, rate).await?;
        service.drain(world.scale.patience).await?;
        // A generator or a service that cannot keep the rate has not shown that the pipeline can.
        if longest <= IN_STEP && reached > 0.95 * rate {
            (low, best) = (rate, reading.with("s behind, longest", seconds(longest)));
        } else {
            high = rate;
        }
    }
    service.stop().await?;
    world.discard(database).await?;
    Ok(best)
}

/// The rate that was reached, and the longest time that a projection was behind once the load had
/// settled.
async fn trial(
    world: &World,
    service: &Service,
    request: &Request,
    rate: f64,
) -> anyhow::Result<(f64, Duration, Reading)> {
    let time = world.scale.reading * 2;
    let settled = Instant::now() + time / 4;
    let mut connection = service.connect().await?;
    let watch = async {
        let (mut course, mut longest) = (Course::default(), Duration::ZERO);
        let begin = Instant::now();
        while begin.elapsed() < time {
            let lag = course.note(Instant::now(), position(&mut connection).await?);
            if Instant::now() > settled {
                longest = longest.max(lag);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(longest)
    };
    let pid = Some(service.pid());
    let from = world.mark(pid).await?;
    let load = load::open(service.port, CONNECTIONS, request, time, rate);
    let (longest, tally) = tokio::try_join!(watch, load)?;
    let to = world.mark(pid).await?;
    connection.close().await?;
    let reading = Reading { errors: tally.errors, ..Reading::of(tally.rate()) };
    let reading = reading.with_latency(&tally.latency).with_cost(from.until(&to, tally.answered));
    Ok((tally.rate(), longest, reading))
}

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
    let from = world.mark(pid).await?;
    let tally = load::open(service.port, 32, &request, time, rate).await?;
    let cost = from.until(&world.mark(pid).await?, tally.answered);
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    while let Some(ended) = probes.join_next().await {
        latency.add(ended??)?;
    }
    service.drain(world.scale.patience).await?;
    service.stop().await?;
    world.discard(database).await?;
    let reading = Reading { errors: tally.errors, ..Reading::of(tally.rate()) };
    let reading = reading.with_latency(&latency).with_cost(cost);
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

/// The rate at which the publisher empties a full outbox into an empty topic.
pub async fn publisher_drain(world: &mut World, codec: &str) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Backlog).await?;
    let url = database.url.clone();
    let waiting = "select count(*) from outbox where processed_at is null";
    let all = count(&url, waiting).await?;
    let from = world.mark(None).await?;
    let service = Service::start(world, &database, &[("PRODUCER_COMPRESSION", codec)]).await?;
    let rate = empty(&url, waiting, all, world.scale.patience * 3).await?;
    let to = world.mark(Some(service.pid())).await?;
    let highest = crate::cost::memory(service.pid())?.1;
    let stored = crate::cost::stored(&world.kafka.data.join("log"), database.topic)? / all as f64;
    service.drain(world.scale.patience).await?;
    service.stop().await?;
    world.discard(database).await?;
    let reading = Reading::of(rate).with_cost(from.until(&to, all));
    Ok(reading.with("B stored", stored).with("MB highest", highest))
}

/// The rate at which both projectors, fed from PostgreSQL, apply events from nothing. A command that
/// rebuilds one projection online would be started here in place of the service.
pub async fn rebuild(world: &mut World) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Unprojected).await?;
    let url = database.url.clone();
    let all = count(&url, "select count(*) from events").await?;
    let from = world.mark(None).await?;
    let service = Service::start(world, &database, &[("KAFKA_ENABLED", "false")]).await?;
    let left = format!(
        "select {all} - least( \
            (select coalesce(sum(version), 0) from projected_versions \
             where projector = 'ledger-projector'), \
            (select coalesce(sum(version), 0) from projected_versions \
             where projector = 'read-model-projector'))::bigint"
    );
    let rate = empty(&url, &left, all, world.scale.patience * 3).await?;
    let to = world.mark(Some(service.pid())).await?;
    service.stop().await?;
    world.discard(database).await?;
    Ok(Reading::of(rate).with_cost(from.until(&to, all)))
}

async fn count(url: &str, question: &str) -> anyhow::Result<u64> {
    let mut connection = PgConnection::connect(url).await?;
    let question = sqlx::AssertSqlSafe(question.to_owned());
    let count: i64 = sqlx::query_scalar(question).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(u64::try_from(count)?)
}

/// Waits until `question` answers zero: how many a second, from the first that was seen to be done.
/// Starting the service is no part of it. Asks a few times a second: counting is not free.
async fn empty(url: &str, question: &str, all: u64, patience: Duration) -> anyhow::Result<f64> {
    let mut connection = PgConnection::connect(url).await?;
    let begin = Instant::now();
    let mut first = None;
    loop {
        let question = sqlx::AssertSqlSafe(question.to_owned());
        let left: i64 = sqlx::query_scalar(question).fetch_one(&mut connection).await?;
        let left = u64::try_from(left)?;
        if left == 0 {
            connection.close().await?;
            // Too few to be seen on the way: all of them, from the start.
            let (at, from) = first.unwrap_or((begin, all));
            return Ok(from as f64 / seconds(at.elapsed()));
        }
        if left < all {
            first.get_or_insert((Instant::now(), left));
        }
        ensure!(begin.elapsed() < patience, "after {patience:?} {left} are left");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
