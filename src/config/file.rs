//! The settings file: TOML, with the settings' names in lower case as its keys. A key that is no
//! setting is refused: it would have no effect, and its author would not notice.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use toml::{Spanned, Value};

use super::environment;
use super::error::ConfigError;
use super::names::{is_setting, no_setting};

/// Where a settings file is looked for unless `WALLEX_CONFIG` names one.
const DEFAULT: &str = "wallex.toml";

/// The file's values by the settings' names; `NAME_FILE` may be among them.
pub(super) fn read(
    variables: &HashMap<String, String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let path = match variables.get("WALLEX_CONFIG").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None if Path::new(DEFAULT).exists() => PathBuf::from(DEFAULT),
        None => return Ok(BTreeMap::new()),
    };
    let refused = |problem: String| ConfigError::Source(format!("{}: {problem}", path.display()));
    let bytes = std::fs::read(&path).map_err(|error| refused(error.to_string()))?;
    environment::text(bytes).and_then(|text| parse(&text)).map_err(refused)
}

/// The parser's message may quote what it cannot read, and a password may stand there: the error
/// names the place and does not quote the line.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let line = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
    let table: BTreeMap<Spanned<String>, Value> = toml::from_str(text).map_err(|error| {
        let place =
            error.span().map_or_else(String::new, |at| format!("line {}: ", line(at.start)));
        format!("{place}{}", error.message())
    })?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let (line, key) = (line(key.span().start), key.get_ref());
        let refused = |problem: &str| format!("line {line}: {key} {problem}");
        let name = key.to_uppercase();
        if !is_setting(&name) {
            return Err(format!("line {line}: {}", no_setting(key)));
        }
        let value = plain(&value).ok_or_else(|| refused("must be a text, a number or a list"))?;
        if values.insert(name, value).is_some() {
            return Err(refused("stands twice, in capitals and in small letters"));
        }
    }
    Ok(values)
}

/// As the variable of that name would say it.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(plain).collect();
            items.map(|items| items.join(","))
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_plain_form_are_read_in_either_case() {
        let text = "port = 1\nKAFKA_ENABLED = false\nkafka_brokers = [\"a:1\", \"b:2\"]\n\
                    database_password_file = \"/run/secret\"\n";
        let wanted = [
            ("DATABASE_PASSWORD_FILE", "/run/secret"),
            ("KAFKA_BROKERS", "a:1,b:2"),
            ("KAFKA_ENABLED", "false"),
            ("PORT", "1"),
        ];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), Ok(BTreeMap::from(wanted)));
    }

    #[test]
    fn what_would_be_dropped_is_refused_by_line_and_name() {
        for (text, hint) in [
            (
                "\nkafka_broker = \"a:1\"",
                "line 2: kafka_broker is no setting; the nearest is kafka_brokers",
            ),
            ("[kafka]\nbrokers = \"a:1\"", "line 1: kafka is no setting"),
            ("xyzzy = 1", "line 1: xyzzy is no setting; .env"),
            ("port = { number = 1 }", "line 1: port must be"),
            ("port = 1\nPORT = 2", "stands twice"),
            ("port = 1\nkafka_sasl_password = canary", "line 2: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(hint) && !error.contains("canary"), "{text}: {error}");
        }
    }
}
