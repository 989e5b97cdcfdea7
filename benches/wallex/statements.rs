//! What an event costs in PostgreSQL, statement by statement, as `pg_stat_statements` counted it during one
//! reading.
//!
//! The time of a statement is elapsed time, not CPU: it holds waits for locks, for the disk and, on full
//! cores, for a core. What the whole server used is CPU. So the rest, which is their difference, is the
//! cost of BEGIN, COMMIT, parsing and binding less all those waits, and may come out below zero.

pub mod names;

use std::collections::BTreeMap;
use std::ops::{AddAssign, Mul};

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use crate::cost::Cost;
use crate::table::short;
use names::Side;

/// Names that every run with commands and their pipeline must find: otherwise statements have changed,
/// and `names` was left behind.
const EXPECTED: [&str; 5] = ["write", "claim+lock", "outbox claim", "outbox mark", "ledger insert"];
/// What takes less than this share of time and of WAL is listed as one.
const LEAST: f64 = 0.01;
const HEAD: &str = "| for | statement | calls | µs a call | µs | rows | WAL B | whole pages |\n\
    |---|---|--:|--:|--:|--:|--:|--:|\n";

/// What an event has of a statement.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Share {
    pub calls: f64,
    /// Elapsed, in execution.
    pub us: f64,
    pub rows: f64,
    pub wal_bytes: f64,
    /// Pages that went into the WAL whole, being touched first after a checkpoint.
    pub wal_pages: f64,
}

/// All statements of the same name.
#[derive(Debug, Clone, Serialize)]
pub struct Statement {
    #[serde(rename = "for")]
    pub side: &'static str,
    pub name: String,
    #[serde(flatten)]
    pub share: Share,
}

/// The figures of one reading; all but `events` are of an event.
#[derive(Debug, Clone, Serialize)]
pub struct Breakdown {
    pub events: f64,
    pub statements: Vec<Statement>,
    /// CPU of the server's whole process tree.
    pub cpu_us: f64,
    /// CPU of the writers, the checkpointer and the vacuum that were there at the end.
    pub background_us: f64,
    /// All that was written, with what no statement writes: commits, vacuum, checkpoints.
    pub wal_bytes: f64,
}

/// Loads the counting into the server's database `postgres`, which must have the library preloaded.
pub async fn prepare(url: &str) -> anyhow::Result<()> {
    run(url, "create extension if not exists pg_stat_statements").await
}

/// Begins to count from nothing.
pub async fn reset(url: &str) -> anyhow::Result<()> {
    run(url, "select /* bench */ pg_stat_statements_reset()").await
}

