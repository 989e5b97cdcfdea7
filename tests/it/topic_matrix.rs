//! Topics that a file declares: created, listed, compared, shown as unwell, deleted, by the same
//! commands, routes and pages as the service's own. A bad file is refused before anything starts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{App, Setup};
use crate::support::eventually;
use crate::support::servers::kafka_tool_said as tool;

const PATIENCE: Duration = Duration::from_secs(60);
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";

/// What a command says, and whether it ended well.
fn said(app: &App, arguments: &[&str]) -> (bool, String) {
    let output = tokio::task::block_in_place(|| app.wallex(arguments));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

fn done(app: &App, arguments: &[&str]) -> String {
    let (fine, text) = said(app, arguments);
    assert!(fine, "{text}");
    text
}

/// Names that no other test has, and a file of theirs.
struct Matrix {
    prefix: String,
    path: PathBuf,
}

impl Matrix {
    fn new(text: impl FnOnce(&str) -> String) -> Self {
        let prefix = format!("m{}", uuid::Uuid::now_v7().simple());
        let path = std::env::temp_dir().join(format!("{prefix}.toml"));
        std::fs::write(&path, text(&prefix)).unwrap();
        Self { prefix, path }
    }

    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Twenty topics: sixteen by name, and a set with one for each of four tenants.
fn twenty(prefix: &str) -> String {
    let mut text = String::from("# what the platform around the service uses\n");
    for number in 1..=13 {
        let partitions = 1 + number % 4;
        write!(
            text,
            "[[topic]]\nname = \"{prefix}.n{number}\"\npartitions = {partitions}\n\
             retention = \"{number}d\"\nkey = \"tenant\"\n"
        )
        .unwrap();
    }
    write!(
        text,
        "[[topic]]\nname = \"{prefix}.events\"\ncleanup = \"compact\"\nkey = \"wallet\"\n\
         [[topic]]\nname = \"{prefix}.state\"\ncleanup = \"compact\"\nretention = \"forever\"\n\
         [[topic]]\nname = \"{prefix}.small\"\nmax_message_bytes = 1000\npartitions = 1\n\
         [[topic]]\nname = \"{prefix}.of.{{tenant}}\"\ntenants = [\"a\", \"b\", \"c\", \"d\"]\n\
         partitions = 2\n"
    )
    .unwrap();
    text
}

/// Waits until the health page counts so many of its topics under each word.
async fn counted(app: &App, wanted: Value) -> Value {
    eventually(&format!("topics {wanted}"), PATIENCE, async || {
        let stats = app.get("/health/kafka/stats").await.json();
        (stats["topics"] == wanted).then_some(stats)
    })
    .await
}

/// Waits until the broker shows the topic: right after its creation it may not know it yet.
async fn there(app: &App, name: &str) {
    eventually(&format!("{name} is there"), PATIENCE, async || {
        let view = app.get(&format!("/admin/topics/{name}")).await.json();
        (view["exists"] == true).then_some(())
    })
    .await;
}

fn counts(wanted: usize, missing: usize, drifted: usize) -> Value {
    json!({
        "wanted": wanted, "missing": missing, "offline": 0, "underReplicated": 0, "drifted": drifted,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_topics_are_made_drift_and_are_reported() {
    let matrix = Matrix::new(twenty);
    let app = Setup::shared().with("KAFKA_TOPICS_FILE", matrix.path.display()).start().await;
    app.open("w", "1.00").await;
    app.drain().await;
    counted(&app, counts(22, 20, 0)).await;
    let dry = done(&app, &["topics", "ensure", "--dry-run"]);
    assert_eq!(dry.matches(" would be created\n").count(), 20, "{dry}");
    let warned = format!("warning: {}: compact keeps only the last event", matrix.name("events"));
    assert!(dry.contains(&warned) && dry.matches("warning:").count() == 1, "{dry}");
    done(&app, &["topics", "ensure"]);
    assert!(done(&app, &["topics", "ensure"]).contains("all topics are there"));
    counted(&app, counts(22, 0, 0)).await;
    let seen = tool(TOPICS, &["--describe", "--topic", &matrix.name("n3")]);
    for wanted in ["PartitionCount: 4", "retention.ms=259200000", "max.message.bytes=10485760"] {
        assert!(seen.contains(wanted), "{wanted}: {seen}");
    }
    let seen = tool(TOPICS, &["--describe", "--topic", &matrix.name("state")]);
    assert!(seen.contains("cleanup.policy=compact") && seen.contains("retention.ms=-1"), "{seen}");

    let listed: Value = serde_json::from_str(&done(&app, &["topics", "list", "--json"])).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!((listed.len(), listed.iter().filter(|t| t["declared"] == true).count()), (22, 20));
    let of_b = listed.iter().find(|topic| topic["name"] == matrix.name("of.b")).unwrap();
    assert_eq!((&of_b["tenant"], &of_b["key"]), (&json!("b"), &json!("random")), "{of_b}");
    assert_eq!(app.get("/admin/topics").await.json().as_array(), Some(listed));
    let one = app.get(&format!("/admin/topics/{}", matrix.name("n1"))).await.json();
    assert_eq!((&one["exists"], &one["key"]), (&json!(true), &json!("tenant")), "{one}");

    // Four of them are changed by somebody else, and one is deleted.
    let alter = |name: &str, config: &str| {
        tool(CONFIGS, &["--alter", "--topic", &matrix.name(name), "--add-config", config]);
    };
    alter("n1", "retention.ms=1000");
    alter("events", "cleanup.policy=delete");
    alter("small", "max.message.bytes=2000");
    tool(TOPICS, &["--alter", "--topic", &matrix.name("of.c"), "--partitions", "5"]);
    tool(TOPICS, &["--delete", "--topic", &matrix.name("n2")]);
    let stats = counted(&app, counts(22, 1, 4)).await;
    let states = stats["topicStates"].as_array().unwrap();
    let differing: BTreeSet<(String, String)> = states
        .iter()
        .filter(|topic| topic["drift"] != json!([]))
        .map(|topic| (topic["name"].as_str().unwrap().to_owned(), topic["drift"].to_string()))
        .collect();
    let expected = [
        ("n1", "[\"retention.ms\"]"),
        ("events", "[\"cleanup.policy\"]"),
        ("small", "[\"max.message.bytes\"]"),
        ("of.c", "[\"partitions\"]"),
    ];
    let expected = expected.map(|(name, what)| (matrix.name(name), what.to_owned()));
    assert_eq!(differing, BTreeSet::from(expected));
    let missing: Vec<&Value> = states.iter().filter(|topic| topic["exists"] == false).collect();
    assert!(missing.len() == 1 && missing[0]["name"] == matrix.name("n2"), "{missing:?}");
    let shown = app.get("/health/kafka").await.json();
    assert_eq!((&shown["topics"]["drifted"], &shown["status"]), (&json!(4), &json!("healthy")));
    let metrics = app.get("/metrics").await.text;
    for line in ["kafka_topics_drifted 4", "kafka_topics_missing 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    let told = done(&app, &["topics", "ensure", "--dry-run"]);
    for line in [
        format!("{} would be created\n", matrix.name("n2")),
        format!("{}: retention.ms is 1000, the settings say 86400000\n", matrix.name("n1")),
        format!("{}: cleanup.policy is delete, the settings say compact\n", matrix.name("events")),
        format!("{}: max.message.bytes is 2000, the settings say 1000\n", matrix.name("small")),
        format!("{}: partitions is 5, the settings say 2\n", matrix.name("of.c")),
    ] {
        assert!(told.contains(&line), "{line}: {told}");
    }
    println!("22 topics: 4 drifted, 1 missing, all named; nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_topics_go_by_name_and_with_their_tenant_and_no_others_do() {
    let matrix = Matrix::new(|prefix| {
        format!(
            "[[topic]]\nname = \"{prefix}.one\"\npartitions = 1\n\
             [[topic]]\nname = \"{prefix}.{{tenant}}.x\"\ntenants = [\"acme\"]\npartitions = 1\n"
        )
    });
    let app = Setup::shared().with("KAFKA_TOPICS_FILE", matrix.path.display()).start().await;
    app.open("w", "1.00").await;
    app.drain().await;
    let (one, of_acme, of_new) =
        (matrix.name("one"), matrix.name("acme.x"), matrix.name("newcomer.x"));
    done(&app, &["topics", "ensure"]);
    let listed = || done(&app, &["topics", "list"]);
    there(&app, &one).await;
    there(&app, &of_acme).await;

    assert!(!said(&app, &["topics", "delete", &one]).0, "there is nobody to ask");
    assert!(done(&app, &["topics", "delete", &one, "--dry-run"]).contains("would be deleted"));
    let gone = done(&app, &["topics", "delete", &one, "--yes"]);
    assert!(gone.starts_with(&format!("{one} deleted\n")) && gone.contains("makes it again"));
    eventually("it is gone", PATIENCE, async || {
        (!tool(TOPICS, &["--list"]).lines().any(|line| line == one)).then_some(())
    })
    .await;
    assert!(done(&app, &["topics", "delete", &one, "--yes"]).contains("none of them is there"));
    assert!(done(&app, &["topics", "ensure"]).contains(&format!("{one} created\n")));
    there(&app, &one).await;
    let gone = app.post("/admin/topics/delete", json!({"name": one})).await;
    assert_eq!((gone.status, &gone.json()["deleted"]), (200, &json!([one])), "{}", gone.text);

    for own in [app.topic.clone(), format!("{}-dlq", app.topic)] {
        let (deleted, told) = said(&app, &["topics", "delete", &own, "--yes"]);
        assert!(!deleted && told.contains("the service's own"), "{told}");
        let refused = app.post("/admin/topics/delete", json!({"name": own})).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_value"));
    }
    let unknown = app.post("/admin/topics/delete", json!({"name": "none"})).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "topic_not_found"));
    assert!(!said(&app, &["topics", "delete", "none", "--yes"]).0);

    // A tenant that the file does not name has the sets' topics as well.
    let made = done(&app, &["topics", "create-tenant", "newcomer"]);
    assert!(made.contains(&format!("{of_new} created\n")), "{made}");
    there(&app, &of_new).await;
    let (own, _) = said(&app, &["topics", "delete", &format!("{}.newcomer", app.topic), "--yes"]);
    assert!(!own, "a tenant's events go with the tenant alone");
    let gone = done(&app, &["topics", "delete-tenant", "newcomer", "--yes"]);
    assert!(gone.contains(&format!("{of_new} deleted\n")) && !gone.contains("warning"), "{gone}");
    assert!(!listed().contains("newcomer"));
    let gone = done(&app, &["topics", "delete-tenant", "acme", "--yes"]);
    let warned = format!("acme still stands in KAFKA_TOPICS_FILE ({}.{{tenant}}.x)", matrix.prefix);
    assert!(gone.contains(&format!("{of_acme} deleted\n")) && gone.contains(&warned), "{gone}");
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_refused_before_anything_starts() {
    let matrix = Matrix::new(|prefix| {
        format!(
            "[[topic]]\nname = \"{prefix}.one\"\n\n[[topic]]\nname = \"{prefix}.two\"\npartitions = 0\n"
        )
    });
    let mut app = Setup::without_kafka().start().await;
    app.kill(nix::sys::signal::Signal::SIGKILL);
    app.set("KAFKA_TOPICS_FILE", matrix.path.display());
    for command in [&["serve"][..], &["config", "check"], &["topics", "list"]] {
        let (fine, told) = said(&app, command);
        assert!(!fine, "{told}");
        let two = matrix.name("two");
        for part in ["KAFKA_TOPICS_FILE=", "line 4: ", &two, "partitions 0: use a whole number"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}

/// The example is a file that the service takes, and shows every field that there is.
#[test]
fn the_example_is_taken_and_complete() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/topics.example.toml");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_wallex"))
        .args(["config", "check"])
        .env_clear()
        .env("KAFKA_TOPICS_FILE", &path)
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(path).unwrap();
    for field in
        ["name", "tenants", "partitions", "retention", "cleanup", "max_message_bytes", "key"]
    {
        assert!(text.lines().any(|line| line.starts_with(&format!("{field} = "))), "{field}");
    }
    for name in ["platform.events", "platform.notifications", "internal.dlq", "platform.audit"] {
        assert!(text.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
