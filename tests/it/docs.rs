//! The documentation is true: every command in it is run against a real service and must give the
//! answer that stands below it; every relative link, anchor and path leads somewhere.
//!
//! Conventions, for README.md and docs/*.md (CONTRIBUTING.md explains them to writers):
//! - ```` ```console ````: lines after `$ ` are commands (a trailing `\` continues one), what follows
//!   is the answer. A document's commands run in order, against a service of its document's own.
//! - ```` ```sh ````: commands that no test can run. Each such block is named in `pages::NOT_RUN`, with
//!   the reason.
//! - ```` ```text ````: drawings, never a command or an answer.
//!
//! Ids, times, and numbers that vary by nature are compared by kind; an id that stands twice must be
//! the same both times, and one that a command names is replaced by the one that the service gave.
//! What depends on the moment alone (`compare::VARYING`) must be there, no more.
//! JSON is compared by value, so that documents may break its lines. What only reads is asked again
//! until it answers as documented, for a while: projections follow in milliseconds, not at once.
//!
//! `WALLEX_DOCS_WRITE=1 cargo test --test it docs` writes the answers into the documents.

mod compare;
mod layout;
mod pages;
mod runs;
mod tables;

use std::fs;
use std::path::Path;

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
