//! The commands of the documents, run in order against a service of each document's own.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wallex::cli::dev::broker::Broker;

use super::compare::Ids;
use super::layout::shown;
use super::{Step, blocks, root, steps, text_of};
use crate::support::app::{App, Setup};
use crate::support::servers;

/// What every document calls the service, the database and the broker.
const SERVICE: &str = "http://localhost:3000";
const DATABASE: &str = "postgres://postgres:postgres@localhost:5434/wallex";
const BROKER: &str = "localhost:29092";
const TOPIC: &str = "wallet-events";
const COMMANDS: &str = "wallet-commands";
const RESULTS: &str = "wallet-command-results";

/// No test has a container engine: these two are done to the document's own broker.
const STOP: &str = "docker compose stop kafka";
const START: &str = "docker compose start kafka";

/// The official tools by the names of their scripts.
const TOOLS: &[(&str, &str)] = &[
    ("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-configs", "kafka.admin.ConfigCommand"),
    ("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
    ("kafka-consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer"),
];

const PATIENCE: Duration = Duration::from_secs(60);

/// A document's service, and what stands in for the reader's machine.
struct Session {
    app: App,
    /// The document's own, where its commands stop it.
    own: Option<Broker>,
    broker: String,
    /// Scripts under the names of the official tools.
    tools: tempfile::TempDir,
    ids: Ids,
}

impl Session {
    async fn start(text: &str) -> Self {
        let own = text.contains(STOP).then(servers::own_kafka);
        let broker = own.as_ref().unwrap_or_else(|| servers::kafka());
        let app = Setup::on(servers::postgres(), Some(broker)).with_commands().start().await;
        let tools = tempfile::tempdir().unwrap();
        for (name, class) in TOOLS {
            let script = tools.path().join(name);
            fs::write(&script, format!("#!/bin/sh\nexec {} \"$@\"\n", broker.tool_line(class)))
                .unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&script, mode).unwrap();
        }
        let broker = broker.bootstrap.clone();
        Self { app, own, broker, tools, ids: Ids::default() }
    }

    /// What the reader's command is on this machine.
    fn here(&self, command: &str) -> String {
        let mut command = self.ids.in_command(command);
        // Services that share a broker need groups of their own.
        if command.starts_with("kafka-consumer-groups ") {
            for projector in ["ledger-projector", "read-model-projector", "wallex-commands"] {
                command = command.replace(projector, &self.app.group(projector));
            }
        }
        command
            .replace(SERVICE, &self.app.base)
            .replace(DATABASE, &self.app.database_url)
            .replace(BROKER, &self.broker)
            .replace(TOPIC, &self.app.topic)
            .replace(COMMANDS, self.app.variable("KAFKA_COMMANDS_TOPIC"))
            .replace(RESULTS, self.app.variable("KAFKA_COMMAND_RESULTS_TOPIC"))
    }

    /// What this machine's answer would be on the reader's.
    fn there(&self, answer: &str) -> String {
        answer
            .replace(&self.app.base, SERVICE)
            .replace(&self.app.database_url, DATABASE)
            .replace(&self.broker, BROKER)
            .replace(&self.app.topic, TOPIC)
            .replace(self.app.variable("KAFKA_COMMANDS_TOPIC"), COMMANDS)
            .replace(self.app.variable("KAFKA_COMMAND_RESULTS_TOPIC"), RESULTS)
            .replace(&self.app.group(""), "")
            .replace('\r', "")
    }

    /// Runs a command as a reader would: what it says, its errors where it fails.
    fn run(&mut self, command: &str) -> String {
        match (command, &mut self.own) {
            (STOP, Some(broker)) => {
                broker.stop();
                return String::new();
            }
            (START, Some(broker)) => {
                broker.restart().unwrap();
                return String::new();
            }
            _ => {}
        }
        let command = self.here(command);
        let (first, rest) = match command.strip_prefix("wallex ") {
            Some(arguments) => {
                let (arguments, rest) = arguments.split_once(" | ").unwrap_or((arguments, ""));
                let arguments: Vec<&str> = arguments.split_whitespace().collect();
                (Some(self.app.wallex(&arguments)), rest.to_owned())
            }
            None => (None, command.clone()),
        };
        let output = match (first, rest.is_empty()) {
            (Some(output), true) => output,
            (first, _) => {
                let input = first.map(|output| output.stdout).unwrap_or_default();
                self.shell(&rest, input)
            }
        };
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            said.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        self.there(&said)
    }

    fn shell(&self, line: &str, input: Vec<u8>) -> std::process::Output {
        use std::io::Write as _;
        let path = std::env::var("PATH").unwrap_or_default();
        let postgres = std::env::var("WALLEX_POSTGRES_BIN").unwrap_or_default();
        let mut child = Command::new("bash")
            .args(["-c", line])
            .env("PATH", format!("{}:{postgres}:{path}", self.tools.path().display()))
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The answer as documented, or what was answered instead.
    async fn check(&mut self, step: &Step) -> Result<(), String> {
        let documented = step.answer.join("\n");
        let begun = Instant::now();
        loop {
            let actual = self.run(&step.command);
            if self.ids.answers(&documented, &actual) {
                return Ok(());
            }
            if !only_reads(&step.command) || begun.elapsed() > PATIENCE {
                return Err(actual);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Whether a command may be given again without changing anything.
fn only_reads(command: &str) -> bool {
    let writes = [
        "--json '",
        "-X",
        "insert into",
        "delete from",
        "update ",
        "producer",
        "dlq replay",
        "dlq quarantine",
        "migrate",
        "docker",
    ];
    !writes.iter().any(|mark| command.contains(mark))
}

/// Runs a document's commands; the documented answers must come.
async fn check(document: &str) {
    let text = text_of(document);
    let steps: Vec<Step> =
        blocks(&text).iter().filter(|b| b.language == "console").flat_map(steps).collect();
    assert!(!steps.is_empty(), "{document} has no commands");
    let mut session = Session::start(&text).await;
    if std::env::var_os("WALLEX_DOCS_WRITE").is_some() {
        return write(document, &text, &steps, &mut session).await;
    }
    let mut wrong = Vec::new();
    for step in &steps {
        if let Err(actual) = session.check(step).await {
            let (line, command, answer) = (step.line, &step.command, step.answer.join("\n"));
            wrong.push(format!(
                "{document}:{line}\n$ {command}\n--- documented\n{answer}\n--- answered\n{actual}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Writes the answers of now below the commands.
async fn write(document: &str, text: &str, steps: &[Step], session: &mut Session) {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut grown = 0_i64;
    for step in steps {
        // Long enough for the projections, a feed that takes over, a parked wallet that never catches up.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let documented = step.answer.join("\n");
        let actual = session.run(&step.command);
        if step.command == START {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        if session.ids.answers(&documented, &actual) {
            continue;
        }
        let answer: Vec<String> = shown(&actual).lines().map(str::to_owned).collect();
        let at = (step.line as i64 + grown) as usize;
        grown += answer.len() as i64 - step.answer.len() as i64;
        lines.splice(at..at + step.answer.len(), answer);
        // From here on the document has this run's ids.
        let _ = session.ids.answers(&shown(&actual), &actual);
    }
    fs::write(root().join(document), lines.join("\n") + "\n").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_page_about_inbound_commands_do_what_it_says() {
    check("docs/COMMANDS.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_answer_as_it_says() {
    check("README.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_architecture_page_answer_as_it_says() {
    check("docs/ARCHITECTURE.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_events_page_answer_as_it_says() {
    check("docs/EVENTS.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_operations_page_answer_as_it_says() {
    check("docs/OPERATIONS.md").await;
}
