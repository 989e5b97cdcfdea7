//! The documents' tables of routes, settings, commands and metrics are what the service has.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use wallex::config::{self, KafkaSettings, Overrides, SETTINGS};
use wallex::projector::Projection;
use wallex::status::COMMANDS;

use super::{between, root, text_of};
use crate::support::app::Setup;

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

fn defaults() -> KafkaSettings {
    config::load_from(&HashMap::new(), &Overrides::new()).unwrap().0.kafka
}

#[test]
fn the_tables_of_topics_are_the_services_own() {
    let mut documented = BTreeSet::new();
    for document in ["docs/EVENTS.md", "docs/COMMANDS.md"] {
        for row in rows(document, "## The topics") {
            let number = |cell: &str| cell.split(' ').next().unwrap().to_owned();
            let mut stem = "";
            for name in between(&row[0], "`", "`") {
                // `.5min` behind `wallet-commands.retry.1min`
                let name = match name.starts_with('.') {
                    true => format!("{stem}{name}"),
                    false => {
                        stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
                        name.to_owned()
                    }
                };
                documented.insert((name, number(&row[1]), number(&row[2])));
            }
        }
    }
    let settings = defaults();
    let own = settings.own_topics().map(|own| {
        let (partitions, days) = (own.partitions(&settings), own.retention_days(&settings));
        (own.name(&settings), partitions.to_string(), days.to_string())
    });
    assert_eq!(documented, own.collect());
}

/// Wherever an operator reads which rights the service needs, each topic and each consumer group is named.
#[test]
fn every_topic_and_group_has_its_rights() {
    let settings = defaults();
    let example = text_of("docker-compose.prod.yml");
    let granted: Vec<Vec<&str>> = example
        .lines()
        .filter_map(|line| line.trim().strip_prefix("acls --"))
        .map(|rights| rights.split(' ').collect())
        .collect();
    let prefixes = |kind: &str| -> Vec<&str> {
        granted.iter().filter(|rights| rights[0] == kind).map(|rights| rights[1]).collect()
    };
    let document = rows("docs/OPERATIONS.md", "## Kafka security");
    let named = |kind: &str| -> Vec<&str> {
        let rows = document.iter().filter(|row| row[0].starts_with(kind));
        rows.flat_map(|row| between(&row[0], "`", "`")).collect()
    };
    let mut missing = Vec::new();
    for own in settings.own_topics() {
        let (topic, setting) = (own.name(&settings), own.setting.unwrap());
        if !prefixes("topic").iter().any(|prefix| topic.starts_with(prefix)) {
            missing.push(format!("docker-compose.prod.yml: {topic}"));
        }
        for name in [setting, own.suffix].into_iter().filter(|name| !name.is_empty()) {
            if !named("topics: ").contains(&name) {
                missing.push(format!("docs/OPERATIONS.md: {name} among the topics"));
            }
        }
    }
    let groups = Projection::ALL.iter().map(|projection| projection.name()).chain([COMMANDS]);
    let groups: Vec<&str> = groups.collect();
    assert_eq!(prefixes("group").iter().collect::<BTreeSet<_>>(), groups.iter().collect());
    for group in groups {
        if !named("groups: ").contains(&group) {
            missing.push(format!("docs/OPERATIONS.md: {group} among the groups"));
        }
    }
    assert!(missing.is_empty(), "no rights named:\n{}", missing.join("\n"));
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
