//! Commands over HTTP: one each request, and in bulk.

use std::time::Duration;

use anyhow::ensure;
use sqlx::Connection;
use wallex::cli::loadtest::ask::Ask;

use crate::cost;
use crate::load::{self, Tally};
use crate::reading::Reading;
use crate::request::{Aim, Request, WALLET};
use crate::seed::Seed;
use crate::service::{Service, position};
use crate::wire::Wire;
use crate::world::{Database, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Credit,
    Debit,
    Transfer,
}

impl Command {
    pub const ALL: [Self; 3] = [Self::Credit, Self::Debit, Self::Transfer];

    pub fn name(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Debit => "debit",
            Self::Transfer => "transfer",
        }
    }

    fn weight(self) -> Weight {
        Weight { operations: 1, events: if self == Self::Transfer { 2 } else { 1 } }
    }

    pub fn request(self, aim: Aim) -> Request {
        let (wallet, amount) = (WALLET.to_owned(), 100);
        let ask = match self {
            Self::Credit => Ask::Credit { wallet, amount },
            Self::Debit => Ask::Debit { wallet, amount },
            Self::Transfer => Ask::Transfer { from: wallet.clone(), to: wallet, amount },
        };
        let (path, body) = ask.request(None);
        Request::post(&path, &body, aim)
    }
}

/// What one request stands for.
#[derive(Debug, Clone, Copy)]
struct Weight {
    operations: u64,
    events: u64,
}

/// Makes a new broker do for a while what it will be measured at.
pub async fn warm_up(world: &mut World) -> anyhow::Result<()> {
    let database = world.copy_of(Seed::Wallets).await?;
    let service = Service::start(world, &database, &[]).await?;
    let request = Command::Credit.request(Aim::Uniform);
    load::closed(service.port, 32, &request, world.scale.broker_warm_up).await?;
    service.drain(world.scale.patience).await?;
    service.stop().await?;
    world.discard(database).await
}

/// One kind of command on so many connections.
pub async fn measure(
    world: &mut World,
    command: Command,
    connections: usize,
    aim: Aim,
) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Wallets).await?;
    let (request, time) = (command.request(aim), world.scale.reading);
    let weight = command.weight();
    let reading = under_load(world, &database, &request, connections, weight, time).await?;
    world.discard(database).await?;
    Ok(reading)
}

/// `POST /bulk` with so many credits a request, on 8 connections.
pub async fn bulk(world: &mut World, size: usize) -> anyhow::Result<Reading> {
    let item = r#"{"op":"credit","walletId":"{wallet}","amount":"1.00","idempotencyKey":"{key}"}"#;
    let items = vec![item; size].join(",");
    let request = Request::post("/bulk", &format!("{{\"operations\":[{items}]}}"), Aim::Uniform);
    let weight = Weight { operations: size as u64, events: size as u64 };
    let database = world.copy_of(Seed::Wallets).await?;
    let service = Service::start(world, &database, &[]).await?;
    let mut wire = Wire::open(service.port).await?;
    let status = wire.call(request.clone().next()).await?;
    service.stop().await?;
    let reading = match status {
        404 => Reading::missing("no such route"),
        // Each of its operations counts, and each is one event.
        _ => under_load(world, &database, &request, 8, weight, world.scale.reading).await?,
    };
    world.discard(database).await?;
    Ok(reading)
}

/// Throughput with the tables as they are when a service has run for long, or (the line beside it)
/// nearly empty.
pub async fn growth(world: &mut World, grown: bool) -> anyhow::Result<Reading> {
    let request = Command::Credit.request(Aim::Uniform);
    let (weight, time) = (Command::Credit.weight(), world.scale.growth);
    if grown {
        let database = world.original(Seed::Grown).await?;
        return under_load(world, &database, &request, 128, weight, time).await;
    }
    let database = world.copy_of(Seed::Wallets).await?;
    let reading = under_load(world, &database, &request, 128, weight, time).await?;
    world.discard(database).await?;
    Ok(reading)
}

/// Resident memory: at rest, and at its highest under the load of 512 connections.
pub async fn memory(world: &mut World) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Wallets).await?;
    let service = Service::start(world, &database, &[]).await?;
    tokio::time::sleep(world.scale.warm_up * 3).await;
    let (rest, _) = cost::memory(service.pid())?;
    let request = Command::Credit.request(Aim::Uniform);
    let tally = load::closed(service.port, 512, &request, world.scale.reading).await?;
    let (now, highest) = cost::memory(service.pid())?;
    service.drain(world.scale.patience).await?;
    let (after, _) = cost::memory(service.pid())?;
    service.stop().await?;
    world.discard(database).await?;
    let reading = Reading { errors: tally.errors, ..Reading::of(tally.rate()) };
    let reading = reading.with_latency(&tally.latency).with("MB at rest", rest);
    Ok(reading.with("MB under load", now).with("MB highest", highest).with("MB after", after))
}

/// A reading with everything running: warm up, let the pipeline come into step, load, and see how
/// far the pipeline was left behind and how long it takes to catch up.
async fn under_load(
    world: &World,
    database: &Database,
    request: &Request,
    connections: usize,
    weight: Weight,
    time: Duration,
) -> anyhow::Result<Reading> {
    let service = Service::start(world, database, &[]).await?;
    let warm_up = world.scale.warm_up;
    load::closed(service.port, connections, request, warm_up).await?;
    service.drain(world.scale.patience).await?;
    let mut connection = service.connect().await?;
    let before = position(&mut connection).await?.written;
    let pid = Some(service.pid());
    let from = world.mark(pid).await?;
    let tally = load::closed(service.port, connections, request, time).await?;
    let to = world.mark(pid).await?;
    let (caught_up, behind) = service.drain(world.scale.patience).await?;
    let settled = world.mark(pid).await?;
    let written = position(&mut connection).await?.written - before;
    connection.close().await?;
    service.stop().await?;
    // An answer that did nothing would be a fast one.
    let promised = i64::try_from(tally.answered * weight.events)?;
    ensure!(
        tally.errors > 0 || written == promised,
        "{} answers promised {promised} events, {written} were written",
        tally.answered
    );
    let done = tally.answered * weight.operations;
    let reading = of(&tally, weight.operations).with_cost(from.until(&to, done));
    // What the pipeline still had to do belongs to these operations too.
    let whole = from.until(&settled, done);
    Ok(reading
        .with("events behind at the end", behind as f64)
        .with("s to catch up", seconds(caught_up))
        .with("service µs with the pipeline", whole.service_us)
        .with("Postgres µs with the pipeline", whole.postgres_us)
        .with("Kafka µs with the pipeline", whole.kafka_us))
}

fn of(tally: &Tally, operations: u64) -> Reading {
    let reading = Reading::of(tally.rate() * operations as f64).with_latency(&tally.latency);
    Reading { errors: tally.errors, ..reading }
}

pub fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
