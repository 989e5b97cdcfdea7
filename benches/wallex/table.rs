//! The table as text: for the terminal, and (as Markdown) for docs/PERFORMANCE.md.

use crate::reading::Line;
use crate::targets::{self, Found, targets};

const HEAD: &str = "| | line | per s | ± | × pgbench | × batched | p50 ms | p99 ms \
    | generator µs | service µs | PostgreSQL µs | Kafka µs | WAL B | errors | more |\n\
    |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n";

/// Conditions, lines, targets.
pub fn markdown(conditions: &[(String, String)], lines: &[Line]) -> String {
    let mut text = String::new();
    for (name, value) in conditions {
        text.push_str(&format!("- {name}: {value}\n"));
    }
    text.push('\n');
    text.push_str(HEAD);
    let found = Found(lines);
    for line in lines {
        text.push_str(&row(line, &found));
    }
    text.push_str("\n| target | wanted | aim | measured | |\n|---|--:|--:|--:|---|\n");
    for target in targets(&found) {
        let measured = target.measured.map(|value| format!("{} {}", short(value), target.unit));
        let verdict = match target.is_met() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "not measured",
        };
        let (name, wanted, aim) = (target.name, target.wanted, target.aim);
        let measured = measured.unwrap_or_default();
        text.push_str(&format!("| {name} | {wanted} | {aim} | {measured} | {verdict} |\n"));
    }
    text
}

/// What an event cost in PostgreSQL, for each line that was counted.
pub fn statements(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        if let Some(breakdown) = line.statements() {
            let (name, events) = (&line.name, short(breakdown.events));
            text.push_str(&format!("\n{name}: of one event, in {events}\n\n"));
            text.push_str(&breakdown.markdown());
        }
    }
    text
}

/// For the docs: the line that says what a credit costs in the long run.
pub fn of_one_credit(lines: &[Line]) -> String {
    let line = lines.iter().find(|line| line.name == targets::IN_STEP);
    line.and_then(Line::statements).map_or_else(String::new, |breakdown| {
        let name = targets::IN_STEP;
        format!("\nWhat an event costs in PostgreSQL ({name}):\n\n{}", breakdown.markdown())
    })
}

fn row(line: &Line, found: &Found<'_>) -> String {
    let (group, name) = (line.group, &line.name);
    if let Some(why) = line.missing() {
        return format!("| {group} | {name} | {why} |{}\n", " |".repeat(12));
    }
    let rate = line.rate().unwrap_or_default();
    let ceiling = match name.contains("one row") || name.contains("hot wallet") {
        true => found.pgbench_one_row(),
        false => found.pgbench(),
    };
    // Reads and memory have no ceiling to be held against.
    let writes = matches!(group, 'a' | 'b' | 'c' | 'h');
    let times = |ceiling: Option<f64>| match ceiling {
        Some(ceiling) if writes && ceiling > 0.0 => format!("{:.2}", rate / ceiling),
        _ => String::new(),
    };
    let cell = |value: Option<f64>| value.map(short).unwrap_or_default();
    let spread = line.spread().map(|share| format!("{:.0} %", share * 100.0));
    let notes = line.notes().into_iter().filter_map(|note| {
        line.note(note).filter(|value| value.is_finite()).map(|v| format!("{note}: {}", short(v)))
    });
    let cells = [
        group.to_string(),
        name.clone(),
        short(rate),
        spread.unwrap_or_default(),
        times(ceiling),
        times(found.batched_100()),
        cell(line.median(|reading| reading.p50_ms)),
        cell(line.median(|reading| reading.p99_ms)),
        cell(line.cost(|cost| cost.generator_us)),
        cell(line.cost(|cost| cost.service_us)),
        cell(line.cost(|cost| cost.postgres_us)),
        cell(line.cost(|cost| cost.kafka_us)),
        cell(line.cost(|cost| cost.wal_bytes)),
        line.errors().to_string(),
        notes.collect::<Vec<_>>().join(", "),
    ];
    format!("| {} |\n", cells.join(" | "))
}

/// Three significant digits or so; thousands with commas.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => grouped(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let count = digits.len();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (count - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The same table with its columns under each other, for a terminal.
pub fn aligned(markdown: &str) -> String {
    let mut text = String::new();
    let mut block: Vec<Vec<&str>> = Vec::new();
    for line in markdown.lines().chain([""]) {
        if let Some(cells) = line.strip_prefix("| ").or(line.strip_prefix("|")) {
            if !line.starts_with("|---") {
                block.push(cells.trim_end_matches('|').split('|').map(str::trim).collect());
            }
            continue;
        }
        text.push_str(&columns(&block));
        block.clear();
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn columns(rows: &[Vec<&str>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
