//! What everything is measured in: a PostgreSQL and a Kafka of the run's own, on free ports of the
//! loopback, and databases that are copies of prepared ones, so that no reading grows on another's
//! leftovers.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use krafka::Kafka;
use krafka::admin::DeleteTopicsOptions;
use tempfile::TempDir;
use wallex::cli::dev::broker::{self, Broker};
use wallex::cli::dev::postgres::{self, Postgres};

use crate::cost::{Cost, Mark, Pids};
use crate::options::Scale;
use crate::seed::{self, Seed};
use crate::statements::{self, Breakdown};

/// Given on the server's command line, and printed with every run.
pub const SETTINGS: [(&str, &str); 6] = [
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("max_connections", "300"),
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
];
/// Partitions of the events topic, as the service creates it.
pub const PARTITIONS: i32 = 10;

pub struct World {
    pub postgres: Postgres,
    pub kafka: Broker,
    pub scale: Scale,
    /// The program that is measured.
    pub program: PathBuf,
    /// Settings that the run was asked to change.
    pub changed: Vec<(String, String)>,
    pub folder: TempDir,
    /// What PostgreSQL is given.
    settings: &'static [(&'static str, &'static str)],
    /// Whether PostgreSQL counts statements.
    counted: bool,
    prepared: HashSet<&'static str>,
    count: u32,
}

impl World {
    pub async fn start(
        scale: Scale,
        program: &Path,
        changed: Vec<(String, String)>,
        counted: bool,
        settings: &'static [(&'static str, &'static str)],
    ) -> anyhow::Result<Self> {
        let program = program.canonicalize().with_context(|| {
            format!("{} is not there: cargo build --release", program.display())
        })?;
        let folder = tempfile::Builder::new().prefix("wallex-bench-").tempdir()?;
        let mut postgres = start_postgres(&folder.path().join("pg"), settings)?;
        let counted = counted && count_statements(&mut postgres).await?;
        let kafka = start_kafka(&folder.path().join("kafka"))?;
        for (name, value) in settings {
            let shown = postgres.psql(&format!("show {name}"))?;
            ensure!(shown.trim() == *value, "PostgreSQL runs with {name} = {shown}, not {value}");
        }
        let prepared = HashSet::new();
        Ok(Self {
            postgres,
            kafka,
            scale,
            program,
            changed,
            folder,
            settings,
            counted,
            prepared,
            count: 0,
        })
    }

    /// A new copy of a prepared database, which is prepared first if it is not there yet.
    pub async fn copy_of(&mut self, seed: Seed) -> anyhow::Result<Database> {
        let template = self.prepare(seed).await?;
        self.count += 1;
        let name = format!("bench_{}", self.count);
        // Copied as files: that writes little WAL, and a checkpoint before the reading.
        let copy = format!("create database {name} template {template} strategy file_copy");
        self.postgres.psql(&copy)?;
        self.postgres.psql("checkpoint")?;
        Ok(Database { url: self.postgres.url_of(&name), topic: seed.topic(), name })
    }

    /// The prepared database itself: for reads, and where a copy would be too large.
    pub async fn original(&mut self, seed: Seed) -> anyhow::Result<Database> {
        let name = self.prepare(seed).await?.to_owned();
        self.postgres.psql("checkpoint")?;
        Ok(Database { url: self.postgres.url_of(&name), topic: seed.topic(), name })
    }

    /// A database of its own with so many events, without a copy.
    pub async fn filled(&mut self, seed: Seed, events: u64) -> anyhow::Result<Database> {
        let name = format!("{}_{events}", seed.database());
        eprintln!("  preparing {name}");
        self.postgres.ensure_database(&name)?;
        (self.scale.grown, self.scale.backlog) = (events, events);
        seed::fill(self, seed, &self.postgres.url_of(&name)).await?;
        self.postgres.psql("checkpoint")?;
        Ok(Database { url: self.postgres.url_of(&name), topic: seed.topic(), name })
    }

    /// Drops one that no service ran with Kafka on.
    pub fn remove(&self, database: &Database) -> anyhow::Result<()> {
        self.postgres.psql(&format!("drop database {} with (force)", database.name)).map(drop)
    }

