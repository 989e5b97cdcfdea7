//! What a query costs as its tables grow: each at ten times the rows, and the exponent that follows. A page costs what
//! a page costs: an exponent near one is a query that reads all that is there.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use wallex::config::{DatabaseSettings, Secret};
use wallex::store::outbox::floors::Floor;
use wallex::store::{Pool, Pools, Way, lag, outbox};

use crate::request::{WALLETS, wallet_text};
use crate::seed::Seed;
use crate::service::Service;
use crate::wire::Wire;
use crate::world::{Database, PARTITIONS, World};

/// A measurement is the middle one of so many.
const TIMES: usize = 7;
/// Above that a query grows with its table.
pub const BOUND: f64 = 0.35;
/// Below, it is noise that grows.
const QUICK: Duration = Duration::from_millis(3);
/// Rows that wait, where what waits is asked for.
const WAITING: &str = "waiting";

/// What is asked, and why it may grow; none: it must not.
struct Query {
    name: &'static str,
    what: What,
    paged: Option<&'static str>,
}

enum What {
    Get(String),
    Claim,
    ReadBack,
    Backlog,
    Lag,
    Command(&'static [&'static str]),
}

/// A query, its times by size, and whether it is as it should be.
pub struct Grown {
    pub name: &'static str,
    pub times: Vec<(u64, Duration)>,
    pub paged: Option<&'static str>,
}

impl Grown {
    /// How its time grows with the rows: 0 not at all, 1 with them.
    pub fn exponent(&self) -> f64 {
        let ((first, short), (last, long)) = match (self.times.first(), self.times.last()) {
            (Some(first), Some(last)) => (*first, *last),
            _ => return 0.0,
        };
        let ratio = |long: f64, short: f64| (long / short.max(1e-9)).ln();
        ratio(long.as_secs_f64(), short.as_secs_f64()) / ratio(last as f64, first as f64).max(1e-9)
    }

    pub fn is_bounded(&self) -> bool {
        let longest = self.times.iter().map(|(_, time)| *time).max().unwrap_or_default();
        self.paged.is_some() || longest < QUICK || self.exponent() < BOUND
    }
}

fn queries() -> Vec<Query> {
    let wallet = wallet_text(7);
    let get = |name, path: String| Query { name, what: What::Get(path), paged: None };
    let asked = |name, what| Query { name, what, paged: None };
    let first = "startDate=2000-01-01&endDate=2000-12-31";
    vec![
        get("a wallet's summary", format!("/ledger/wallet/{wallet}/summary")),
        get("a wallet's entries, a page", format!("/ledger/wallet/{wallet}?limit=50")),
        get("a wallet's entries of a year without", format!("/ledger/wallet/{wallet}?{first}")),
        get(
            "a wallet's entries of a rare type",
            format!("/ledger/wallet/{wallet}?transactionType=TRANSFER_IN"),
        ),
        get("transactions, a page", "/ledger/transactions?limit=50".to_owned()),
        get(
            "transactions of a rare type",
            "/ledger/transactions?transactionType=TRANSFER_IN".to_owned(),
        ),
        get("entries by reference", "/ledger/reference/none".to_owned()),
        get("a wallet's events, a page", format!("/wallets/{wallet}/events?limit=50")),
        get("the health page", "/health/kafka".to_owned()),
        get("the health page in detail", "/health/kafka/stats".to_owned()),
        get("dead letters", "/admin/dead-letters?limit=50".to_owned()),
        get("projections' places", "/admin/projections".to_owned()),
        asked("projections' lag", What::Lag),
        asked("the outbox's backlog", What::Backlog),
        asked("the publisher's claim", What::Claim),
        asked("a read-back", What::ReadBack),
        Query {
            name: "wallex reconcile",
            what: What::Command(&["reconcile"]),
            paged: Some("500 wallets a snapshot"),
        },
    ]
}

/// Asks at each size, over a database that was filled for it.
pub async fn measure(world: &mut World, sizes: &[u64]) -> anyhow::Result<Vec<Grown>> {
    let queries = queries();
    let empty = |query: &Query| Grown { name: query.name, times: vec![], paged: query.paged };
    let mut all: Vec<Grown> = queries.iter().map(empty).collect();
    for size in sizes {
        let database = world.filled(Seed::Grown, *size).await?;
        let off = [("KAFKA_ENABLED", "false"), ("DATABASE_MAX_CONNECTIONS", "10")];
        let service = Service::start(world, &database, &off).await?;
        let waiting = world.filled(Seed::Backlog, *size).await?;
        for (query, grown) in queries.iter().zip(&mut all) {
            let of = if query.what.is_of_what_waits() { &waiting } else { &database };
            let asking = ask(world, &service, of, &query.what);
            let time = asking.await.with_context(|| format!("{} of {size}", query.name))?;
            eprintln!("  {size:9} rows  {}: {:.2} ms", query.name, time.as_secs_f64() * 1000.0);
            grown.times.push((*size, time));
        }
        service.stop().await?;
        world.remove(&database)?;
        world.remove(&waiting)?;
    }
    Ok(all)
}

