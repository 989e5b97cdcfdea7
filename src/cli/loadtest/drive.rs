//! Drives the load: opens the wallets, then runs phases of operations over many connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rust_decimal::Decimal;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ask::Ask;
use super::books::{self, Account, Books, OPENING_CENTS};
use super::client::{Answer, Client, Target};
use super::pace::{Limit, Source};
use super::plan::{Operation, Plan};
use super::settle::settle;
use super::tally::{Outcome, Tally};

/// What all connections share while they work.
pub struct Load {
    pub target: Target,
    pub patience: Duration,
    pub connections: usize,
    pub keys: bool,
    pub plan: Plan,
    pub books: Books,
    pub progress: Progress,
    pub stop: CancellationToken,
}

/// For the live line only.
#[derive(Debug, Default)]
pub struct Progress {
    pub operations: AtomicU64,
    pub declined: AtomicU64,
    pub failed: AtomicU64,
}

/// What one phase gave.
pub struct Ran {
    pub tally: Tally,
    pub elapsed: Duration,
    /// Operations that an open loop never began, as the service was too slow.
    pub unsent: u64,
}

/// Opens wallets `{run}-0` to `{run}-{count - 1}`; those that exist are taken as they are.
pub async fn open(
    target: &Target,
    patience: Duration,
    connections: usize,
    run: &str,
    count: u64,
) -> anyhow::Result<Vec<Account>> {
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let (mut client, next) = (Client::new(target.clone(), patience), Arc::clone(&next));
        let run = run.to_owned();
        workers.spawn(async move {
            let mut opened = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(opened);
                }
                opened.push((number, open_one(&mut client, &run, number).await?));
            }
        });
    }
    let mut accounts = Vec::new();
    while let Some(opened) = workers.join_next().await {
        let opened: anyhow::Result<Vec<(u64, Account)>> = opened?;
        accounts.extend(opened?);
    }
    accounts.sort_unstable_by_key(|(number, _)| *number);
    Ok(accounts.into_iter().map(|(_, account)| account).collect())
}

async fn open_one(client: &mut Client, run: &str, number: u64) -> anyhow::Result<Account> {
    let (id, key) = (format!("{run}-{number}"), fresh_key());
    let opened = Ask::Create { wallet: id.clone(), amount: OPENING_CENTS };
    let (path, body) = opened.request(Some(run));
    let answer = settle(client, &mut Tally::default(), &path, Some(&key), &body).await;
    let answer = answer.map_err(|cause| anyhow!("opening wallet {id}: {cause}"))?;
    match (answer.status, answer.code().as_str()) {
        (201, _) => Ok(Account::new(id, OPENING_CENTS, 1)),
        (409, "wallet_exists") => taken_over(client, id).await,
        (status, code) => bail!("opening wallet {id}: {status} {code}"),
    }
}

/// A wallet of an earlier run, as it stands now.
async fn taken_over(client: &mut Client, id: String) -> anyhow::Result<Account> {
    #[derive(Deserialize)]
    struct Shown {
        balance: Decimal,
        version: i64,
    }
    let read = client.get(&format!("/wallets/{id}")).await;
    let answer = read.map_err(|failure| anyhow!("reading wallet {id}: {failure}"))?;
    let shown: Shown = answer.json().map_err(|cause| anyhow!("reading wallet {id}: {cause}"))?;
    let cents = books::cents(shown.balance)
        .with_context(|| format!("wallet {id} is not one of this tool: {}", shown.balance))?;
    // Every event but the wallet's creation has an entry.
    Ok(Account::new(id, cents, shown.version - 1))
}

/// Runs one phase to its end.
pub async fn run(load: &Arc<Load>, first: u64, limit: Limit, rate: Option<u32>) -> Ran {
    let source = Source::new(first, limit, rate, load.stop.clone());
    let mut workers = JoinSet::new();
    for _ in 0..load.connections {
        workers.spawn(work(Arc::clone(load), Arc::clone(&source)));
    }
    let pacer = rate.map(|_| {
        let (source, connections) = (Arc::clone(&source), load.connections);
        tokio::task::spawn_blocking(move || source.pace(connections))
    });
    let mut tally = Tally::default();
    while let Some(worker) = workers.join_next().await {
        match worker {
            Ok(seen) => tally.add(&seen),
            Err(error) => *tally.failures.entry(error.to_string()).or_default() += 1,
        }
    }
    let elapsed = source.begun().elapsed();
    if let Some(pacer) = pacer {
        let _ = pacer.await;
    }
    let unsent = source.unsent(tally.total().operations());
    Ran { tally, elapsed, unsent }
}

async fn work(load: Arc<Load>, source: Arc<Source>) -> Tally {
    let mut client = Client::new(load.target.clone(), load.patience);
    let mut tally = Tally::default();
    while let Some((number, intended)) = source.take().await {
        let operation = load.plan.operation(number);
        let outcome = perform(&load, &mut client, &mut tally, &operation).await;
        tally.record(operation.kind, &outcome, intended.elapsed());
        load.progress.operations.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Outcome::Applied => load.books.apply(&operation),
            Outcome::Declined => {
                load.progress.declined.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Failed(_) => {
                load.progress.failed.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Unknown(_) => {
                load.books.doubt(&operation);
                load.progress.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    tally
}

async fn perform(
    load: &Load,
    client: &mut Client,
    tally: &mut Tally,
    operation: &Operation,
) -> Outcome {
    let id = |number| load.books.account(number).map_or_else(String::new, |a| a.id.clone());
    let (path, body) = operation.ask(id).request(None);
    let key = load.keys.then(fresh_key);
    match settle(client, tally, &path, key.as_deref(), &body).await {
        Ok(answer) => judge(&answer),
        Err(cause) => Outcome::Unknown(cause),
    }
}

/// Version 7: the service lays such keys by their time, which costs it a fraction of a random place.
fn fresh_key() -> String {
    Uuid::now_v7().to_string()
}

fn judge(answer: &Answer) -> Outcome {
    if answer.status == 201 {
        return Outcome::Applied;
    }
    match answer.code() {
        code if code == "insufficient_funds" => Outcome::Declined,
        code => Outcome::Failed(code),
    }
}
