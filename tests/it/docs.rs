//! The documentation is true: every command in it is run against a real service and must give the
//! answer that stands below it; every relative link, anchor and path leads somewhere.
//!
//! Conventions, for README.md and docs/*.md (CONTRIBUTING.md explains them to writers):
//! - ```` ```console ````: lines after `$ ` are commands (a trailing `\` continues one), what follows
//!   is the answer. A document's commands run in order, against a service of its document's own.
//! - ```` ```sh ````: commands that no test can run. Each such block is named in [`NOT_RUN`], with
//!   the reason.
//! - ```` ```text ````: drawings, never a command or an answer.
//!
//! Ids, times, and numbers that vary by nature are compared by kind; an id that stands twice must be
//! the same both times, and one that a command names is replaced by the one that the service gave.
//! What depends on the moment alone ([`VARYING`]) must be there, no more.
//! JSON is compared by value, so that documents may break its lines. What only reads is asked again
//! until it answers as documented, for a while: projections follow in milliseconds, not at once.
//!
//! `WALLEX_DOCS_WRITE=1 cargo test --test it docs` writes the answers into the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use wallex::cli::dev::broker::Broker;
use wallex::config::SETTINGS;

use crate::support::app::{App, Setup};
use crate::support::servers;

/// Blocks of commands that are not run: the document, what the block begins with, and why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("README.md", "scripts/dev", "it is what the test's fixture does by itself"),
    ("README.md", "scripts/test", "it would run this test"),
    ("README.md", "docker compose up", "needs a container engine"),
    ("README.md", "python3 scripts/quick_load_test.py", "a load test has its own tests"),
    ("CONTRIBUTING.md", "scripts/dev", "see README.md"),
    ("CONTRIBUTING.md", "cargo test", "it would run this test"),
    ("docs/RELIABILITY.md", "scripts/chaos", "takes minutes, and has servers of its own"),
    ("docs/OPERATIONS.md", "export PATH", "sets up the reader's own shell"),
    ("docs/OPERATIONS.md", "docker exec kafka", "needs a container engine"),
    ("docs/OPERATIONS.md", "wallex outbox republish", "the document's service has Kafka all along"),
    ("docs/OPERATIONS.md", "pg_dump", "the reader's own places"),
    (
        "docs/OPERATIONS.md",
        "CREATE ROLE",
        "an administrator's; reported::postgres::managed runs it",
    ),
    ("docs/OPERATIONS.md", "psql -c", "who has what is of the moment"),
    ("docs/OPERATIONS.md", "kill -TERM", "the fixture's process is not the reader's"),
    ("docs/OPERATIONS.md", "scripts/container_check", "a check of its own, needs root"),
    ("docs/OPERATIONS.md", "scripts/production_secrets", "needs a container engine"),
    ("docs/OPERATIONS.md", "python3 scripts/quick_load_test.py", "a load test has its own tests"),
];

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

/// Values that depend on the moment, by the name of their field: it must be there, no more.
const VARYING: &[&str] = &[
    "latencyMs",
    "lagMs",
    "applied",
    "healed",
    "duplicates",
    "errors",
    "lastError",
    "error",
    "pingMs",
    "publishedLastMinute",
];

const PATIENCE: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<String> {
    let mut names: Vec<String> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(str::to_owned).to_vec();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names
}

fn text_of(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|e| panic!("{document}: {e}"))
}

// ------------------------------------------------------------------------------------ the blocks

/// A fenced block: its language, the line it begins at (from 1), and its lines.
#[derive(Debug)]
struct Block {
    language: String,
    line: usize,
    lines: Vec<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => found.extend(open.take()),
            (Some(block), _) => block.lines.push(line.to_owned()),
            (None, Some(language)) => {
                open = Some(Block {
                    language: language.trim().to_owned(),
                    line: number + 1,
                    lines: Vec::new(),
                });
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    found
}

/// A command with the answer documented below it.
#[derive(Debug)]
struct Step {
    /// Where the command's last line stands in the document, from 1.
    line: usize,
    command: String,
    answer: Vec<String>,
}

fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut continues = false;
    for (at, line) in block.lines.iter().enumerate() {
        let number = block.line + 1 + at;
        if continues {
            let step = steps.last_mut().unwrap();
            step.command.push('\n');
            step.command.push_str(line);
            step.line = number;
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { line: number, command: command.to_owned(), answer: Vec::new() });
        } else {
            let step = steps.last_mut();
            step.unwrap_or_else(|| panic!("line {number}: an answer without a command"))
                .answer
                .push(line.clone());
            continue;
        }
        continues = line.ends_with('\\');
    }
    for step in &mut steps {
        while step.answer.last().is_some_and(|line| line.trim().is_empty()) {
            step.answer.pop();
        }
    }
    steps
}

