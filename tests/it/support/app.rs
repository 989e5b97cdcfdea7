//! The service as its users run it: the built binary as a process, over a database and topics of
//! its own. Dropping it ends the process.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use sqlx::PgPool;
use wallex::cli::dev::broker::Broker;
use wallex::cli::dev::child::free_port;
use wallex::cli::dev::postgres::Postgres;
use wallex::projector::Projection;

use super::{eventually, servers};

const PATIENCE: Duration = Duration::from_secs(60);

/// How a service is to be started.
pub struct Setup {
    variables: BTreeMap<String, String>,
    postgres_url: String,
    database: String,
    limits: Option<String>,
}

/// One database with its topics, and one instance of the service over them.
pub struct App {
    pub base: String,
    pub database_url: String,
    pub topic: String,
    pub client: reqwest::Client,
    pub pool: PgPool,
    variables: BTreeMap<String, String>,
    limits: Option<String>,
    child: Option<Child>,
    log: PathBuf,
}

impl Setup {
    /// Over the shared servers, with Kafka.
    pub fn shared() -> Self {
        Self::on(servers::postgres(), Some(servers::kafka()))
    }

    /// Over the shared PostgreSQL, with `KAFKA_ENABLED=false`.
    pub fn without_kafka() -> Self {
        Self::on(servers::postgres(), None)
    }

    /// Over given servers: a new database and new topics on them.
    pub fn on(postgres: &Postgres, kafka: Option<&Broker>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("it_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        postgres.ensure_database(&name).unwrap();
        let port = free_port().unwrap();
        let mut variables = BTreeMap::from([
            ("HOST".to_owned(), "127.0.0.1".to_owned()),
            ("PORT".to_owned(), port.to_string()),
            ("DATABASE_URL".to_owned(), postgres.url_of(&name)),
            ("KAFKA_ENABLED".to_owned(), kafka.is_some().to_string()),
            ("KAFKA_EVENTS_TOPIC".to_owned(), format!("events-{name}")),
            ("KAFKA_DLQ_TOPIC".to_owned(), format!("events-{name}-dlq")),
            ("KAFKA_COMMANDS_TOPIC".to_owned(), format!("commands-{name}")),
            ("KAFKA_COMMAND_RESULTS_TOPIC".to_owned(), format!("command-results-{name}")),
            // Six topics more for each test would cost the one broker too much.
            ("CONSUMER_COMMANDS_ENABLED".to_owned(), "false".to_owned()),
            ("CONSUMER_GROUP_ID".to_owned(), format!("{name}-")),
            ("LOG_LEVEL".to_owned(), "info,wallex=debug".to_owned()),
        ]);
        variables.extend(kafka.map(|kafka| ("KAFKA_BROKERS".to_owned(), kafka.bootstrap.clone())));
        let postgres_url = postgres.url_of(&name);
        Self { variables, postgres_url, database: name, limits: None }
    }

    /// The owner's way to the database, which is there and empty.
    pub fn postgres_url(&self) -> &str {
        &self.postgres_url
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.insert(name.to_owned(), value.to_string());
        self
    }

    /// With the limits that a shell's command sets, as `ulimit -n 256`.
    pub fn limited(self, command: &str) -> Self {
        Self { limits: Some(command.to_owned()), ..self }
    }

    /// With the consumer of inbound commands.
    pub fn with_commands(self) -> Self {
        self.with("CONSUMER_COMMANDS_ENABLED", true)
    }

    /// Reaches PostgreSQL through this port of the loopback: a proxy's. The test itself does not.
    pub fn through(self, port: u16) -> Self {
        let database = self.database.clone();
        self.with("DATABASE_URL", format!("postgres://postgres@127.0.0.1:{port}/{database}"))
    }

    /// Migrates and starts; returns once the service is ready.
    pub async fn start(self) -> App {
        let mut app = self.migrated();
        app.restart().await;
        app
    }

    /// Migrates, and starts nothing.
    pub fn migrated(self) -> App {
        let log = std::env::temp_dir().join(format!("wallex-{}.log", self.database));
        let pool = PgPool::connect_lazy(&self.postgres_url).unwrap();
        let app = App {
            base: format!("http://127.0.0.1:{}", self.variables["PORT"]),
            database_url: self.postgres_url,
            topic: self.variables["KAFKA_EVENTS_TOPIC"].clone(),
            client: reqwest::Client::builder().timeout(PATIENCE).build().unwrap(),
            pool,
            variables: self.variables,
            limits: self.limits,
            child: None,
            log,
        };
        let migrated = app.wallex(&["migrate"]);
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        app
    }
}

impl App {
    /// Another instance over the same database and topics, on a port of its own.
    pub async fn second_instance(&self) -> App {
        let mut variables = self.variables.clone();
        let port = free_port().unwrap();
        variables.insert("PORT".to_owned(), port.to_string());
        let mut app = App {
            base: format!("http://127.0.0.1:{port}"),
            database_url: self.database_url.clone(),
            topic: self.topic.clone(),
            client: self.client.clone(),
            pool: self.pool.clone(),
            variables,
            limits: self.limits.clone(),
            child: None,
            log: self.log.with_extension(format!("{port}.log")),
        };
        app.restart().await;
        app
    }

