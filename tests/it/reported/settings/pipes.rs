//! Row "pipes": a reader that has seen enough, `| head`, ends a command without a word.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use super::command;
use crate::support::app::Setup;

/// Runs it with an output that nobody reads: what it says on the error output, and its exit status.
fn unread(variables: &[(&str, OsString)], arguments: &[&str]) -> (String, i32) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command(Path::new("/"), variables);
    let output = command.args(arguments).stdout(Stdio::from(writer)).output().unwrap();
    let status = output.status;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap();
    (String::from_utf8_lossy(&output.stderr).into_owned(), code)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_prints_ends_quietly_when_nobody_reads() {
    let app = Setup::shared().start().await;
    app.open("pipe", "1.00").await;
    app.drain().await;
    let names = [
        "PORT",
        "DATABASE_URL",
        "KAFKA_ENABLED",
        "KAFKA_BROKERS",
        "KAFKA_EVENTS_TOPIC",
        "KAFKA_DLQ_TOPIC",
        "CONSUMER_COMMANDS_ENABLED",
        "CONSUMER_GROUP_ID",
    ];
    let variables = names.map(|name| (name, OsString::from(app.variable(name))));
    for line in [
        "migrate",
        "reconcile",
        "reconcile --json",
        "outbox status",
        "outbox status --json",
        "outbox retry --all --dry-run",
        "outbox republish --all --dry-run",
        "projections status",
        "projections status --json",
        "projections rebuild ledger --dry-run",
        "dlq list",
        "dlq list --json",
        "topics list",
        "topics list --json",
        "topics ensure --dry-run",
        "topics recommend --rate 10 --keys 10",
        "schemas list",
        "verify-kafka",
        "config print",
        "config print --json",
        "config check",
        "completions bash",
        "completions zsh",
        "openapi",
        "asyncapi",
        "healthcheck",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (said, status) = unread(&variables, &arguments);
        assert_eq!((said.as_str(), status), ("", 141), "{line}");
    }
    for line in ["--help", "--version", "outbox --help"] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (said, status) = unread(&variables, &arguments);
        assert_eq!(said, "", "{line}: {status}");
    }
}

/// A service whose log nobody takes any more goes on serving.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_goes_on_when_nobody_reads_its_log() {
    let mut app = Setup::without_kafka().start().await;
    app.kill(nix::sys::signal::Signal::SIGKILL);
    let names = ["HOST", "PORT", "DATABASE_URL", "KAFKA_ENABLED", "LOG_LEVEL"];
    let variables = names.map(|name| (name, OsString::from(app.variable(name))));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut serve = command(Path::new("/"), &variables);
    let serve = serve.arg("serve").stdout(Stdio::null()).stderr(Stdio::from(writer));
    let mut child = serve.spawn().unwrap();
    app.ready().await;
    app.open("quiet", "1.00").await;
    assert_eq!(child.try_wait().unwrap(), None, "it still runs");
    child.kill().unwrap();
    child.wait().unwrap();
}
