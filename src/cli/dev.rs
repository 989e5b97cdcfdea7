//! `wallex dev`: a private PostgreSQL, a private Apache Kafka and the service, in one terminal.
//!
//! It starts the servers, hands their addresses to the service as settings, and stops all of it on
//! Ctrl-C or SIGTERM: the service first, so that it drains, then Kafka, then PostgreSQL. The
//! servers hang on leashes (see `child`), so that even a killed `dev` leaves nothing behind. Data
//! is kept and used again.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Notes, Overrides, Settings};
use crate::telemetry;

pub mod broker;
pub mod child;
pub mod postgres;

use broker::Broker;
use postgres::Postgres;

const LAST_SERVER_GRACE: Duration = Duration::from_secs(30);

/// Runs everything on this machine: a private PostgreSQL, a private Kafka and the service.
#[derive(Debug, Clone, clap::Args)]
pub struct DevArgs {
    /// Folder for data and logs; kept, and used again by the next start
    #[arg(long, value_name = "DIR", default_value = ".wallex")]
    pub data: PathBuf,
    /// Port of the HTTP service, in place of PORT
    #[arg(long)]
    pub port: Option<u16>,
    /// Port of the private PostgreSQL, in place of DATABASE_PORT
    #[arg(long)]
    pub postgres_port: Option<u16>,
    /// Port of the private Kafka
    #[arg(long, default_value_t = 29092)]
    pub kafka_port: u16,
    /// Go without Kafka: the projections are fed straight from PostgreSQL
    #[arg(long)]
    pub no_kafka: bool,
    /// Folder with Kafka's libs/*.jar
    #[arg(long, value_name = "DIR", env = "WALLEX_KAFKA_HOME")]
    pub kafka_home: Option<PathBuf>,
    /// Folder of the Java to run Kafka with
    #[arg(long, value_name = "DIR", env = "JAVA_HOME")]
    pub java_home: Option<PathBuf>,
    /// Folder with initdb, postgres and psql
    #[arg(long, value_name = "DIR", env = "WALLEX_POSTGRES_BIN")]
    pub postgres_bin: Option<PathBuf>,
}

/// Starts the servers, runs the service until it is told to stop, stops the servers.
pub async fn run(args: DevArgs) -> anyhow::Result<()> {
    let (mut settings, notes) = crate::config::load(&overrides(&args))?;
    notes.warnings.iter().for_each(|warning| say(warning));
    let (database_port, database) = place(&settings)?;
    let (http_port, kafka) = (settings.http.port, settings.kafka.enabled && !args.no_kafka);
    let start = move || {
        let servers = Servers::start(&args, http_port, database_port, kafka)?;
        servers.postgres.ensure_database(&database)?;
        anyhow::Ok((servers, database))
    };
    let (mut servers, database) = tokio::task::spawn_blocking(start).await??;
    settings.kafka.enabled = servers.kafka.is_some();
    if let Some(kafka) = &servers.kafka {
        settings.kafka.brokers = vec![kafka.bootstrap.clone()];
    }
    servers.introduce(http_port, &database);

    let result = serve_until_told(settings, &notes, &mut servers).await;
    let stopping = tokio::task::spawn_blocking(move || servers.stop());
    tokio::select! {
        stopped = stopping => stopped?,
        // The leashes still stop the servers, behind our back.
        _ = stop_signal() => std::process::exit(130),
    }
    result
}

/// The private server is the only one `dev` talks to, whatever URL or password the environment has.
fn overrides(args: &DevArgs) -> Overrides {
    let mut overrides = Overrides::from([
        ("DATABASE_URL", String::new()),
        ("DATABASE_MIGRATION_URL", String::new()),
        ("DATABASE_PASSWORD", String::new()),
        ("DATABASE_HOST", "127.0.0.1".to_owned()),
        ("DATABASE_USER", "postgres".to_owned()),
    ]);
    overrides.extend(args.port.map(|port| ("PORT", port.to_string())));
    overrides.extend(args.postgres_port.map(|port| ("DATABASE_PORT", port.to_string())));
    overrides
}

/// Port and name of the database in the settings' URL, of which `overrides` fixed the rest.
fn place(settings: &Settings) -> anyhow::Result<(u16, String)> {
    let url = settings.database.url.expose();
    let rest = url.rsplit_once("127.0.0.1:").and_then(|(_, rest)| rest.split_once('/'));
    let (port, name) = rest.context("no database port and name in the settings")?;
    let name = name.split('?').next().unwrap_or(name);
    if name.contains('%') {
        bail!("DATABASE_NAME: `dev` takes names of letters, digits, - and _ only");
    }
    Ok((port.parse()?, name.to_owned()))
}

/// The wiring to the rest of the program: tables first, then the service until `shutdown`.
async fn serve(
    settings: Settings,
    notes: &Notes,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    telemetry::init_logs(&settings.log)?;
    notes.log();
    let metrics = telemetry::init_metrics()?;
    crate::store::migrate(&settings.database, |text| tracing::warn!("{text}")).await?;
    crate::app::run(settings, metrics, shutdown).await
}

async fn serve_until_told(
    settings: Settings,
    notes: &Notes,
    servers: &mut Servers,
) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let mut service = pin!(Box::pin(serve(settings, notes, shutdown.clone())));
    tokio::select! {
        ended = &mut service => return ended,
        name = stop_signal() => {
            say(&format!("{}: stopping the service, then Kafka, then PostgreSQL", name?));
        }
        never = servers.watch() => match never {},
    }
    shutdown.cancel();
    tokio::select! {
        ended = service => ended,
        name = stop_signal() => bail!("{} again: the service was not waited for", name?),
    }
}

