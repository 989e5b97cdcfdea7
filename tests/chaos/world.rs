//! What a run breaks: a PostgreSQL and a Kafka of its own, and instances of the service, each with
//! proxies of its own to both.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use wallex::cli::dev::broker::Broker;
use wallex::cli::dev::postgres::Postgres;

use crate::support::proxy::{Fate, Proxy};
use crate::support::{servers, within};

const FATES: [Fate; 4] =
    [Fate::Never, Fate::Answered, Fate::Never, Fate::Later(Duration::from_millis(300))];
const DATABASE: &str = "chaos";
pub const TOPIC: &str = "wallet-events";
const START: Duration = Duration::from_secs(60);

pub struct World {
    // In the order in which they are to end.
    pub instances: Vec<Instance>,
    pub pool: PgPool,
    pub postgres: Postgres,
    pub kafka: Broker,
    pub folder: PathBuf,
    _folder: tempfile::TempDir,
}

/// One process of the service.
pub struct Instance {
    pub base: String,
    pub postgres: Proxy,
    pub kafka: Proxy,
    variables: BTreeMap<String, String>,
    child: Option<Child>,
    log: PathBuf,
}

impl World {
    /// Servers, a migrated database, and `count` instances that are ready.
    pub async fn start(count: usize, settings: &[(String, String)]) -> Self {
        let held = tempfile::Builder::new().prefix("wallex-chaos-").tempdir().unwrap();
        let folder = held.path().to_owned();
        let postgres = servers::own_postgres();
        postgres.ensure_database(DATABASE).unwrap();
        // A broker names itself to its clients: each instance has a listener that names its proxy.
        let ports = free_ports(count + 2);
        let mut proxies = Vec::new();
        for port in &ports[2..] {
            proxies.push(Proxy::of_bytes(*port).await);
        }
        let kafka = servers::own_kafka_with(ports[0], listeners(&ports, &proxies));
        let url = postgres.url_of(DATABASE);
        let options = PgPoolOptions::new().max_connections(6).acquire_timeout(START);
        let pool = options.connect_lazy(&url).unwrap();
        let mut instances = Vec::new();
        for (number, proxy) in proxies.into_iter().enumerate() {
            let through = Proxy::with_fates(postgres.port, "wallex-lane", FATES.to_vec()).await;
            let log = folder.join(format!("instance-{number}.log"));
            instances.push(Instance::new(through, proxy, log, settings));
        }
        let migrated = instances[0].command().arg("migrate").output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        for instance in &mut instances {
            instance.spawn();
        }
        for instance in &instances {
            assert!(instance.ready().await.is_some(), "ready; {}", instance.log.display());
        }
        Self { instances, pool, postgres, kafka, folder, _folder: held }
    }

    /// What PostgreSQL wrote to its log.
    pub fn postgres_log(&self) -> String {
        let log = self.postgres.data.with_file_name("postgres.log");
        String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
    }

    /// The logs stay where they are, for whoever has to find out.
    pub fn keep(&mut self) {
        self._folder.disable_cleanup(true);
        let log = self.folder.join("postgres.log");
        let kept = std::fs::write(&log, self.postgres_log());
        println!("PostgreSQL's log: {} ({kept:?})", log.display());
    }
}

impl Instance {
    fn new(postgres: Proxy, kafka: Proxy, log: PathBuf, settings: &[(String, String)]) -> Self {
        let port = wallex::cli::dev::child::free_port().unwrap();
        let url = format!("postgres://postgres@127.0.0.1:{}/{DATABASE}", postgres.port);
        let mut variables = BTreeMap::from([
            ("HOST".to_owned(), "127.0.0.1".to_owned()),
            ("PORT".to_owned(), port.to_string()),
            ("DATABASE_URL".to_owned(), url),
            ("KAFKA_BROKERS".to_owned(), format!("127.0.0.1:{}", kafka.port)),
            ("KAFKA_EVENTS_TOPIC".to_owned(), TOPIC.to_owned()),
            ("LOG_LEVEL".to_owned(), "info,wallex=debug".to_owned()),
        ]);
        variables.extend(settings.iter().cloned());
        Self {
            base: format!("http://127.0.0.1:{port}"),
            postgres,
            kafka,
            variables,
            child: None,
            log,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wallex"));
        command.env_clear().envs(&self.variables).stdin(Stdio::null());
        command
    }

    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = self.command().arg("serve").stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    /// Waits until it serves.
    pub async fn ready(&self) -> Option<()> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        within(START, async || {
            let answer = client.get(format!("{}/readyz", self.base)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await
    }

    pub fn signal(&mut self, signal: Signal) {
        let Some(child) = &mut self.child else { return };
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        if matches!(signal, Signal::SIGKILL | Signal::SIGTERM) {
            child.wait().unwrap();
            self.child = None;
        }
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// The first is the harness's own way in, the second the controller's, then one an instance.
fn listeners(ports: &[u16], proxies: &[Proxy]) -> Vec<(String, String)> {
    let (own, controller) = (ports[0], ports[1]);
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{own},CONTROLLER://127.0.0.1:{controller}");
    let mut advertised = format!("PLAINTEXT://127.0.0.1:{own}");
    let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    for (number, (port, proxy)) in ports[2..].iter().zip(proxies).enumerate() {
        listeners.push_str(&format!(",I{number}://127.0.0.1:{port}"));
        advertised.push_str(&format!(",I{number}://127.0.0.1:{}", proxy.port));
        protocols.push_str(&format!(",I{number}:PLAINTEXT"));
    }
    vec![
        ("listeners".to_owned(), listeners),
        ("advertised.listeners".to_owned(), advertised),
        ("listener.security.protocol.map".to_owned(), protocols),
        ("controller.quorum.voters".to_owned(), format!("1@127.0.0.1:{controller}")),
    ]
}

/// Ports that nobody has; held together while they are drawn, so that they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