// --------------------------------------------------------------------------------- the comparison

/// What varies by nature, told apart by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uuid,
    Time,
    Token,
    Version,
}

/// The length of something varying at the beginning of `text`.
fn varying(text: &str) -> Option<(Kind, usize)> {
    let bytes = text.as_bytes();
    let shaped = |shape: &str| {
        bytes.len() >= shape.len()
            && shape.bytes().zip(bytes).all(|(want, is)| match want {
                b'x' => is.is_ascii_hexdigit(),
                b'0' => is.is_ascii_digit(),
                exact => exact == *is,
            })
    };
    if shaped("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") {
        return Some((Kind::Uuid, 36));
    }
    if shaped("0000-00-00T00:00:00.000Z") {
        return Some((Kind::Time, 24));
    }
    if shaped("CreateTime:0000000000000") {
        return Some((Kind::Time, 24));
    }
    if shaped("TopicId: ") {
        let id = bytes[9..].iter().take_while(|b| b.is_ascii_alphanumeric() || b"-_".contains(b));
        return Some((Kind::Token, 9 + id.count()));
    }
    if let Some(rest) = text.strip_prefix("wallex ") {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        return (digits > 4).then_some((Kind::Version, 7 + digits));
    }
    None
}

/// Ids of a document and what they are in this run, both ways.
#[derive(Debug, Default, Clone)]
struct Ids {
    actual: BTreeMap<String, String>,
    documented: BTreeMap<String, String>,
}

impl Ids {
    fn same(&mut self, documented: &str, actual: &str) -> bool {
        let known = self.actual.get(documented).map(String::as_str);
        let other = self.documented.get(actual).map(String::as_str);
        if known.is_none() && other.is_none() {
            self.actual.insert(documented.to_owned(), actual.to_owned());
            self.documented.insert(actual.to_owned(), documented.to_owned());
            return true;
        }
        known == Some(actual) && other == Some(documented)
    }

    /// A documented command with the ids of this run.
    fn in_command(&self, command: &str) -> String {
        let mut command = command.to_owned();
        for (documented, actual) in &self.actual {
            command = command.replace(documented, actual);
        }
        command
    }

    fn texts(&mut self, documented: &str, actual: &str) -> bool {
        let (mut d, mut a) = (documented, actual);
        loop {
            match (varying(d), varying(a)) {
                (Some((kind, n)), Some((other, m))) if kind == other => {
                    if kind == Kind::Uuid && !self.same(&d[..n], &a[..m]) {
                        return false;
                    }
                    (d, a) = (&d[n..], &a[m..]);
                    continue;
                }
                (None, None) => {}
                _ => return false,
            }
            let (Some(x), Some(y)) = (d.chars().next(), a.chars().next()) else {
                return d.is_empty() && a.is_empty();
            };
            if x != y {
                return false;
            }
            (d, a) = (&d[x.len_utf8()..], &a[y.len_utf8()..]);
        }
    }

    fn values(&mut self, documented: &Value, actual: &Value) -> bool {
        match (documented, actual) {
            (Value::String(d), Value::String(a)) => self.texts(d, a),
            (Value::Array(d), Value::Array(a)) => {
                d.len() == a.len() && d.iter().zip(a).all(|(d, a)| self.values(d, a))
            }
            (Value::Object(d), Value::Object(a)) => {
                d.len() == a.len()
                    && d.iter().all(|(name, d)| {
                        a.get(name)
                            .is_some_and(|a| VARYING.contains(&name.as_str()) || self.values(d, a))
                    })
            }
            (d, a) => d == a,
        }
    }

    /// Whether an answer says what the document says it does.
    fn answers(&mut self, documented: &str, actual: &str) -> bool {
        let before = self.clone();
        let (d, a) = (split(documented), split(actual));
        let same = d.0.len() == a.0.len()
            && d.0.iter().zip(&a.0).all(|(d, a)| self.texts(d, a))
            && d.1.len() == a.1.len()
            && d.1.iter().zip(&a.1).all(|(d, a)| self.values(d, a));
        if !same {
            *self = before;
        }
        same
    }
}

