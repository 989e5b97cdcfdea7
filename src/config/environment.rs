//! The process's environment and `.env`. Both hold variables of other programs, and an editor may
//! have saved the file with a byte order mark.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::ErrorKind;

use super::error::{ConfigError, invalid};
use super::names::is_ours;

const FILE: &str = ".env";
const BYTE_ORDER_MARK: char = '\u{feff}';
/// In place of a $ that must stand for itself: letters, which the parser takes anywhere, and which no
/// file has.
const DOLLAR: &str = "zQ7dollar7Qz";
const UNREADABLE: &str = "the value cannot be read: quote it with ''";

/// The environment, over what `.env` in the working directory says.
#[allow(clippy::disallowed_methods, reason = "config is the one reader of the environment")]
pub(super) fn variables() -> Result<HashMap<String, String>, ConfigError> {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let mut variables = match std::fs::read(FILE) {
        Ok(bytes) => {
            text(bytes).and_then(|text| dot_env(&text, is_set)).map_err(ConfigError::DotEnv)?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => HashMap::new(),
        Err(error) => return Err(ConfigError::DotEnv(error.to_string())),
    };
    for (name, value) in std::env::vars_os() {
        // A name that is not UTF-8 is no setting's.
        let Ok(name) = name.into_string() else { continue };
        let value = readable(&name, value)?;
        variables.insert(name, value);
    }
    Ok(variables)
}

/// What is not UTF-8 is refused in a setting, and does not matter in any other variable.
fn readable(name: &str, value: OsString) -> Result<String, ConfigError> {
    match value.into_string() {
        Ok(value) => Ok(value),
        Err(value) if is_ours(name) => {
            Err(invalid(name, &value.to_string_lossy(), "it is not UTF-8: write it as UTF-8"))
        }
        Err(value) => Ok(value.to_string_lossy().into_owned()),
    }
}

/// A $ stands for a variable's value, and for nothing at all where there is no such variable: half a
/// password would be gone. That is refused, by name and without the value.
fn dot_env(text: &str, is_set: impl Fn(&str) -> bool) -> Result<HashMap<String, String>, String> {
    let mut variables = HashMap::new();
    let plain = pairs(&text.replace('$', DOLLAR).replace(&format!("\\{DOLLAR}"), "\\$"))?;
    for ((name, value), (_, plain)) in pairs(text)?.into_iter().zip(plain) {
        let known = |name: &str| is_set(name) || variables.contains_key(name);
        if value != plain.replace(DOLLAR, "$") && !plain.split(DOLLAR).skip(1).map(named).all(known)
        {
            return Err(format!("{name}: its $ names no variable that is set: quote it with ''"));
        }
        variables.insert(name, value);
    }
    Ok(variables)
}

/// The variable that what comes after a $ begins with.
fn named(rest: &str) -> &str {
    let rest = rest.strip_prefix('{').unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
}

/// The parser quotes what it cannot read, and a password may stand there: the error
/// names the line and the variable, and does not quote the rest.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let read = dotenvy::from_read_iter(text.as_bytes()).collect::<Result<_, dotenvy::Error>>();
    read.map_err(|error| match error {
        dotenvy::Error::LineParse(part, _) => {
            let part = part.lines().next().unwrap_or_default().to_owned();
            let found = text.lines().enumerate().find(|(_, line)| line.contains(&part));
            let Some((before, line)) = found else { return UNREADABLE.to_owned() };
            let line_number = before + 1;
            match line.split_once('=') {
                Some((name, _)) => format!("line {line_number}: {}: {UNREADABLE}", name.trim()),
                None => format!("line {line_number}: there is no = in it: write NAME=value"),
            }
        }
        other => other.to_string(),
    })
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
        let read = dot_env(&text(file).unwrap(), |_| false).unwrap();
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
        let error = text(b"A=1\nDATABASE_PASSWORD=canary\xff\n".to_vec()).unwrap_err();
        assert!(error.contains("line 2") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_and_not_shown() {
        for value in ["\"canary", "can ary", "can\\ary", "canary'", "canary=\""] {
            let file = format!("A=1\nKAFKA_SASL_PASSWORD={value}\n");
            let error = dot_env(&file, |_| false).unwrap_err();
            assert!(error.starts_with("line 2: KAFKA_SASL_PASSWORD: the value"), "{error}");
            assert!(!error.contains("ary"), "{error}");
        }
    }

    #[test]
    fn a_dollar_that_names_no_variable_is_refused_and_not_dropped() {
        let read = |value: &str| {
            let file = format!("HOST=::\nDATABASE_PASSWORD={value}\n");
            let read = dot_env(&file, |name| name == "HOME");
            read.map(|variables| variables.get("DATABASE_PASSWORD").cloned().unwrap_or_default())
        };
        for (value, wanted) in [
            ("'s3cr$et'", "s3cr$et"),
            ("s3cr\\$et", "s3cr$et"),
            ("\"s3cr\\$et\"", "s3cr$et"),
            ("$HOST-x", "::-x"),
            ("\"${HOST}x\"", "::x"),
        ] {
            assert_eq!(read(value), Ok(wanted.to_owned()), "{value}");
        }
        for value in ["s3cr$et", "\"s3cr$et\"", "a${nothing}b", "$HOST$nothing"] {
            let error = read(value).unwrap_err();
            assert!(error.contains("DATABASE_PASSWORD: "), "{value}: {error}");
            let hidden = error.ends_with("quote it with ''") && !error.contains("s3cr");
            assert!(hidden, "{value}: {error}");
        }
    }
}
