//! Reads, with nothing else going on: 1,000 wallets with 100 ledger entries each.

use crate::load;
use crate::reading::Reading;
use crate::request::{Aim, Request};
use crate::seed::Seed;
use crate::service::Service;
use crate::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Wallet,
    LedgerPage,
    List,
}

impl Read {
    pub const ALL: [Self; 3] = [Self::Wallet, Self::LedgerPage, Self::List];

    pub fn name(self) -> &'static str {
        match self {
            Self::Wallet => "GET /wallets/{id}",
            Self::LedgerPage => "GET /ledger/wallet/{id}, 50 entries",
            Self::List => "GET /wallets, 50 wallets",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Wallet => "/wallets/{wallet}",
            Self::LedgerPage => "/ledger/wallet/{wallet}?limit=50",
            Self::List => "/wallets?limit=50",
        }
    }
}

pub async fn measure(world: &mut World, read: Read, connections: usize) -> anyhow::Result<Reading> {
    let database = world.original(Seed::Reads).await?;
    let service = Service::start(world, &database, &[("KAFKA_ENABLED", "false")]).await?;
    let request = Request::get(read.path(), Aim::Uniform);
    load::closed(service.port, connections, &request, world.scale.warm_up).await?;
    let pid = Some(service.pid());
    let from = world.begin(pid).await?;
    let tally = load::closed(service.port, connections, &request, world.scale.reading).await?;
    let to = world.mark(pid).await?;
    let cost = from.until(&to, tally.answered);
    let statements = world.breakdown(&database, cost, tally.answered).await?;
    service.stop().await?;
    let reading = Reading { errors: tally.errors, ..Reading::of(tally.rate()) };
    Ok(reading.with_latency(&tally.latency).with_cost(cost).with_statements(statements))
}
