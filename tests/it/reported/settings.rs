//! Settings, command lines and compose files as their users write them.

mod containers;
mod environment;
mod names;
mod pipes;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary in a folder of its own, with nothing but these variables.
fn command(folder: &Path, variables: &[(&str, OsString)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wallex"));
    command.current_dir(folder).env_clear().stdin(Stdio::null());
    for (name, value) in variables {
        command.env(name, value);
    }
    command
}

/// `config check` there: whether it is content, and what it said.
fn checked(folder: &Path, variables: &[(&str, &str)]) -> (bool, String) {
    let variables: Vec<(&str, OsString)> =
        variables.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
    told(&command(folder, &variables).args(["config", "check"]).output().unwrap())
}

fn told(output: &Output) -> (bool, String) {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
