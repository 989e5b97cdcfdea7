//! Real servers for the tests: one PostgreSQL and one Kafka per test process, started when first
//! asked for, and servers of a test's own for those that kill them.
//!
//! All of them hang on leashes: they end, and their data goes away, when this process ends for
//! whatever reason. What a machine lacks is a failure that says what to install, never a skip.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use wallex::cli::dev::broker::{self, Broker};
use wallex::cli::dev::child::free_port;
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
    own_postgres_with(&[])
}

/// The same with more settings of its `postgresql.conf`.
pub fn own_postgres_with(settings: &[(&str, &str)]) -> Postgres {
    start_postgres(std::env::var_os("WALLEX_POSTGRES_BIN").map(PathBuf::from), settings)
}

/// The versions that `scripts/lib/prepare.sh` fetches.
const MAJORS: [(u32, &str); 3] = [(16, "16.4.0"), (17, "17.6.0"), (18, "18.1.0")];

/// A PostgreSQL of one of these majors, gone when dropped: as `scripts/test` fetches them beside
/// Kafka, or as `WALLEX_POSTGRES_16` and so on name the folder of their programs.
pub fn own_postgres_of(major: u32) -> Postgres {
    let (_, version) = MAJORS.into_iter().find(|(known, _)| *known == major).unwrap();
    let name = format!("WALLEX_POSTGRES_{major}");
    let bin = std::env::var_os(&name).map(PathBuf::from).unwrap_or_else(|| {
        let kafka = std::env::var_os("WALLEX_KAFKA_HOME").unwrap_or_default();
        Path::new(&kafka).with_file_name(format!("postgres-{version}")).join("bin")
    });
    assert!(
        bin.join("initdb").exists() && bin.join("psql").exists(),
        "there is no PostgreSQL {major} in {}: run scripts/test (for 16 and 17: scripts/test --full), \
         which fetches it, or set {name} to the folder of its programs, psql among them",
        bin.display(),
    );
    let folder = temporary_folder("pg");
    // Root's own folders are closed to the user that the server runs as.
    let programs = folder.join("programs");
    let home = bin.parent().unwrap();
    let copied = Command::new("cp").args(["-RL"]).arg(home).arg(&programs).status().unwrap();
    assert!(copied.success());
    start_postgres_in(folder, Some(programs.join("bin")), &[])
}

/// A copy of the server as it stands, in recovery and with no primary to follow. The server itself is
/// stopped.
pub fn standby_of(primary: &mut Postgres) -> Postgres {
    primary.stop();
    let folder = temporary_folder("pg");
    let data = folder.join("data");
    let copied = Command::new("cp").arg("-Rp").arg(&primary.data).arg(&data).status().unwrap();
    assert!(copied.success());
    std::fs::write(data.join("standby.signal"), "").unwrap();
    start_postgres_in(folder, Some(primary.bin.clone()), &[])
}

/// A physical standby that streams from a running server; gone when dropped.
pub fn streaming_standby_of(primary: &Postgres) -> Postgres {
    let folder = temporary_folder("standby");
    // The servers' user owns the data, also where the tests run as root.
    let owner = std::fs::metadata(&primary.data).unwrap();
    std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
    let from = format!("host=127.0.0.1 port={} user=postgres", primary.port);
    let mut backup = Command::new(primary.bin.join("pg_basebackup"));
    backup.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", &from, "-D"]);
    backup.arg(folder.join("data")).current_dir(&folder).uid(owner.uid()).gid(owner.gid());
    let output = backup.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    start_postgres_in(folder, Some(primary.bin.clone()), &[])
}

fn start_postgres(bin: Option<PathBuf>, settings: &[(&str, &str)]) -> Postgres {
    start_postgres_in(temporary_folder("pg"), bin, settings)
}

fn start_postgres_in(folder: PathBuf, bin: Option<PathBuf>, settings: &[(&str, &str)]) -> Postgres {
    let mut options = postgres::Options::new(0, &folder.join("data"), &folder.join("postgres.log"));
    options.bin = bin;
    options.settings = vec![("max_connections".to_owned(), "300".to_owned())];
    let more = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    options.settings.extend(more);
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
    start_kafka(port, properties, 512)
}

/// Three nodes that are one cluster, each broker and controller; gone when dropped. A broker that
/// is silent for 9 s counts as dead, as by default; the test may kill one and start it again.
pub fn own_cluster() -> Vec<Broker> {
    let mut ports: Vec<u16> = Vec::new();
    while ports.len() < 6 {
        let port = free_port().unwrap_or_else(|error| panic!("no port for a broker: {error:#}"));
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let (ports, controllers) = ports.split_at(3);
    let nodes = || (1..).zip(ports.iter().zip(controllers));
    let voters: Vec<String> =
        nodes().map(|(id, (_, port))| format!("{id}@127.0.0.1:{port}")).collect();
    let properties = |id: i32, port: u16, controller: u16| {
        let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
        let lines = [
            ("node.id", id.to_string()),
            ("listeners", listeners),
            ("controller.quorum.voters", voters.join(",")),
            ("offsets.topic.replication.factor", "3".to_owned()),
            ("broker.session.timeout.ms", "9000".to_owned()),
            ("broker.heartbeat.interval.ms", "2000".to_owned()),
        ];
        lines.map(|(name, value)| (name.to_owned(), value)).to_vec()
    };
    // None of them serves before most of them are there.
    std::thread::scope(|scope| {
        let starting: Vec<_> = nodes()
            .map(|(id, (port, controller))| {
                let properties = properties(id, *port, *controller);
                scope.spawn(move || start_kafka(*port, properties, 256))
            })
            .collect();
        starting.into_iter().map(|node| node.join().expect("the node starts")).collect()
    })
}

fn start_kafka(port: u16, properties: Vec<(String, String)>, heap_mb: u32) -> Broker {
    let folder = temporary_folder("kafka");
    let home = std::env::var_os("WALLEX_KAFKA_HOME").unwrap_or_default();
    let (data, log) = (folder.join("data"), folder.join("kafka.log"));
    let mut options = broker::Options::new(Path::new(&home), port, &data, &log);
    options.properties = properties;
    options.heap_mb = heap_mb;
    if let Some(java_home) = std::env::var_os("JAVA_HOME") {
        options.java = Path::new(&java_home).join("bin/java");
    }
    options.remove = Some(folder.clone());
    Broker::start(options).unwrap_or_else(|error| {
        let _ = std::fs::remove_dir_all(folder);
        panic!("the tests need Kafka (scripts/test fetches it and sets its place): {error:#}")
    })
}

/// What an official tool says; ends the test where it fails.
pub fn kafka_tool_said(class: &str, arguments: &[&str]) -> String {
    let output = tokio::task::block_in_place(|| kafka_tool(class, arguments));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
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