    async fn prepare(&mut self, seed: Seed) -> anyhow::Result<&'static str> {
        let name = seed.database();
        if self.prepared.insert(name) {
            eprintln!("  preparing {name}");
            self.postgres.ensure_database(name)?;
            seed::fill(self, seed, &self.postgres.url_of(name)).await?;
        }
        Ok(name)
    }

    /// Drops a copy and its topic: thousands of idle partitions would slow the broker down.
    pub async fn discard(&self, database: Database) -> anyhow::Result<()> {
        self.postgres.psql(&format!("drop database {} with (force)", database.name))?;
        let kafka = Kafka::builder(self.kafka.bootstrap.clone()).connect().await?;
        let admin = kafka.admin();
        let gone = admin.delete_topics([database.topic], DeleteTopicsOptions::default());
        // A copy that no service ran on has no topic.
        gone.await.map(drop).context("topics could not be deleted")
    }

    pub fn pids(&self, service: Option<u32>) -> Pids {
        Pids { service, postgres: self.postgres.pid(), kafka: self.kafka.pid() }
    }

    pub async fn mark(&self, service: Option<u32>) -> anyhow::Result<Mark> {
        Mark::take(self.pids(service), &self.postgres.url).await
    }

    /// The mark that a reading begins at: from here on statements are counted.
    pub async fn begin(&self, service: Option<u32>) -> anyhow::Result<Mark> {
        if self.counted {
            statements::reset(&self.postgres.url).await?;
        }
        self.mark(service).await
    }

    /// What so many events cost in a database since the last [`World::begin`], statement by statement.
    pub async fn breakdown(
        &self,
        database: &Database,
        cost: Cost,
        events: u64,
    ) -> anyhow::Result<Option<Breakdown>> {
        if !self.counted {
            return Ok(None);
        }
        Breakdown::take(&self.postgres.url, &database.name, cost, events).await.map(Some)
    }

    /// What the run's conditions are: part of every report.
    pub fn conditions(&self) -> anyhow::Result<Vec<(String, String)>> {
        let cores = std::thread::available_parallelism()?.get();
        let mut lines = vec![
            ("scale".to_owned(), self.scale.name.to_owned()),
            ("readings".to_owned(), self.scale.readings()),
            (
                "cores".to_owned(),
                format!("{cores}, shared by generator, service, PostgreSQL and Kafka"),
            ),
            ("PostgreSQL".to_owned(), self.postgres.psql("show server_version")?.trim().to_owned()),
            ("Kafka".to_owned(), self.kafka_version()),
        ];
        let settings = self.settings.iter().map(|(name, value)| format!("{name}={value}"));
        let settings = settings.collect::<Vec<_>>().join(", ");
        lines.push(("PostgreSQL settings (checked)".to_owned(), settings));
        let counted = if self.counted { "by pg_stat_statements" } else { "not" };
        lines.push(("statements are counted".to_owned(), counted.to_owned()));
        let changed: Vec<String> =
            self.changed.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let changed = if changed.is_empty() { "defaults".to_owned() } else { changed.join(", ") };
        lines.push(("settings of the service".to_owned(), changed));
        Ok(lines)
    }

    fn kafka_version(&self) -> String {
        let line = self.kafka.tool_line("version");
        let jar = line.split("kafka_2.13-").nth(1).and_then(|rest| rest.split(".jar").next());
        let home = line.split("kafka-").nth(1).and_then(|rest| rest.split('/').next());
        jar.or(home).unwrap_or("unknown").to_owned()
    }
}

/// A database to measure in, and the topic of the service over it.
#[derive(Debug, Clone)]
pub struct Database {
    pub name: String,
    pub url: String,
    pub topic: &'static str,
}

fn start_postgres(folder: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Postgres> {
    std::fs::create_dir_all(folder)?;
    open_way(folder)?;
    let mut options = postgres::Options::new(0, &folder.join("data"), &folder.join("log"));
    options.bin = environment("WALLEX_POSTGRES_BIN");
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    options.settings = settings.iter().map(pair).collect();
    options.remove = Some(folder.to_owned());
    Postgres::start(options)
}

/// Has the server count statements, which wants a restart; false where it has no library for it.
async fn count_statements(postgres: &mut Postgres) -> anyhow::Result<bool> {
    let there = "select count(*) from pg_available_extensions where name = 'pg_stat_statements'";
    if postgres.psql(there)?.trim() != "1" {
        eprintln!(
            "  no pg_stat_statements (Debian: postgresql-contrib): statements are not counted"
        );
        return Ok(false);
    }
    postgres.psql("alter system set shared_preload_libraries = 'pg_stat_statements'")?;
    postgres.restart()?;
    statements::prepare(&postgres.url).await?;
    Ok(true)
}

fn start_kafka(folder: &Path) -> anyhow::Result<Broker> {
    std::fs::create_dir_all(folder)?;
    let home = environment("WALLEX_KAFKA_HOME").unwrap_or_default();
    let mut options = broker::Options::new(&home, 0, &folder.join("data"), &folder.join("log"));
    if let Some(java_home) = environment("JAVA_HOME") {
        options.java = java_home.join("bin/java");
    }
    options.remove = Some(folder.to_owned());
    Broker::start(options)
}

/// PostgreSQL runs as another user than root: it must be able to pass through.
fn open_way(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let parent = folder.parent().context("a folder without a parent")?;
    Ok(std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755))?)
}

fn environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}
