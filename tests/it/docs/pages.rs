//! Every block is run or says why not; every link, anchor and path leads somewhere.

use std::fs;
use std::path::PathBuf;

use super::{between, blocks, documents, root, text_of};

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