/// An answer taken apart: lines of text, and JSON documents.
fn split(answer: &str) -> (Vec<String>, Vec<Value>) {
    let (mut lines, mut documents) = (Vec::new(), Vec::new());
    let mut rest = answer.trim_end();
    while !rest.is_empty() {
        if rest.starts_with(['{', '[']) {
            let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            if let Some(Ok(value)) = stream.next() {
                let end = stream.byte_offset();
                documents.push(value);
                rest = rest[end..].trim_start_matches('\n');
                continue;
            }
        }
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if !left_out(line) {
            lines.push(line.trim_end().to_owned());
        }
        rest = after;
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    (lines, documents)
}

/// Lines that no document shows.
fn left_out(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["date:", "content-length:", "connection:", "keep-alive:"]
        .iter()
        .any(|name| line.starts_with(name))
}

// -------------------------------------------------------------------------------------- the runs

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

/// An answer as a document shows it: JSON broken into lines.
fn shown(answer: &str) -> String {
    let mut text = String::new();
    let mut rest = answer.trim_end();
    while !rest.is_empty() {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let json = rest.starts_with(['{', '[']) && matches!(stream.next(), Some(Ok(_)));
        let end = if json { stream.byte_offset() } else { rest.find('\n').unwrap_or(rest.len()) };
        let (part, after) = rest.split_at(end);
        if json {
            text.push_str(&pretty(part));
            text.push('\n');
        } else if !left_out(part) {
            text.push_str(part.trim_end());
            text.push('\n');
        }
        rest = after.strip_prefix('\n').unwrap_or(after);
    }
    text
}

/// JSON in its own order, in lines of at most 110 characters where it can be.
fn pretty(json: &str) -> String {
    fn skip_string(json: &str, from: usize) -> usize {
        let mut escaped = false;
        for (at, c) in json[from + 1..].char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return from + 1 + at + 1,
                _ => {}
            }
        }
        json.len()
    }
    /// The parts of an object or array, split at its own commas.
    fn parts(inner: &str) -> Vec<&str> {
        let (mut depth, mut begun, mut at) = (0, 0, 0);
        let mut parts = Vec::new();
        while at < inner.len() {
            match inner.as_bytes()[at] {
                b'"' => {
                    at = skip_string(inner, at);
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b',' if depth == 0 => {
                    parts.push(inner[begun..at].trim());
                    begun = at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        parts.push(inner[begun..].trim());
        parts
    }
    fn lay(json: &str, indent: usize, out: &mut String) {
        if indent + json.len() <= 108 || json.len() < 3 || !json.starts_with(['{', '[']) {
            out.push_str(json);
            return;
        }
        let (open, close) = (&json[..1], &json[json.len() - 1..]);
        let pad = " ".repeat(indent + 2);
        out.push_str(open);
        let mut line = 0;
        for (n, part) in parts(&json[1..json.len() - 1]).into_iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            let nested = part.ends_with(['}', ']']) && indent + 2 + part.len() > 108;
            if n == 0 || nested || line + part.len() > 106 {
                out.push('\n');
                out.push_str(&pad);
                line = pad.len();
            } else {
                out.push(' ');
                line += 1;
            }
            if nested {
                match part.split_once(':').filter(|_| part.starts_with('"')) {
                    Some((name, value)) => {
                        out.push_str(&format!("{name}:"));
                        lay(value, indent + 2, out);
                    }
                    None => lay(part, indent + 2, out),
                }
                line = usize::MAX / 2;
            } else {
                out.push_str(part);
                line += part.len() + 1;
            }
        }
        out.push('\n');
        out.push_str(&" ".repeat(indent));
        out.push_str(close);
    }
    let mut out = String::new();
    // What a tool printed in lines already stays so.
    if json.contains('\n') {
        return json.to_owned();
    }
    lay(json, 0, &mut out);
    out
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

// ------------------------------------------------------------------------------- without a service

#[test]
fn every_block_is_run_or_says_why_not() {
    let run = [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/COMMANDS.md",
        "docs/EVENTS.md",
        "docs/OPERATIONS.md",
    ];
    let mut wrong = Vec::new();
    let mut used = vec![false; NOT_RUN.len()];
    for document in documents() {
        for block in blocks(&text_of(&document)) {
            let place = format!("{document}:{}", block.line);
            let first = block.lines.first().map_or("", String::as_str);
            match block.language.as_str() {
                "console" if run.contains(&document.as_str()) => {}
                "console" => wrong.push(format!("{place}: no test runs this document's commands")),
                "text" => {
                    let command = |line: &String| {
                        line.starts_with("$ ") || line.starts_with("curl ") || line.starts_with('{')
                    };
                    if block.lines.iter().any(command) {
                        wrong.push(format!("{place}: a command or an answer in a text block"));
                    }
                }
                "sh" => {
                    let known = NOT_RUN.iter().position(|(name, begins, _)| {
                        *name == document && first.starts_with(begins)
                    });
                    match known {
                        Some(at) => used[at] = true,
                        None => wrong.push(format!("{place}: not run, and NOT_RUN has no reason")),
                    }
                }
                other => wrong.push(format!("{place}: a block of `{other}` is checked by nobody")),
            }
        }
    }
    for ((document, begins, _), used) in NOT_RUN.iter().zip(used) {
        if !used {
            wrong.push(format!("NOT_RUN names a block that is not there: {document} {begins}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A document without its blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let keep = text.lines().map(|line| {
        let fence = line.starts_with("```");
        let hidden = inside || fence;
        inside ^= fence;
        if hidden { "" } else { line }
    });
    keep.collect::<Vec<_>>().join("\n")
}

/// The anchors that a document's headings get.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let mut anchors: Vec<String> = Vec::new();
    for heading in headings {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let before = anchors.iter().filter(|known| **known == anchor).count();
        anchors.push(if before == 0 { anchor } else { format!("{anchor}-{before}") });
    }
    anchors
}

/// What stands between `open` and `close`, wherever it does.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(open) {
        let Some((inner, behind)) = after.split_once(close) else { break };
        found.push(inner);
        rest = behind;
    }
    found
}

#[test]
fn every_link_and_every_path_leads_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = text_of(&document);
        let prose = prose(&text);
        let folder: PathBuf = root().join(&document).parent().unwrap().to_owned();
        for link in between(&prose, "](", ")") {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root().join(&document) } else { folder.join(path) };
            if !target.exists() {
                wrong.push(format!("{document}: {link} leads nowhere"));
            } else if !anchor.is_empty()
                && !anchors(&fs::read_to_string(&target).unwrap()).iter().any(|a| a == anchor)
            {
                wrong.push(format!("{document}: {link}: no heading has this anchor"));
            }
        }
        for line in prose.lines() {
            for code in between(line, "`", "`") {
                let of_ours = ["src/", "tests/", "docs/", "scripts/", "migrations/", "schemas/"];
                let is_path = of_ours.iter().any(|folder| code.starts_with(folder))
                    && !code.contains([' ', '*', '<', '{']);
                if is_path && !root().join(code).exists() {
                    wrong.push(format!("{document}: `{code}` is not there"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first cells of a document's table rows below a heading, without their backticks.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let text = text_of(document);
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let section = below.take_while(|line| !line.starts_with('#'));
    let rows = section.filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    let cells = rows.map(|row| row.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()));
    let rows: Vec<Vec<String>> = cells.skip(1).map(Iterator::collect).collect();
    assert!(!rows.is_empty(), "{document} has no table below {heading}");
    rows
}

fn plain(cell: &str) -> String {
    cell.replace('`', "")
}

#[test]
fn the_route_table_is_the_router() {
    let document: Value = serde_json::from_str(&text_of("docs/openapi.json")).unwrap();
    let mut served = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap().keys();
        served.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    // The page's own files.
    served.retain(|route| !route.ends_with("/docs/{file}"));
    let mut documented = Vec::new();
    for row in rows("README.md", "## Routes") {
        let routes = plain(&row[0]);
        let (method, paths) = routes.split_once(' ').unwrap();
        documented.extend(paths.split(", ").map(|path| format!("{method} {path}")));
    }
    let missing: Vec<&String> = served.iter().filter(|r| !documented.contains(r)).collect();
    assert!(missing.is_empty(), "README.md lacks {missing:?}");
    let invented: Vec<&String> = documented.iter().filter(|r| !served.contains(r)).collect();
    assert!(invented.is_empty(), "the router lacks {invented:?}");
}

#[test]
fn every_setting_and_command_that_is_named_exists() {
    let mut wrong = Vec::new();
    for row in rows("docs/OPERATIONS.md", "## Settings that matter") {
        for name in between(&row[0], "`", "`") {
            if !SETTINGS.iter().any(|setting| setting.name == name) {
                wrong.push(format!("{name} is no setting"));
            }
        }
    }
    for row in rows("docs/OPERATIONS.md", "## Settings of earlier services") {
        let theirs: Vec<&str> = between(&row[0], "`", "`");
        let same = row[1] == "the same";
        for name in theirs {
            let exists = SETTINGS.iter().any(|setting| setting.name == name);
            if same != exists {
                wrong.push(format!("{name}: the table says `{}`, exists: {exists}", row[1]));
            }
        }
    }
    let help = Command::new(env!("CARGO_BIN_EXE_wallex")).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for row in rows("docs/OPERATIONS.md", "## Commands") {
        let command = plain(&row[0]);
        let name = command.trim_start_matches("wallex ").split(' ').next().unwrap();
        let exists = help.lines().any(|line| line.trim_start().starts_with(&format!("{name} ")));
        if !exists {
            wrong.push(format!("`{command}` is no command"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All of `src/`, and the names that it gives to metrics where it counts them.
fn metrics_of_the_source() -> (String, BTreeSet<String>) {
    fn walk(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, all);
            } else {
                all.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut all = String::new();
    walk(&root().join("src"), &mut all);
    let mut names = BTreeSet::new();
    for kind in ["counter!(", "gauge!(", "histogram!("] {
        let places = all.split(kind).skip(1);
        let literals = places.filter_map(|rest| rest.trim_start().strip_prefix('"'));
        names.extend(literals.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
    }
    assert!(names.len() > 10, "{names:?}");
    (all, names)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_table_is_what_the_service_counts() {
    let mut documented = BTreeSet::new();
    for row in rows("docs/OPERATIONS.md", "## Metrics") {
        documented.extend(between(&row[0], "`", "`").into_iter().map(str::to_owned));
    }
    let (source, counted) = metrics_of_the_source();
    let missing: Vec<&String> = counted.difference(&documented).collect();
    assert!(missing.is_empty(), "the table lacks {missing:?}");
    let invented = documented.iter().filter(|name| !source.contains(&format!("\"{name}\"")));
    let invented: Vec<&String> = invented.collect();
    assert!(invented.is_empty(), "the table has {invented:?}, which nobody counts");
    let app = Setup::shared().start().await;
    app.open("w", "1.00").await;
    app.drain().await;
    let served = app.get("/metrics").await.text;
    let served = served.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let served: Vec<&str> = served.filter_map(|line| line.split(' ').next()).collect();
    assert!(served.len() > 5, "{served:?}");
    for name in served {
        assert!(documented.contains(name), "{name} is served and not in the table");
    }
}

// ------------------------------------------------------------------------ the comparison's own tests

#[test]
fn an_answer_that_differs_is_noticed() {
    let one = "01a1fdd4-fe13-71be-895e-fe6328cb7879";
    let two = "01a1fdd4-fe89-7690-b949-b500d4eab75b";
    let same = |documented: &str, actual: &str| Ids::default().answers(documented, actual);
    assert!(same(
        r#"{"a": "1.00", "at": "2026-01-01T00:00:00.000Z"}"#,
        r#"{"at":"2027-01-01T00:00:00.001Z","a":"1.00"}"#
    ));
    assert!(!same(r#"{"a": "1.00"}"#, r#"{"a":"1.01"}"#));
    assert!(!same(r#"{"a": 1}"#, r#"{"a":1,"b":2}"#));
    assert!(!same("HTTP/1.1 201 Created", "HTTP/1.1 200 OK"));
    assert!(same("x\n{\"lagMs\": 5}", "x\ndate: today\n{\"lagMs\":7}"));
    assert!(same(&format!("{one} {one}"), &format!("{two} {two}")));
    assert!(!same(&format!("{one} {one}"), &format!("{one} {two}")), "one id became two");
    assert!(!same(&format!("{one} {two}"), &format!("{one} {one}")), "two ids became one");
    assert!(!same("", "said something"));
}
