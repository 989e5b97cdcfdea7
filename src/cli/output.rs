//! What commands print. A reader that has seen enough (`| head`) ends the command without a word, as
//! it ends any other tool; std's macros would panic.

use std::fmt::Arguments;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

use serde::Serialize;

/// What a shell sees of a program that SIGPIPE ended.
const BROKEN_PIPE: i32 = 128 + 13;

/// In place of std's.
macro_rules! println {
    () => { $crate::cli::output::line(format_args!("")) };
    ($($text:tt)*) => { $crate::cli::output::line(format_args!($($text)*)) };
}

/// In place of std's: a reader that is gone is no reason to fail.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::cli::output::aside(format_args!($($text)*), "\n") };
}

/// In place of std's.
macro_rules! eprint {
    ($($text:tt)*) => { $crate::cli::output::aside(format_args!($($text)*), "") };
}

pub fn line(text: Arguments<'_>) {
    end_unless(writeln!(std::io::stdout(), "{text}"));
}

/// A whole document as it is.
pub fn write(document: &[u8]) {
    let mut output = std::io::stdout();
    end_unless(output.write_all(document).and_then(|()| output.flush()));
}

/// What a command found: as one JSON document, or as `text` tells it.
pub fn show<T: Serialize>(json: bool, found: &T, text: impl FnOnce(&T)) -> anyhow::Result<bool> {
    if json {
        line(format_args!("{}", serde_json::to_string_pretty(found)?));
    } else {
        text(found);
    }
    Ok(true)
}

pub fn aside(text: Arguments<'_>, end: &str) {
    let _ = write!(std::io::stderr(), "{text}{end}");
}

/// Asks at the terminal; fails where there is none. The standard output may be a document's alone.
pub fn confirmed(question: &str) -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "say --yes: there is no terminal to ask at");
    aside(format_args!("{question} [y/N] "), "");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Ends the process where nothing more can be printed.
fn end_unless(written: std::io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(BROKEN_PIPE),
        Err(error) => {
            aside(format_args!("wallex: the output cannot be written: {error}"), "\n");
            std::process::exit(1);
        }
    }
}