/// Waits for Ctrl-C or SIGTERM; its name.
async fn stop_signal() -> anyhow::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}

/// What runs beside the service. Fields in the order in which they are dropped.
struct Servers {
    kafka: Option<Broker>,
    postgres: Postgres,
    /// Data and logs, by its full path.
    folder: PathBuf,
    /// Held as long as this `dev` lives: two of them over one folder would fight for its data.
    _lock: File,
}

impl Servers {
    fn start(
        args: &DevArgs,
        http_port: u16,
        database_port: u16,
        kafka: bool,
    ) -> anyhow::Result<Servers> {
        let logs = args.data.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let folder = args.data.canonicalize()?;
        let logs = folder.join("logs");
        let lock = lock(&folder)?;
        check_port(http_port, "HTTP service", "--port or PORT")?;
        let mut database =
            postgres::Options::new(database_port, &folder.join("pg"), &logs.join("postgres.log"));
        database.bin = args.postgres_bin.clone();
        database.settings = vec![("max_connections".to_owned(), "200".to_owned())];
        let broker = kafka.then(|| broker_options(args, &folder)).flatten();
        // Servers of a `dev` that was killed may still be stopping, and hold their ports.
        child::wait_gone(postgres::last_pid(&database.data), &database.data, LAST_SERVER_GRACE);
        check_port(database_port, "private PostgreSQL", "--postgres-port or DATABASE_PORT")?;
        if let Some(options) = &broker {
            child::wait_gone(broker::last_pid(&options.data), &options.data, LAST_SERVER_GRACE);
            check_port(options.port, "private Kafka", "--kafka-port")?;
        }

        say(if broker.is_some() { "starting PostgreSQL and Kafka" } else { "starting PostgreSQL" });
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| broker.map(Broker::start).transpose());
            let postgres = Postgres::start(database)?;
            let kafka =
                starting.join().map_err(|_| anyhow::anyhow!("Kafka's start panicked"))??;
            Ok(Servers { kafka, postgres, folder, _lock: lock })
        })
    }

    fn introduce(&self, http_port: u16, database: &str) {
        let (psql, port) = (self.postgres.bin.join("psql"), self.postgres.port);
        if http_port != 0 {
            say(&format!("HTTP        http://127.0.0.1:{http_port}/api/health"));
        }
        let psql = psql.display();
        say(&format!("PostgreSQL  {psql} -h 127.0.0.1 -p {port} -U postgres {database}"));
        if let Some(kafka) = &self.kafka {
            let bootstrap = &kafka.bootstrap;
            let line = kafka.tool_line("org.apache.kafka.tools.TopicCommand");
            say(&format!("Kafka       {bootstrap}; its tools, here kafka-topics:"));
            say(&format!("            {line} --bootstrap-server {bootstrap} --list"));
        } else {
            say("Kafka       off");
        }
        // The commands that are run beside it know the default ports alone.
        let kafka = self.kafka.as_ref().map(|kafka| format!(" KAFKA_BROKERS={}", kafka.bootstrap));
        let kafka = kafka.unwrap_or_default();
        say(&format!("commands    DATABASE_PORT={port}{kafka} wallex projections status"));
        let logs = self.folder.join("logs");
        say(&format!("data        {}, logs in {}", self.folder.display(), logs.display()));
        if self.folder.join("pg").is_symlink() {
            let real = self.postgres.data.display();
            say("            PostgreSQL's data is outside, as its user may not enter this folder:");
            say(&format!("            {real}"));
        }
        say("Ctrl-C stops all of it.");
    }

    /// Reports a server that ends by itself. The service goes on: it is made for that.
    async fn watch(&mut self) -> std::convert::Infallible {
        let gone = |name: &str| {
            format!("{name} ended by itself: see its log. Ctrl-C and a new start bring it back.")
        };
        let (mut kafka, mut postgres) = (self.kafka.is_some(), true);
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if postgres && !self.postgres.is_running() {
                postgres = false;
                say(&gone("PostgreSQL"));
            }
            if kafka && !self.kafka.as_mut().is_some_and(Broker::is_running) {
                kafka = false;
                say(&gone("Kafka"));
            }
        }
    }

    fn stop(mut self) {
        if let Some(kafka) = &mut self.kafka {
            kafka.stop();
        }
        self.postgres.stop();
        say("stopped");
    }
}

/// What to start as Kafka; none, and said why, when this machine cannot.
fn broker_options(args: &DevArgs, folder: &Path) -> Option<broker::Options> {
    let home = args.kafka_home.clone().unwrap_or_default();
    let log = folder.join("logs/kafka.log");
    let mut options = broker::Options::new(&home, args.kafka_port, &folder.join("kafka"), &log);
    if let Some(java_home) = &args.java_home {
        options.java = java_home.join("bin/java");
    }
    match options.missing() {
        None => Some(options),
        Some(reason) => {
            say(&format!("going on without Kafka: {reason}"));
            None
        }
    }
}

fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("dev.pid");
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(error.into()),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            let (folder, pid) = (folder.display(), pid.trim());
            bail!(
                "`wallex dev` already runs over {folder} (pid {pid}). Stop that one first, or use \
                 another --data and other ports"
            );
        }
    }
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

fn check_port(port: u16, server: &str, setting: &str) -> anyhow::Result<()> {
    if port == 0 || child::is_free(port) {
        return Ok(());
    }
    bail!(
        "port {port}, meant for the {server}, is in use. Stop what listens there (`ss -ltnp` shows \
         it; it may be `wallex dev` of another folder), or choose another port with {setting}"
    )
}

fn say(line: &str) {
    // A closed terminal is no reason to fail.
    let _ = writeln!(std::io::stdout(), "dev  {line}");
}
