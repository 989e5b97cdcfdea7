//! What a reading costs: CPU time of each process tree from /proc, bytes of WAL, memory.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use sqlx::{Connection, PgConnection};

/// Linux counts a process's CPU time in hundredths of a second, whatever the kernel's own tick.
const TICK_US: f64 = 10_000.0;

/// CPU time so far, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// This program, and pgbench.
    pub generator: f64,
    pub service: f64,
    pub postgres: f64,
    /// Of that: processes that serve no session, as far as they are still there.
    pub background: f64,
    pub kafka: f64,
}

/// Whose costs are counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pids {
    pub service: Option<u32>,
    pub postgres: Option<u32>,
    pub kafka: Option<u32>,
}

/// CPU and WAL at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    cpu: Cpu,
    wal: f64,
}

/// CPU and WAL of each operation.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Cost {
    pub generator_us: f64,
    pub service_us: f64,
    pub postgres_us: f64,
    pub background_us: f64,
    pub kafka_us: f64,
    pub wal_bytes: f64,
}

impl Mark {
    pub async fn take(pids: Pids, url: &str) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(url).await?;
        let wal: i64 =
            sqlx::query_scalar("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
                .fetch_one(&mut connection)
                .await?;
        connection.close().await?;
        Ok(Self { cpu: cpu(pids), wal: wal as f64 })
    }

    /// What `operations` cost since this mark.
    pub fn until(&self, end: &Mark, operations: u64) -> Cost {
        let each = |from: f64, to: f64| (to - from) / (operations.max(1) as f64);
        let (from, to) = (self.cpu, end.cpu);
        Cost {
            generator_us: each(from.generator, to.generator),
            service_us: each(from.service, to.service),
            postgres_us: each(from.postgres, to.postgres),
            background_us: each(from.background, to.background).max(0.0),
            kafka_us: each(from.kafka, to.kafka),
            wal_bytes: each(self.wal, end.wal),
        }
    }
}

impl std::ops::Add for Cost {
    type Output = Self;

    /// What was done in two parts.
    fn add(self, other: Self) -> Self {
        Self {
            generator_us: self.generator_us + other.generator_us,
            service_us: self.service_us + other.service_us,
            postgres_us: self.postgres_us + other.postgres_us,
            background_us: self.background_us + other.background_us,
            kafka_us: self.kafka_us + other.kafka_us,
            wal_bytes: self.wal_bytes + other.wal_bytes,
        }
    }
}

fn cpu(pids: Pids) -> Cpu {
    let processes = processes();
    let own = std::process::id();
    let of = |pid: Option<u32>| pid.and_then(|pid| processes.get(&pid));
    let alone = |pid| of(pid).map_or(0.0, |process| process.own);
    let reaped = |pid| of(pid).map_or(0.0, |process| process.reaped);
    // A backend that ends adds its time to what the postmaster has reaped: the sum never shrinks.
    let children = || processes.iter().filter(|(_, p)| Some(p.parent) == pids.postgres);
    let backends: f64 = children().map(|(_, p)| p.own).sum();
    let idle = children().filter(|(pid, _)| !serves_session(**pid));
    Cpu {
        generator: alone(Some(own)) + reaped(Some(own)),
        service: alone(pids.service),
        postgres: alone(pids.postgres) + reaped(pids.postgres) + backends,
        background: idle.map(|(_, p)| p.own).sum(),
        kafka: alone(pids.kafka),
    }
}

/// Whether a process of PostgreSQL has a client, whose address its title ends in.
fn serves_session(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|title| title.contains('('))
}

struct Process {
    parent: u32,
    own: f64,
    reaped: f64,
}

fn processes() -> HashMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let own = (number(11)? + number(12)?) * TICK_US;
    let reaped = (number(13)? + number(14)?) * TICK_US;
    Some(Process { parent: fields.get(1)?.parse().ok()?, own, reaped })
}

/// Bytes that a broker with its logs in `folder` keeps of a topic's records, without their indexes.
pub fn stored(folder: &Path, topic: &str) -> anyhow::Result<f64> {
    let mut bytes = 0;
    for partition in fs::read_dir(folder)? {
        let partition = partition?;
        let name = partition.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(topic)?.strip_prefix('-'));
        if number.is_none_or(|number| number.parse::<i32>().is_err()) {
            continue;
        }
        for file in fs::read_dir(partition.path())? {
            let file = file?;
            if file.path().extension().is_some_and(|end| end == "log") {
                bytes += file.metadata()?.len();
            }
        }
    }
    anyhow::ensure!(bytes > 0, "{} has nothing of {topic}", folder.display());
    Ok(bytes as f64)
}

/// Resident memory of a process in MB: now, and at its highest.
pub fn memory(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// The load averages of the last 1, 5 and 15 minutes.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
