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

/// What is sent again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    One { command: Command, aim: Aim },
    Bulk { size: usize },
}

/// What one request stands for.
#[derive(Debug, Clone, Copy)]
pub struct Weight {
    pub operations: u64,
    pub events: u64,
}

impl Work {
    pub const CREDIT: Self = Self::One { command: Command::Credit, aim: Aim::Uniform };

    pub fn name(self) -> String {
        match self {
            Self::One { command, aim } => {
                let aim = if aim == Aim::Hot { "hot wallet" } else { "1,000 wallets" };
                format!("{}, {aim}", command.name())
            }
            Self::Bulk { size } => format!("POST /bulk of {size}"),
        }
    }

    pub fn request(self) -> Request {
        const ITEM: &str =
            r#"{"op":"credit","walletId":"{wallet}","amount":"1.00","idempotencyKey":"{key}"}"#;
        match self {
            Self::One { command, aim } => command.request(aim),
            Self::Bulk { size } => {
                let body = format!("{{\"operations\":[{}]}}", vec![ITEM; size].join(","));
                Request::post("/bulk", &body, Aim::Uniform)
            }
        }
    }

    pub fn weight(self) -> Weight {
        match self {
            Self::One { command: Command::Transfer, .. } => Weight { operations: 1, events: 2 },
            Self::One { .. } => Weight { operations: 1, events: 1 },
            // Each of its operations counts, and each is one event.
            Self::Bulk { size } => Weight { operations: size as u64, events: size as u64 },
        }
    }

    /// Of an open loop: so many that no operation which is due waits for another's answer.
    pub fn connections(self) -> usize {
        match self {
            Self::One { .. } => 512,
            // More of them at once are refused: COMMAND_QUEUE_MAX.
            Self::Bulk { .. } => BULK_CONNECTIONS,
        }
    }
}

const BULK_CONNECTIONS: usize = 8;

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
    let (work, time) = (Work::One { command, aim }, world.scale.reading);
    let reading = under_load(world, &database, work, connections, time).await?;
    world.discard(database).await?;
    Ok(reading)
}

/// `POST /bulk` with so many credits a request, on 8 connections.
pub async fn bulk(world: &mut World, size: usize) -> anyhow::Result<Reading> {
    let work = Work::Bulk { size };
    let database = world.copy_of(Seed::Wallets).await?;
    let service = Service::start(world, &database, &[]).await?;
    let mut wire = Wire::open(service.port).await?;
    let status = wire.call(work.request().next()).await?;
    service.stop().await?;
    let reading = match status {
        404 => Reading::missing("no such route"),
        _ => under_load(world, &database, work, BULK_CONNECTIONS, world.scale.reading).await?,
    };
    world.discard(database).await?;
    Ok(reading)
}

/// Throughput with the tables as they are when a service has run for long, or (the line beside it)
/// nearly empty.
pub async fn growth(world: &mut World, grown: bool) -> anyhow::Result<Reading> {
    let time = world.scale.growth;
    if grown {
        let database = world.original(Seed::Grown).await?;
        return under_load(world, &database, Work::CREDIT, 128, time).await;
    }
    let database = world.copy_of(Seed::Wallets).await?;
    let reading = under_load(world, &database, Work::CREDIT, 128, time).await?;
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
    work: Work,
    connections: usize,
    time: Duration,
) -> anyhow::Result<Reading> {
    let (request, weight) = (work.request(), work.weight());
    let service = Service::start(world, database, &[]).await?;
    let warm_up = world.scale.warm_up;
    load::closed(service.port, connections, &request, warm_up).await?;
    service.drain(world.scale.patience).await?;
    let mut connection = service.connect().await?;
    let before = position(&mut connection).await?.written;
    let pid = Some(service.pid());
    let from = world.begin(pid).await?;
    let tally = load::closed(service.port, connections, &request, time).await?;
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
    let events = u64::try_from(written)?;
    let statements = world.breakdown(database, from.until(&settled, events), events).await?;
    let reading = of(&tally, weight.operations).with_cost(from.until(&to, done));
    let reading = reading.with_statements(statements);
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
