//! A private Apache Kafka: one KRaft node from the published jars, for `dev` and for the tests.
//!
//! It needs Java 17 and the folder that `scripts/dev` and `scripts/test` fetch. Its data is kept
//! and used again. Topics are never made by it: auto-creation is off, as on a broker that another
//! team runs.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::child::{self, Child, Launch, Signal};

const NAME: &str = "Kafka";
const START_LIMIT: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(20);
const STARTED: &str = "Kafka Server started";
const LEAST_JAVA: u32 = 17;
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";

const BROKER_LOGGING: &str = "log4j2.yaml";
const TOOLS_LOGGING: &str = "log4j2-tools.yaml";

/// One node is broker and controller; what Kafka replicates three times by default has one copy
/// here. A killed broker is let in again only when its session is over: by default after 9 s.
const PROPERTIES: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
auto.create.topics.enable=false
socket.request.max.bytes=104857600
log.cleaner.dedupe.buffer.size=16777216
";

/// What to start. `Options::new` gives what `dev` uses.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder with `libs/*.jar`.
    pub kafka_home: PathBuf,
    /// The program, by path or by name.
    pub java: PathBuf,
    /// 0: a free one. The controller takes the next free one.
    pub port: u16,
    pub data: PathBuf,
    pub log: PathBuf,
    pub heap_mb: u32,
    /// More lines of `server.properties`; they win over ours.
    pub properties: Vec<(String, String)>,
    /// A folder around data and log that goes away with the broker: for tests.
    pub remove: Option<PathBuf>,
}

impl Options {
    /// A lasting broker on `port` with its data and log in these places.
    pub fn new(kafka_home: &Path, port: u16, data: &Path, log: &Path) -> Options {
        Options {
            kafka_home: kafka_home.to_owned(),
            java: PathBuf::from("java"),
            port,
            data: data.to_owned(),
            log: log.to_owned(),
            heap_mb: 512,
            properties: Vec::new(),
            remove: None,
        }
    }

    /// Why no broker can be started, in words that say what to do; none when all is there.
    pub fn missing(&self) -> Option<String> {
        let libs = self.kafka_home.join("libs");
        let names = fs::read_dir(&libs).into_iter().flatten().flatten();
        if !names.into_iter().any(|jar| jar.file_name().to_string_lossy().starts_with("kafka_2.")) {
            let place = match self.kafka_home.as_os_str().is_empty() {
                true => "WALLEX_KAFKA_HOME is not set".to_owned(),
                false => format!("there are no Kafka jars in {}", libs.display()),
            };
            return Some(format!(
                "{place}: start through scripts/dev, which fetches Kafka, or set \
                 WALLEX_KAFKA_HOME to an unpacked Apache Kafka"
            ));
        }
        match java_version(&self.java) {
            Some(version) if version >= LEAST_JAVA => None,
            Some(version) => {
                Some(format!("Java is version {version}, Kafka needs {LEAST_JAVA}: set JAVA_HOME"))
            }
            None => Some(format!(
                "there is no Java: install {LEAST_JAVA} or newer (Debian: apt-get install \
                 openjdk-17-jre-headless), or set JAVA_HOME"
            )),
        }
    }
}

/// A running (or stopped) private broker. Dropping it stops it.
#[derive(Debug)]
pub struct Broker {
    /// `host:port`, for clients.
    pub bootstrap: String,
    pub port: u16,
    pub data: PathBuf,
    options: Options,
    child: Option<Child>,
}

impl Broker {
    /// Formats the data folder if it is new, starts the broker and waits until it serves.
    pub fn start(mut options: Options) -> anyhow::Result<Broker> {
        if let Some(reason) = options.missing() {
            bail!("{reason}");
        }
        // The broker runs in its data folder, where a relative path means something else.
        options.kafka_home = options.kafka_home.canonicalize()?;
        if options.java.components().count() > 1 {
            options.java = options.java.canonicalize()?;
        }
        fs::create_dir_all(&options.data).with_context(|| options.data.display().to_string())?;
        let data = options.data.canonicalize()?;
        child::check_owner(&data, None)?;
        child::wait_gone(last_pid(&data), &data, GRACE);
        let port = if options.port == 0 { child::free_port()? } else { options.port };
        let bootstrap = format!("127.0.0.1:{port}");
        let mut broker = Broker { bootstrap, port, data, options, child: None };
        broker.run()?;
        Ok(broker)
    }