impl What {
    fn is_of_what_waits(&self) -> bool {
        matches!(self, Self::Claim | Self::ReadBack | Self::Backlog)
    }
}

/// The middle of several times; once for a command, which takes long.
async fn ask(
    world: &World,
    service: &Service,
    database: &Database,
    what: &What,
) -> anyhow::Result<Duration> {
    let times = if matches!(what, What::Command(_)) { 1 } else { TIMES };
    // The service's own sessions: plans are those of its settings.
    let url = Secret::new(database.url.clone());
    let settings =
        DatabaseSettings { url: url.clone(), migration_url: url.clone(), max_connections: 10 };
    let pools = Pools::new(&Way::new(&url), &settings)?;
    let pool = pools.pipeline.clone();
    let mut found = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        once(world, service, database, &pool, what).await?;
        found.push(begun.elapsed());
    }
    pools.close().await;
    found.sort_unstable();
    Ok(found[found.len() / 2])
}

async fn once(
    world: &World,
    service: &Service,
    database: &Database,
    pool: &Pool,
    what: &What,
) -> anyhow::Result<()> {
    let second = Duration::from_secs(60);
    match what {
        What::Get(path) => {
            let mut wire = Wire::open(service.port).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
            let status = wire.call(request.as_bytes()).await?;
            ensure!(status == 200, "{path} answered {status}");
        }
        What::Claim => {
            let all: Vec<Floor> = (0..PARTITIONS).map(Floor::none).collect();
            let rows = outbox::claim(pool, database.topic, &all, 100).await?;
            ensure!(!rows.is_empty(), "nothing is {WAITING}");
        }
        What::ReadBack => {
            let found = first_events(pool).await?;
            let slots = outbox::waiting(pool, database.topic, 0, 0, &found).await?;
            ensure!(!slots.is_empty(), "nothing is {WAITING}");
        }
        What::Backlog => {
            let backlog = outbox::backlog(pool, second).await?;
            ensure!(backlog.events > 0, "nothing is {WAITING}");
        }
        What::Lag => {
            let names = ["ledger-projector", "read-model-projector"];
            lag::projection_lags(pool, &names, second).await?;
        }
        What::Command(arguments) => {
            let mut command = std::process::Command::new(&world.program);
            command.env_clear().env("DATABASE_URL", &database.url).env("KAFKA_ENABLED", "false");
            let output = command.current_dir(world.folder.path()).args(*arguments).output()?;
            ensure!(output.status.code().is_some(), "{arguments:?} was ended by a signal");
        }
    }
    Ok(())
}

/// As a topic that is read back names them: the first that wait in a partition.
async fn first_events(pool: &Pool) -> anyhow::Result<Vec<outbox::Found>> {
    let rows: Vec<(String, String, i64, uuid::Uuid)> = sqlx::query_as(
        "select e.tenant_id, e.wallet_id, e.version, e.event_id from ( \
             select b.tenant_id, u.wallet_id, u.version from outbox_batches b \
             cross join lateral unnest(b.wallets, b.versions) as u(wallet_id, version) \
             where b.partition = 0 and b.processed_at is null order by b.id limit 500) w \
         join events e on e.tenant_id = w.tenant_id and e.wallet_id = w.wallet_id \
             and e.version = w.version",
    )
    .fetch_all(pool)
    .await?;
    let found = |(tenant_id, wallet_id, version, event_id)| outbox::Found {
        tenant_id,
        wallet_id,
        version,
        event_id,
    };
    Ok(rows.into_iter().map(found).collect())
}

/// The table, as Markdown.
pub fn markdown(all: &[Grown]) -> String {
    let sizes: Vec<u64> =
        all.first().map(|g| g.times.iter().map(|(n, _)| *n).collect()).unwrap_or_default();
    let mut text = String::from("| query |");
    for size in &sizes {
        let _ = write!(text, " {size} rows, ms |");
    }
    text.push_str(" exponent | |\n|---|");
    text.push_str(&"--:|".repeat(sizes.len() + 1));
    text.push_str("---|\n");
    for grown in all {
        let _ = write!(text, "| {} |", grown.name);
        for (_, time) in &grown.times {
            let _ = write!(text, " {:.2} |", time.as_secs_f64() * 1000.0);
        }
        let verdict = match (grown.paged, grown.is_bounded()) {
            (Some(why), _) => format!("paged: {why}"),
            (None, true) => String::new(),
            (None, false) => "grows".to_owned(),
        };
        let _ = writeln!(text, " {:.2} | {verdict} |", grown.exponent());
    }
    let _ = writeln!(
        text,
        "\nOver {WALLETS} wallets: ten times the rows are ten times the events of each."
    );
    text
}
