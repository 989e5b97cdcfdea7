//! What is refused, by the setting's name and with what to do; no text here shows a secret.

use std::collections::HashSet;

use super::declared::SETTINGS;

const REDACTED: &str = "[redacted]";

/// A setting that cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}={value}: {problem}")]
    Value { name: String, value: String, problem: String },
    #[error("{name}_FILE={path}: {problem}")]
    File { name: String, path: String, problem: String },
    #[error("settings file: {0}")]
    Source(String),
    #[error(".env: {0}")]
    DotEnv(String),
    #[error("settings: {0}")]
    Merge(#[from] config::ConfigError),
    /// A line each.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<ConfigError>),
}

/// Collects what is refused, so that one error lists all of it: a setting once, however many fields
/// are read from it.
#[derive(Default)]
pub(super) struct Refused(Vec<ConfigError>);

impl Refused {
    pub(super) fn unless<T>(&mut self, read: Result<T, ConfigError>) -> Option<T> {
        match read {
            Ok(value) => return Some(value),
            Err(ConfigError::Several(errors)) => self.0.extend(errors),
            Err(error) => self.0.push(error),
        }
        None
    }

    pub(super) fn or<T>(mut self, value: Option<T>) -> Result<T, ConfigError> {
        let mut seen = HashSet::new();
        self.0.retain(|error| match error {
            ConfigError::Value { name, .. } => seen.insert(name.clone()),
            other => seen.insert(other.to_string()),
        });
        match (value, self.0.len()) {
            (Some(value), 0) => Ok(value),
            (_, 1) => Err(self.0.remove(0)),
            _ => Err(ConfigError::Several(self.0)),
        }
    }
}

pub(super) fn invalid(name: &str, value: &str, problem: &str) -> ConfigError {
    ConfigError::Value {
        name: name.to_owned(),
        value: shown(name, value),
        problem: problem.to_owned(),
    }
}

/// A setting's value as logs, errors and lists may show it.
pub(super) fn shown(name: &str, value: &str) -> String {
    if is_secret(name) { REDACTED.to_owned() } else { without_password(value) }
}

pub(super) fn is_secret(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name == name && setting.secret)
}

/// A URL as it may be shown; anything else as it is, unless it may hold a password.
fn without_password(text: &str) -> String {
    let suspect = |text: &str| text.contains('@') || text.to_lowercase().contains("password");
    let Some((scheme, rest)) = text.split_once("://") else {
        return if suspect(text) { REDACTED.to_owned() } else { text.to_owned() };
    };
    // A password may itself have an @, a slash or a ?, however wrong that is: the last @ counts.
    let (credentials, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => {
            let user = credentials.split_once(':').map(|(user, _)| format!("{user}:{REDACTED}@"));
            (user.unwrap_or_else(|| format!("{credentials}@")), place)
        }
        None => (String::new(), rest),
    };
    let Some((host, query)) = place.split_once('?') else {
        return format!("{scheme}://{credentials}{place}");
    };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if suspect(name) => format!("{name}={REDACTED}"),
        _ => pair.to_owned(),
    });
    format!("{scheme}://{credentials}{host}?{}", pairs.collect::<Vec<String>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::super::given;
    use super::*;

    #[test]
    fn no_error_and_no_list_shows_a_password() {
        for (given, shown) in [
            (
                "postgres://fred:can@ry/x@db:5432/wallex?a=b",
                "postgres://fred:[redacted]@db:5432/wallex?a=b",
            ),
            ("postgres://fred@db/wallex", "postgres://fred@db/wallex"),
            ("kafka:9092", "kafka:9092"),
            (
                "postgres://db/w?user=u&password=canary",
                "postgres://db/w?user=u&password=[redacted]",
            ),
            (
                "jdbc:postgresql://db/w?sslpassword=canary",
                "jdbc:postgresql://db/w?sslpassword=[redacted]",
            ),
            ("postgres:/fred:canary@db/wallex", "[redacted]"),
            ("host=db password=canary", "[redacted]"),
        ] {
            assert_eq!(without_password(given), shown);
        }
    }

    #[test]
    fn all_that_is_refused_is_told_at_once_and_each_setting_once() {
        let wrong = [
            ("PORT", "x"),
            ("KAFKA_BROKERS", "kafka"),
            ("LOG_LEVEL", "loud"),
            ("KAFKA_MAX_MESSAGE_BYTES", "many"),
        ];
        let error = given(&wrong).unwrap_err();
        let mut names: Vec<&str> =
            error.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["KAFKA_BROKERS", "KAFKA_MAX_MESSAGE_BYTES", "LOG_LEVEL", "PORT"]);
    }
}