    /// Java's pid; none when it was stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// True while the broker's process lives.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.ended().is_none())
    }

    /// Sends a signal to the broker: SIGKILL for a crash, SIGSTOP and SIGCONT for a broker that
    /// hangs.
    pub fn kill(&self, signal: Signal) -> anyhow::Result<()> {
        self.child.as_ref().context("Kafka is not running")?.kill(signal)
    }

    /// An orderly shutdown.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.stop();
        }
    }

    /// Starts it again on the same data and port, after `stop`, after a crash, or in place of the
    /// running one.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        self.run()
    }

    /// One of the official command-line tools, by class; add `--bootstrap-server` and the rest.
    pub fn tool(&self, class: &str) -> Command {
        let mut command = Command::new(&self.options.java);
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.args(self.java_arguments(TOOLS_LOGGING)).arg(class);
        command
    }

    /// The same as a line for a shell.
    pub fn tool_line(&self, class: &str) -> String {
        let command = self.tool(class);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let quote = |word: &OsStr| {
            let word = word.to_string_lossy();
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/.-_:+=".contains(c));
            if plain { word.into_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
        };
        words.map(quote).collect::<Vec<_>>().join(" ")
    }

    fn run(&mut self) -> anyhow::Result<()> {
        self.write_configuration()?;
        let properties = self.data.join("server.properties").display().to_string();
        if !self.data.join("log/meta.properties").exists() {
            let mut format = self.tool("kafka.tools.StorageTool");
            format.args(["format", "-t", CLUSTER_ID, "-c", &properties]).stdin(Stdio::null());
            let output = format.output().context("cannot run java")?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                bail!("Kafka's data folder could not be formatted: {said}");
            }
        }
        let heap = format!("-Xmx{}m", self.options.heap_mb);
        let mut command =
            vec![self.options.java.display().to_string(), heap, "-XX:+UseSerialGC".to_owned()];
        command.extend(self.java_arguments(BROKER_LOGGING));
        command.extend(["kafka.Kafka".to_owned(), properties]);
        let mut child = Child::start(&Launch {
            name: NAME,
            command,
            directory: &self.data,
            log: &self.options.log,
            account: None,
            stop_signal: Signal::SIGTERM,
            grace: GRACE,
            remove: self.options.remove.as_deref(),
        })?;
        fs::write(self.data.join("pid"), child.pid().to_string())?;
        child.wait_ready(START_LIMIT, || {
            let log = fs::read(&self.options.log).unwrap_or_default();
            String::from_utf8_lossy(&log).contains(STARTED)
                && TcpStream::connect(&self.bootstrap).is_ok()
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// Written at every start: the ports may be others than last time.
    fn write_configuration(&self) -> anyhow::Result<()> {
        let (port, controller) = (self.port, child::free_port_from(self.port.saturating_add(1))?);
        let mut text = PROPERTIES.to_owned();
        text.push_str(&format!(
            "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             log.dirs={}\n",
            self.data.join("log").display()
        ));
        for (name, value) in &self.options.properties {
            text.push_str(&format!("{name}={value}\n"));
        }
        fs::write(self.data.join("server.properties"), text)?;
        fs::write(self.data.join(BROKER_LOGGING), logging("SYSTEM_OUT", "INFO"))?;
        fs::write(self.data.join(TOOLS_LOGGING), logging("SYSTEM_ERR", "ERROR"))?;
        Ok(())
    }

    fn java_arguments(&self, logging: &str) -> [String; 3] {
        let logging = self.data.join(logging);
        [
            format!("-Dlog4j2.configurationFile={}", logging.display()),
            "-cp".to_owned(),
            format!("{}/libs/*", self.options.kafka_home.display()),
        ]
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.take());
        if let Some(folder) = &self.options.remove {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The pid of the last broker over this data folder; the process may be gone.
pub fn last_pid(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("pid")).ok()?.trim().parse().ok()
}

/// The major version that `java -version` prints.
fn java_version(java: &Path) -> Option<u32> {
    let output = Command::new(java).arg("-version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.split_once("version \"")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn logging(target: &str, level: &str) -> String {
    format!(
        "Configuration:
  status: warn
  Appenders:
    Console:
      name: CONSOLE
      target: {target}
      PatternLayout:
        pattern: \"%d{{ISO8601}} %-5p %m (%c{{1}})%n\"
  Loggers:
    Root:
      level: {level}
      AppenderRef:
        - ref: CONSOLE
"
    )
}
