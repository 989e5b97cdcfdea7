//! The process's environment and `.env`, as they are met: with variables of other programs, and
//! with files that an editor saved with a byte order mark.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::ErrorKind;

use super::names::{AROUND, SETTINGS};
use super::read::{ConfigError, invalid};

const FILE: &str = ".env";
const BYTE_ORDER_MARK: char = '\u{feff}';

impl From<dotenvy::Error> for ConfigError {
    /// The parser quotes the line that it cannot read, and a password may stand there: the name is
    /// told, the line is not.
    fn from(error: dotenvy::Error) -> Self {
        Self::DotEnv(match error {
            dotenvy::Error::LineParse(line, at) => {
                let name = line.split('=').next().unwrap_or_default().trim();
                format!("{name}: the value cannot be read at character {at}: quote it with ''")
            }
            other => other.to_string(),
        })
    }
}

/// The environment, over what `.env` in the working directory says.
#[allow(clippy::disallowed_methods, reason = "config is the one reader of the environment")]
pub(super) fn variables() -> Result<HashMap<String, String>, ConfigError> {
    let mut variables = match std::fs::read(FILE) {
        Ok(bytes) => dot_env(bytes)?,
        Err(error) if error.kind() == ErrorKind::NotFound => HashMap::new(),
        Err(error) => return Err(ConfigError::DotEnv(error.to_string())),
    };
    for (name, value) in std::env::vars_os() {
        // A name that is not UTF-8 is none of ours.
        let Ok(name) = name.into_string() else { continue };
        let value = readable(&name, value)?;
        variables.insert(name, value);
    }
    Ok(variables)
}

/// What is not UTF-8 is refused in a setting, and is nobody's business in any other variable.
fn readable(name: &str, value: OsString) -> Result<String, ConfigError> {
    let bare = name.strip_suffix("_FILE").unwrap_or(name);
    let ours = |setting: &&str| *setting == name || *setting == bare;
    let mut known = SETTINGS.iter().map(|setting| setting.name).chain(AROUND.iter().copied());
    match value.into_string() {
        Ok(value) => Ok(value),
        Err(value) if known.any(|setting| ours(&setting)) => {
            Err(invalid(name, &value.to_string_lossy(), "it is not UTF-8: write it as UTF-8"))
        }
        Err(value) => Ok(value.to_string_lossy().into_owned()),
    }
}

fn dot_env(bytes: Vec<u8>) -> Result<HashMap<String, String>, ConfigError> {
    let text = text(bytes).map_err(ConfigError::DotEnv)?;
    let mut variables = HashMap::new();
    for pair in dotenvy::from_read_iter(text.as_bytes()) {
        let (name, value) = pair?;
        variables.insert(name, value);
    }
    Ok(variables)
}

/// A file's text without the mark that editors put before it. The error names the line.
pub(super) fn text(bytes: Vec<u8>) -> Result<String, String> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8: save the file as UTF-8")
    })?;
    match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_byte_order_mark_and_ends_of_lines_of_another_system_are_no_part_of_a_value() {
        let file = "\u{feff}PORT=1\r\nDATABASE_PASSWORD='a b'\r\n".as_bytes().to_vec();
        let read = dot_env(file).unwrap();
        assert_eq!(read.get("PORT").map(String::as_str), Some("1"), "{read:?}");
        assert_eq!(read.get("DATABASE_PASSWORD").map(String::as_str), Some("a b"), "{read:?}");
    }

    #[test]
    fn what_is_not_utf_8_is_named_where_it_is_ours() {
        let value = || OsString::from_vec(b"canary\xff".to_vec());
        for name in ["DATABASE_PASSWORD", "DATABASE_PASSWORD_FILE", "KAFKA_BROKERS"] {
            let error = readable(name, value()).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains("UTF-8"), "{error}");
            assert_eq!(error.contains("canary"), name != "DATABASE_PASSWORD", "{error}");
        }
        assert!(readable("LESSOPEN", value()).is_ok());
        let error = dot_env(b"A=1\nDATABASE_PASSWORD=canary\xff\n".to_vec()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("line 2") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_and_not_shown() {
        let error = dot_env(b"KAFKA_SASL_PASSWORD=\"canary".to_vec()).unwrap_err().to_string();
        assert!(error.contains("KAFKA_SASL_PASSWORD") && !error.contains("canary"), "{error}");
    }
}
