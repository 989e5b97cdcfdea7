//! Row "settings": values and names that other services take, and that were dropped here in silence.

use std::time::Duration;

use super::checked;
use crate::support::app::Setup;
use crate::support::eventually;

#[test]
fn what_would_be_off_in_silence_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value, hint) in [
        ("LOG_LEVEL", "verbose", "use off, error, warn, info, debug or trace"),
        ("LOG_LEVEL", "wallex=loud", "use off, error, warn, info, debug or trace"),
        ("AUTH_MODE", "required", "use off, the only mode there is"),
        ("PRODUCER_ACKS", "1", "use all or -1"),
        ("KAFKA_ENABLED", "yes", "use true"),
    ] {
        let (fine, said) = checked(folder.path(), &[(name, value)]);
        let wanted = format!("wallex: {name}={value}: ");
        assert!(!fine && said.starts_with(&wanted) && said.contains(hint), "{said}");
    }
    for (name, value) in [("PRODUCER_ACKS", "-1"), ("AUTH_MODE", "off"), ("LOG_LEVEL", "WARN")] {
        let (fine, said) = checked(folder.path(), &[(name, value)]);
        assert!(fine && said == "the settings are usable\n", "{name}={value}: {said}");
    }
    let (fine, said) = checked(folder.path(), &[("KAFKA_BROKER", "a:1")]);
    assert!(fine && said.contains("KAFKA_BROKER is no setting; the nearest is KAFKA_BROKERS"));
}

#[test]
fn an_unknown_key_of_the_settings_file_is_refused_with_the_nearest_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wallex.toml");
    for (text, hint) in [
        (
            "port = 1\nkafka_broker = \"a:1\"\n",
            "wallex.toml: line 2: kafka_broker is no setting; the nearest is kafka_brokers",
        ),
        ("[kafka]\nbrokers = \"a:1\"\n", "wallex.toml: line 1: kafka is no setting"),
        ("database_pasword = \"canary\"\n", "the nearest is database_password"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (fine, said) = checked(folder.path(), &[]);
        assert!(!fine && said.contains(hint) && !said.contains("canary"), "{said}");
    }
    std::fs::write(&file, "kafka_brokers = [\"a:1\", \"b:1\"]\nport = 1\n").unwrap();
    assert!(checked(folder.path(), &[]).0);
}

/// A prefix without an end of its own, three partitions, and variables of other services, as one
/// deployment had them.
#[tokio::test(flavor = "multi_thread")]
async fn groups_partitions_and_names_of_earlier_services_are_as_their_users_expect() {
    let mut app = Setup::shared()
        .with_commands()
        .with("CONSUMER_GROUP_ID", "caas-consumer-group")
        .with("DEFAULT_PARTITIONS", 3)
        .with("REDIS_HOST", "redis")
        .with("KURRENTDB_URL", "esdb://kurrentdb:2113")
        .with("RABBITMQ_URL", "amqp://guest:canary@rabbitmq:5672")
        .start()
        .await;
    let health = app.get("/health/kafka").await.json();
    let groups: Vec<&String> = health["consumers"].as_object().unwrap().keys().collect();
    let wanted = ["ledger-projector", "read-model-projector", "wallex-commands"];
    let wanted = wanted.map(|name| format!("caas-consumer-group-{name}"));
    assert_eq!(groups, wanted.iter().collect::<Vec<_>>());

    app.open("few", "1.00").await;
    let commands = app.variable("KAFKA_COMMANDS_TOPIC").to_owned();
    let results = app.variable("KAFKA_COMMAND_RESULTS_TOPIC").to_owned();
    eventually("the topics are there", Duration::from_secs(60), async || {
        let listed = app.wallex(&["topics", "list"]);
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        [&commands, &results]
            .iter()
            .all(|topic| listed.contains(&format!("{topic}: 3 partitions")))
            .then_some(())
    })
    .await;

    let told = |log: &str| {
        let of_interest = log.lines().filter(|line| line.contains("have no effect"));
        of_interest.map(str::to_owned).collect::<Vec<_>>()
    };
    let log = app.log_text();
    let lines = told(&log);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("KURRENTDB_URL, RABBITMQ_URL, REDIS_HOST"), "{lines:?}");
    assert!(lines[0].contains("INFO") && !log.contains("canary"), "{lines:?}");
    assert!(app.stop().success());
}