async fn run(url: &str, statement: &'static str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(statement).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

#[derive(sqlx::FromRow)]
struct Counted {
    query: String,
    calls: f64,
    us: f64,
    rows: f64,
    wal_bytes: f64,
    wal_pages: f64,
}

impl Breakdown {
    /// What was counted in a database since the last reset, for so many events, beside what an event
    /// `cost` the whole server.
    pub async fn take(url: &str, database: &str, cost: Cost, events: u64) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(url).await?;
        let rows: Vec<Counted> = sqlx::query_as(
            "select /* bench */ s.query, s.calls::float8 as calls, \
                s.total_exec_time * 1000 as us, s.rows::float8 as rows, \
                s.wal_bytes::float8 as wal_bytes, s.wal_fpi::float8 as wal_pages \
             from pg_stat_statements s join pg_database d on d.oid = s.dbid \
             where d.datname = $1",
        )
        .bind(database)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        let each = 1.0 / (events.max(1) as f64);
        let mut shares: BTreeMap<(Side, String), Share> = BTreeMap::new();
        for row in rows {
            let (name, side) = names::named(&row.query);
            *shares.entry((side, name)).or_default() += row.share() * each;
        }
        Ok(Self {
            events: events as f64,
            statements: statements(shares),
            cpu_us: cost.postgres_us,
            background_us: cost.background_us,
            wal_bytes: cost.wal_bytes,
        })
    }

    /// Several readings as one: each counts with its events.
    pub fn of_all<'a>(all: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let all: Vec<&Self> = all.collect();
        let events: f64 = all.iter().map(|one| one.events).sum();
        let weight = |one: &Self| one.events / events.max(1.0);
        let mean = |of: fn(&Self) -> f64| all.iter().map(|one| of(one) * weight(one)).sum::<f64>();
        let mut shares: BTreeMap<(Side, String), Share> = BTreeMap::new();
        for one in &all {
            for statement in &one.statements {
                let side = Side::ALL.into_iter().find(|side| side.name() == statement.side)?;
                *shares.entry((side, statement.name.clone())).or_default() +=
                    statement.share * weight(one);
            }
        }
        (!all.is_empty()).then(|| Self {
            events,
            statements: statements(shares),
            cpu_us: mean(|one| one.cpu_us),
            background_us: mean(|one| one.background_us),
            wal_bytes: mean(|one| one.wal_bytes),
        })
    }

    fn sum(&self, side: Option<Side>) -> Share {
        let mut sum = Share::default();
        let wanted = |s: &&Statement| side.is_none_or(|side| side.name() == s.side);
        self.statements.iter().filter(wanted).for_each(|statement| sum += statement.share);
        sum
    }

    /// The table, with all that no statement has.
    pub fn markdown(&self) -> String {
        let mut text = HEAD.to_owned();
        let all = self.sum(None);
        for side in Side::ALL {
            let of_side = |s: &&Statement| s.side == side.name();
            let (large, small): (Vec<&Statement>, Vec<&Statement>) =
                self.statements.iter().filter(of_side).partition(|s| {
                    s.share.us > LEAST * all.us || s.share.wal_bytes > LEAST * all.wal_bytes
                });
            large.iter().for_each(|s| text.push_str(&row(side.name(), &s.name, s.share)));
            let mut others = Share::default();
            small.iter().for_each(|s| others += s.share);
            if !small.is_empty() {
                let name = format!("{} others", small.len());
                text.push_str(&row(side.name(), &name, others));
            }
            if large.len() + usize::from(!small.is_empty()) > 1 {
                text.push_str(&row(side.name(), "all of them", self.sum(Some(side))));
            }
        }
        text.push_str(&row("", "all statements", all));
        let whole = |name: &str, us: f64, wal: Option<f64>| {
            let wal = wal.map(short).unwrap_or_default();
            format!("| | {name} | | | {} | | {wal} | |\n", short(us))
        };
        text.push_str(&whole("background processes, CPU", self.background_us, None));
        let rest = self.cpu_us - self.background_us - all.us;
        let name = "the rest: BEGIN, COMMIT, parse, bind, less waits";
        text.push_str(&whole(name, rest, Some(self.wal_bytes - all.wal_bytes)));
        text + &whole("all of PostgreSQL, CPU", self.cpu_us, Some(self.wal_bytes))
    }
}

/// Says which statements of the hot path went by without a name.
pub fn unnamed<'a>(all: impl Iterator<Item = &'a Breakdown>) -> Vec<&'static str> {
    let seen: Vec<&str> =
        all.flat_map(|one| one.statements.iter().map(|s| s.name.as_str())).collect();
    EXPECTED.into_iter().filter(|name| !seen.contains(name)).collect()
}

/// Dearest first, by side.
fn statements(shares: BTreeMap<(Side, String), Share>) -> Vec<Statement> {
    let mut all: Vec<((Side, String), Share)> = shares.into_iter().collect();
    all.sort_by(|((a, _), x), ((b, _), y)| a.cmp(b).then(y.us.total_cmp(&x.us)));
    let of = |((side, name), share): ((Side, String), Share)| Statement {
        side: side.name(),
        name,
        share,
    };
    all.into_iter().map(of).collect()
}

fn row(side: &str, name: &str, share: Share) -> String {
    let call = if share.calls > 0.0 { short(share.us / share.calls) } else { String::new() };
    let calls = fine(share.calls);
    let [us, rows, wal] = [share.us, share.rows, share.wal_bytes].map(short);
    format!(
        "| {side} | {name} | {calls} | {call} | {us} | {rows} | {wal} | {} |\n",
        fine(share.wal_pages)
    )
}

/// Small shares of one: with more digits than other figures.
fn fine(value: f64) -> String {
    if value < 0.1 { format!("{value:.4}") } else { short(value) }
}

impl Counted {
    fn share(&self) -> Share {
        let Self { calls, us, rows, wal_bytes, wal_pages, .. } = *self;
        Share { calls, us, rows, wal_bytes, wal_pages }
    }
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.us += other.us;
        self.rows += other.rows;
        self.wal_bytes += other.wal_bytes;
        self.wal_pages += other.wal_pages;
    }
}

impl Mul<f64> for Share {
    type Output = Self;

    fn mul(self, by: f64) -> Self {
        Self {
            calls: self.calls * by,
            us: self.us * by,
            rows: self.rows * by,
            wal_bytes: self.wal_bytes * by,
            wal_pages: self.wal_pages * by,
        }
    }
}
