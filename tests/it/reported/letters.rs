//! What cannot be applied or is no command: parked, kept, shown and sent again.

mod commands;
mod events;
mod everybody;
mod writes;

use serde_json::Value;

use crate::support::app::App;

/// A command that succeeds, and the document that it prints.
fn dlq(app: &App, arguments: &[&str]) -> Value {
    let output = app.wallex(&[&["dlq"], arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}
