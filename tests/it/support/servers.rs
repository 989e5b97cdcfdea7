//! Real servers for the tests: one PostgreSQL and one Kafka per test process, started when first
//! asked for, and servers of a test's own for those that kill them.
//!
//! All of them hang on leashes: they end, and their data goes away, when this process ends for
//! whatever reason. What a machine lacks is a failure that says what to install, never a skip.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use wallex::cli::dev::broker::{self, Broker};
use wallex::cli::dev::postgres::{self, Postgres};

/// The shared PostgreSQL. Each test makes databases of its own on it, and never stops it.
pub fn postgres() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(own_postgres)
}

/// The shared broker. Each test uses topics of its own on it, and never stops it.
pub fn kafka() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(own_kafka)
}

/// A PostgreSQL that the test may kill, stop and start again; gone when dropped.
pub fn own_postgres() -> Postgres {
    let folder = temporary_folder("pg");
    let mut options = postgres::Options::new(0, &folder.join("data"), &folder.join("postgres.log"));
    options.bin = std::env::var_os("WALLEX_POSTGRES_BIN").map(PathBuf::from);
    options.settings = vec![("max_connections".to_owned(), "300".to_owned())];
    options.remove = Some(folder.clone());
    Postgres::start(options).unwrap_or_else(|error| {
        let _ = std::fs::remove_dir_all(folder);
        panic!("the tests need a PostgreSQL server: {error:#}")
    })
}

/// A Kafka that the test may kill, freeze, stop and start again; gone when dropped.
pub fn own_kafka() -> Broker {
    own_kafka_with(0, Vec::new())
}

/// The same on a given port (0: a free one), with more lines of its `server.properties`.
pub fn own_kafka_with(port: u16, properties: Vec<(String, String)>) -> Broker {
    let folder = temporary_folder("kafka");
    let home = std::env::var_os("WALLEX_KAFKA_HOME").unwrap_or_default();
    let (data, log) = (folder.join("data"), folder.join("kafka.log"));
    let mut options = broker::Options::new(Path::new(&home), port, &data, &log);
    options.properties = properties;
    if let Some(java_home) = std::env::var_os("JAVA_HOME") {
        options.java = Path::new(&java_home).join("bin/java");
    }
    options.remove = Some(folder.clone());
    Broker::start(options).unwrap_or_else(|error| {
        let _ = std::fs::remove_dir_all(folder);
        panic!("the tests need Kafka (scripts/test fetches it and sets its place): {error:#}")
    })
}

/// Runs one of the official command-line tools against the shared broker to its end, for example
/// `kafka_tool("org.apache.kafka.tools.TopicCommand", &["--list"])`.
pub fn kafka_tool(class: &str, args: &[&str]) -> Output {
    kafka_tool_on(kafka(), class, args)
}

/// The same against a given broker.
pub fn kafka_tool_on(broker: &Broker, class: &str, args: &[&str]) -> Output {
    let mut command = broker.tool(class);
    command.args(["--bootstrap-server", &broker.bootstrap]).args(args).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("cannot run {class}: {error}"))
}

/// A folder that the servers' user may enter, and that the server removes.
fn temporary_folder(name: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix(&format!("wallex-it-{name}-")).tempdir();
    folder
        .map(tempfile::TempDir::keep)
        .unwrap_or_else(|error| panic!("no temporary folder: {error}"))
}
