//! The rooms keep their rules: reads `src/` and fails where one uses what it may not.

use std::fs;
use std::path::{Path, PathBuf};

/// Every source file below `src/`, with its path from there.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let mut sources: Vec<(String, String)> = files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    sources.sort();
    assert!(sources.len() > 40, "only {} files found", sources.len());
    sources
}

/// The room of a file: its first folder, or its name.
fn room(name: &str) -> &str {
    name.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The code of a file: without comments and without its unit tests.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether `code` names `word` as a whole path segment.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let boundary = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        boundary(before) && boundary(code[at + word.len()..].chars().next())
    })
}

#[test]
fn each_room_uses_only_what_it_may() {
    // A word, and the rooms that may say it.
    let rules: [(&str, &[&str]); 20] = [
        ("sqlx", &["store"]),
        ("rskafka", &["kafka", "telemetry"]),
        ("krafka", &["kafka", "telemetry"]),
        ("axum", &["http"]),
        ("crate::http", &["http", "app"]),
        ("crate::app", &["cli"]),
        ("crate::cli", &["cli", "main"]),
        (
            "crate::background",
            &[
                "background",
                "dead_letters",
                "group_offsets",
                "inbound",
                "partitions",
                "projector",
                "publisher",
                "republisher",
                "retention",
                "sweeper",
                "app",
            ],
        ),
        ("crate::publisher", &["publisher", "app"]),
        ("crate::republisher", &["app", "cli", "http"]),
        ("crate::retention", &["app"]),
        ("crate::partitions", &["app"]),
        ("crate::sweeper", &["app"]),
        ("crate::execute", &["execute", "http", "inbound", "sweeper", "app"]),
        ("crate::inbound", &["app"]),
        ("crate::dead_letters", &["dead_letters", "app"]),
        ("crate::group_offsets", &["app"]),
        ("crate::registry", &["app", "cli", "registry"]),
        ("crate::topics", &["app", "cli", "http", "topics"]),
        (
            "crate::kafka",
            &[
                "dead_letters",
                "group_offsets",
                "inbound",
                "publisher",
                "projector",
                "topics",
                "app",
                "cli",
            ],
        ),
    ];
    let mut broken = Vec::new();
    for (name, text) in sources() {
        let code = code(&text);
        for (word, rooms) in rules {
            if names(&code, word) && !rooms.contains(&room(&name)) {
                broken.push(format!("{name} must not use {word}; only {rooms:?} may"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn pure_rooms_know_neither_time_nor_chance_nor_io() {
    let banned = [
        "async",
        "await",
        "tokio",
        "Utc::now",
        "Instant",
        "SystemTime",
        "now_v7",
        "new_v4",
        "rand",
        "std::fs",
        "std::env",
        "std::net",
        "crate::store",
        "crate::config",
        "metrics",
        "tracing",
    ];
    let mut broken = Vec::new();
    for (name, text) in sources() {
        let pure = ["wallet", "ledger", "envelope", "answer", "request", "schemas", "status"];
        if !pure.contains(&room(&name)) {
            continue;
        }
        let code = code(&text);
        for word in banned {
            if names(&code, word) {
                broken.push(format!("{name} is pure and must not use {word}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_the_store_and_the_kafka_room_are_apart_from_each_other() {
    for (name, text) in sources() {
        let code = code(&text);
        match room(&name) {
            "store" => assert!(!names(&code, "crate::kafka"), "{name} must not know Kafka"),
            "kafka" => assert!(!names(&code, "crate::store"), "{name} must not know Postgres"),
            _ => {}
        }
    }
}

#[test]
fn files_are_short_begin_with_their_purpose_and_leave_nothing_for_later() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        if !text.starts_with("//!") {
            broken.push(format!("{name} does not say what it is for"));
        }
        let lines = code(&text).lines().count();
        if lines > 400 {
            broken.push(format!("{name} has {lines} lines of code: is it still one thing?"));
        }
        for mark in ["TODO", "FIXME", "todo!", "unimplemented!", "dbg!"] {
            if text.contains(mark) {
                broken.push(format!("{name} has a {mark}"));
            }
        }
        if ["utils", "common", "helpers", "mod.rs"].iter().any(|word| name.contains(word)) {
            broken.push(format!("{name} has a name that says nothing"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_migration_has_a_number_of_its_own_and_says_why() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(fs::read_to_string(&path).unwrap().starts_with("--"), "{name} says no reason");
        numbers.push(name.split('_').next().unwrap().parse::<u32>().unwrap());
    }
    numbers.sort_unstable();
    let wanted: Vec<u32> = (1..).take(numbers.len()).collect();
    assert_eq!(numbers, wanted, "migrations are numbered 1..n");
}

/// CONTRIBUTING.md leads from each room to its tests, and they are there.
#[test]
fn every_room_has_tests_that_can_be_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let table = text.split("## Which tests belong to which room").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let mut rooms = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| `src/")) {
        let paths: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        let (of, tests): (Vec<&str>, Vec<&str>) =
            paths.into_iter().partition(|path| path.starts_with("src/"));
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            assert!(root.join(test).is_file(), "{test} is not there");
        }
        rooms.extend(of.into_iter().map(|path| room(path.trim_start_matches("src/")).to_owned()));
    }
    let sources = sources();
    let mut wanted: Vec<&str> = sources.iter().map(|(name, _)| room(name)).collect();
    wanted.retain(|room| !["lib", "main"].contains(room));
    wanted.dedup();
    let missing: Vec<_> = wanted.iter().filter(|room| !rooms.iter().any(|r| r == *room)).collect();
    assert!(missing.is_empty(), "CONTRIBUTING.md names no tests of {missing:?}");
    let gone: Vec<_> = rooms.iter().filter(|r| !wanted.contains(&r.as_str())).collect();
    assert!(gone.is_empty(), "CONTRIBUTING.md names rooms that are gone: {gone:?}");
}

/// The build before works on a schema that only adds to its own; what it uses and loses, it must be told.
#[test]
fn migrations_that_take_away_say_which_builds_can_still_work() {
    const TELLS: &str = "schema_compatibility";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut silent = Vec::new();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let texts = files.iter().map(|path| (path, fs::read_to_string(path).unwrap().to_lowercase()));
    for (path, text) in texts.skip_while(|(_, text)| !text.contains(TELLS)) {
        let takes = ["drop table", "drop column", "drop view", "rename ", "alter column"];
        if takes.iter().any(|what| text.contains(what)) && !text.contains(TELLS) {
            silent.push(path.clone());
        }
    }
    assert!(silent.is_empty(), "{silent:?} take away, and do not set {TELLS}.min_build");
}