    /// The service's command with this service's settings.
    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_wallex");
        let mut command = match &self.limits {
            None => Command::new(binary),
            Some(limits) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("{limits} && exec \"$0\" \"$@\""), binary]);
                shell
            }
        };
        command.env_clear().envs(&self.variables).stdin(Stdio::null());
        command
    }

    /// Runs a subcommand to its end.
    pub fn wallex(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Changes a setting, for commands and for the next start.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.variables.insert(name.to_owned(), value.to_string());
    }

    /// Starts the process again, on the same port, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.kill(Signal::SIGKILL);
        self.spawn();
        self.ready().await;
    }

    /// Starts the process without waiting for it.
    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = self.command().arg("serve").stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    /// Whether the process has ended, and not well.
    pub fn exited(&mut self) -> Option<()> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        assert!(!status.success(), "it ended well");
        Some(())
    }

    pub async fn ready(&self) {
        let what = format!("{} ready; its log is {}", self.base, self.log.display());
        eventually(&what, PATIENCE, async || {
            let answer = self.client.get(format!("{}/readyz", self.base)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Sends a signal to the process; waits for its end where the signal ends it at once.
    pub fn kill(&mut self, signal: Signal) {
        let Some(child) = &mut self.child else { return };
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        if signal == Signal::SIGKILL {
            child.wait().unwrap();
            self.child = None;
        }
    }

    /// Asks the process to stop and waits for it: its exit status.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
        child.wait().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(&body).send().await.unwrap()).await
    }

    /// The same with an idempotency key. An error of the connection is none.
    pub async fn post_with_key(&self, path: &str, key: &str, body: &Value) -> Option<Answer> {
        let request = self.request(Method::POST, path).header("idempotency-key", key).json(body);
        Some(Answer::of(request.send().await.ok()?).await)
    }

    /// Opens a wallet in USD.
    pub async fn open(&self, id: &str, balance: &str) {
        let body = serde_json::json!({"walletId": id, "ownerId": "it", "initialBalance": balance});
        let answer = self.post("/wallets", body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }

    /// Waits until every event is published (with Kafka) and projected.
    pub async fn drain(&self) {
        eventually("outbox empty and projections in step", PATIENCE, async || {
            let waiting: i64 =
                sqlx::query_scalar("select count(*) from outbox where processed_at is null")
                    .fetch_one(&self.pool)
                    .await
                    .ok()?;
            let behind: i64 = sqlx::query_scalar(
                "select count(*) from wallets w cross join \
                    unnest($1::text[]) as p(projector) \
                 left join projected_versions v on v.tenant_id = w.tenant_id \
                    and v.wallet_id = w.id and v.projector = p.projector \
                 where w.version > coalesce(v.version, 0)",
            )
            .bind(Projection::ALL.map(|projection| projection.name()).to_vec())
            .fetch_one(&self.pool)
            .await
            .ok()?;
            (waiting == 0 && behind == 0).then_some(())
        })
        .await;
    }

    /// `wallex reconcile --wait 30s`: whether the books are right, and what it said.
    pub fn reconcile(&self) -> (bool, String) {
        let output = self.wallex(&["reconcile", "--wait", "30s"]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The books are right, or the test fails with what is wrong.
    pub fn assert_reconciled(&self) {
        let (clean, said) = self.reconcile();
        assert!(clean, "{said}");
    }

    /// How the process ended, where it did by itself.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let ended = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(ended)
    }

    /// What the process says from now on is all that its log has.
    pub fn forget_log(&self) {
        let _ = std::fs::remove_file(&self.log);
    }

    /// A setting, as the process has it.
    pub fn variable(&self, name: &str) -> &str {
        &self.variables[name]
    }

    /// All settings, as the process has them.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// A projector's name as a consumer group.
    pub fn group(&self, projector: &str) -> String {
        format!("{}{projector}", self.variables["CONSUMER_GROUP_ID"])
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill(Signal::SIGKILL);
        if std::thread::panicking() {
            eprintln!("the service's log is {}", self.log.display());
        } else {
            let _ = std::fs::remove_file(&self.log);
        }
    }
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap_or_default() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// The problem's code.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or(""))
    }
}
