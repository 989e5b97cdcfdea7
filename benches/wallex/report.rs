//! What stays of a run: the readings as JSON, the table in the docs.

use std::path::Path;

use anyhow::Context;
use serde_json::json;

use crate::reading::Line;
use crate::targets::{Found, targets};

/// All readings, with the conditions they were taken in.
pub fn write_json(
    file: &Path,
    conditions: &[(String, String)],
    lines: &[Line],
) -> anyhow::Result<()> {
    let targets: Vec<_> = targets(&Found(lines))
        .into_iter()
        .map(|target| json!({"target": target, "met": target.is_met()}))
        .collect();
    let rates: Vec<_> =
        lines.iter().map(|line| json!({"line": line, "median": line.rate()})).collect();
    let report = json!({"conditions": conditions, "lines": rates, "targets": targets});
    let text = serde_json::to_string_pretty(&report)?;
    std::fs::write(file, text + "\n").with_context(|| file.display().to_string())
}

/// Puts the table between the marks of the page.
pub fn write_docs(page: &Path, markdown: &str) -> anyhow::Result<()> {
    write_section(page, "bench", markdown)
}

/// Puts a table between the marks of this name.
pub fn write_section(page: &Path, name: &str, markdown: &str) -> anyhow::Result<()> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let text = std::fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let marks = || format!("{} has no {} … {end}", page.display(), begin.trim());
    let (before, rest) = text.split_once(begin.as_str()).with_context(marks)?;
    let (_, after) = rest.split_once(end.as_str()).with_context(marks)?;
    Ok(std::fs::write(page, format!("{before}{begin}{markdown}{end}{after}"))?)
}
