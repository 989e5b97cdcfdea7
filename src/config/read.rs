//! Reading: the sources merged, each value parsed, each error naming the setting and the mend.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::names::{SETTINGS, WATCHED_PREFIXES};
use super::{
    CommandSettings, ConsumerSettings, DatabaseSettings, HttpSettings, LogFormat, LogSettings,
    OutboxSettings, RetentionSettings, Secret, Settings, file_path,
};

/// Settings given as flags, by name: they win over everything.
pub type Overrides = BTreeMap<&'static str, String>;

const REDACTED: &str = "[redacted]";

/// One setting as `wallex config print` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Explained {
    pub name: &'static str,
    pub value: String,
    /// flag, environment (`.env` included), file or default.
    pub origin: &'static str,
}

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
}

/// The parsers quote the line that they cannot read, and a password may stand there: the place is
/// told, the line is not.
impl From<config::ConfigError> for ConfigError {
    fn from(error: config::ConfigError) -> Self {
        let text = error.to_string();
        let place = text.split_once(['\n', '|']).map_or(text.as_str(), |(place, _)| place);
        Self::Source(match &error {
            config::ConfigError::FileParse { uri: Some(file), .. } => format!("{file}: {place}"),
            _ => place.to_owned(),
        })
    }
}

impl From<dotenvy::Error> for ConfigError {
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

/// Reads the process's environment, `.env` and the settings file. Unknown names that look like
/// settings are returned beside them, for a warning.
pub fn load(flags: &Overrides) -> Result<(Settings, Vec<String>), ConfigError> {
    load_from(&variables()?, flags)
}

/// The environment, over what `.env` in the working directory says.
#[allow(clippy::disallowed_methods, reason = "config is the one reader of the environment")]
fn variables() -> Result<HashMap<String, String>, ConfigError> {
    let mut variables: HashMap<String, String> = HashMap::new();
    if PathBuf::from(".env").exists() {
        for pair in dotenvy::from_filename_iter(".env")? {
            let (name, value) = pair?;
            variables.insert(name, value);
        }
    }
    variables.extend(std::env::vars());
    Ok(variables)
}

/// The same from given variables: what [`load`] does once it has read them.
pub fn load_from(
    variables: &HashMap<String, String>,
    flags: &Overrides,
) -> Result<(Settings, Vec<String>), ConfigError> {
    let settings = Reader(merged(variables, flags)?).settings()?;
    Ok((settings, unknown_names(variables)))
}

/// Every setting's value and where it comes from, for people; secrets are not among the values.
pub fn explain(flags: &Overrides) -> Result<Vec<Explained>, ConfigError> {
    let variables = variables()?;
    let merged = merged(&variables, flags)?;
    let file = from_file(&variables)?.build()?;
    let explained = SETTINGS.iter().map(|setting| {
        let name = setting.name;
        let origin = if flags.contains_key(name) {
            "flag"
        } else if from_variables(&variables, name)?.is_some() {
            "environment"
        } else if file.get_string(&name.to_lowercase()).is_ok() {
            "file"
        } else {
            "default"
        };
        let value = merged.get_string(&name.to_lowercase())?;
        let value = if setting.secret && !value.is_empty() { REDACTED.to_owned() } else { value };
        let value = without_password(&value);
        Ok(Explained { name, value, origin })
    });
    explained.collect()
}

/// Flags over variables over the file over the defaults.
fn merged(
    variables: &HashMap<String, String>,
    flags: &Overrides,
) -> Result<config::Config, ConfigError> {
    let mut builder = from_file(variables)?;
    for setting in SETTINGS {
        let key = setting.name.to_lowercase();
        builder = builder.set_default(&key, setting.default)?;
        if let Some(value) = from_variables(variables, setting.name)? {
            builder = builder.set_override(&key, value)?;
        }
        if let Some(path) = variables.get(&format!("{}_FILE", setting.name)) {
            builder = builder.set_override(format!("{key}_file"), path.as_str())?;
        }
        if let Some(value) = flags.get(setting.name) {
            builder = builder.set_override(&key, value.as_str())?;
        }
    }
    Ok(builder.build()?)
}

type Builder = config::ConfigBuilder<config::builder::DefaultState>;

/// The TOML file, where there is one. Names there are the settings' in lower case.
fn from_file(variables: &HashMap<String, String>) -> Result<Builder, ConfigError> {
    let builder = config::Config::builder();
    Ok(match file_path(variables.get("WALLEX_CONFIG").cloned()) {
        Some(path) => builder.add_source(config::File::from(path).format(config::FileFormat::Toml)),
        None => builder,
    })
}

/// The variable itself, or the content of the file that `NAME_FILE` points to.
fn from_variables(
    variables: &HashMap<String, String>,
    name: &str,
) -> Result<Option<String>, ConfigError> {
    if let Some(path) = variables.get(&format!("{name}_FILE")) {
        let read = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
            name: name.to_owned(),
            path: path.clone(),
            problem: error.to_string(),
        })?;
        return Ok(Some(read.trim_end_matches(['\n', '\r']).to_owned()));
    }
    // An empty variable is as good as none: compose files set them so.
    Ok(variables.get(name).filter(|value| !value.is_empty()).cloned())
}

fn unknown_names(variables: &HashMap<String, String>) -> Vec<String> {
    let known = |name: &str| {
        let bare = name.strip_suffix("_FILE").unwrap_or(name);
        SETTINGS.iter().any(|setting| setting.name == name || setting.name == bare)
    };
    let mut names: Vec<String> = variables
        .keys()
        .filter(|name| WATCHED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !known(name))
        .cloned()
        .collect();
    names.sort();
    names
}

pub(super) struct Reader(config::Config);

impl Reader {
    fn settings(&self) -> Result<Settings, ConfigError> {
        let kafka = self.kafka()?;
        Ok(Settings {
            second: self.second(&kafka)?.filter(|_| kafka.enabled),
            http: HttpSettings {
                host: self.parsed("HOST", "an IP address such as 127.0.0.1")?,
                port: self.parsed("PORT", "a port, 0 to 65535")?,
                require_idempotency_key: self.flag("REQUIRE_IDEMPOTENCY_KEY")?,
                max_connections: self.within("HTTP_MAX_CONNECTIONS", 1, 1_000_000)?,
                keep_alive: Duration::from_secs(self.within(
                    "HTTP_KEEP_ALIVE_SECONDS",
                    1,
                    86_400,
                )?),
                health_include_kafka: self.flag("HEALTH_INCLUDE_KAFKA")?,
            },
            database: self.database()?,
            commands: CommandSettings {
                lanes: self.within("COMMAND_LANES", 1, 16)?,
                batch_max: self.within("COMMAND_BATCH_MAX", 1, 1000)?,
                queue_max: self.within("COMMAND_QUEUE_MAX", 1, 1_000_000)?,
            },
            kafka,
            producer: self.producer()?,
            consumer: self.consumer()?,
            outbox: self.outbox()?,
            retention: self.retention()?,
            registry: self.registry()?,
            log: LogSettings {
                level: self.text("LOG_LEVEL")?,
                format: self.one_of(
                    "LOG_FORMAT",
                    &[
                        ("auto", LogFormat::Auto),
                        ("pretty", LogFormat::Pretty),
                        ("json", LogFormat::Json),
                    ],
                )?,
            },
        })
    }

    fn database(&self) -> Result<DatabaseSettings, ConfigError> {
        let mut url = self.text("DATABASE_URL")?;
        if url.is_empty() {
            let port: u16 = self.parsed("DATABASE_PORT", "a port, 1 to 65535")?;
            let part = |name| self.text(name).map(|text| percent_encoded(&text));
            let password = match part("DATABASE_PASSWORD")? {
                password if password.is_empty() => String::new(),
                password => format!(":{password}"),
            };
            url = format!(
                "postgres://{}{password}@{}:{port}/{}",
                part("DATABASE_USER")?,
                self.text("DATABASE_HOST")?,
                part("DATABASE_NAME")?
            );
        }
        let migration_url = self.text("DATABASE_MIGRATION_URL")?;
        Ok(DatabaseSettings {
            migration_url: Secret::new(if migration_url.is_empty() {
                &url
            } else {
                &migration_url
            }),
            url: Secret::new(url),
            max_connections: self.within("DATABASE_MAX_CONNECTIONS", 2, 1000)?,
        })
    }

    fn outbox(&self) -> Result<OutboxSettings, ConfigError> {
        let batch_size = self.within("OUTBOX_BATCH_SIZE", 1, 10_000)?;
        let batch_max = self.within("OUTBOX_BATCH_MAX", 1, 10_000)?;
        if batch_max < batch_size {
            let problem = format!("use at least OUTBOX_BATCH_SIZE, {batch_size}");
            return Err(invalid("OUTBOX_BATCH_MAX", &batch_max.to_string(), &problem));
        }
        let poll_interval = self.millis("OUTBOX_POLL_INTERVAL_MS")?;
        Ok(OutboxSettings { batch_size, batch_max, poll_interval })
    }

    fn retention(&self) -> Result<RetentionSettings, ConfigError> {
        let answers = self.hours("IDEMPOTENCY_RETENTION_HOURS", 1)?;
        let keys = self.hours("IDEMPOTENCY_KEY_RETENTION_DAYS", 24)?;
        if keys < answers {
            let days = self.text("IDEMPOTENCY_KEY_RETENTION_DAYS")?;
            let problem = "an answer goes with its key: use at least IDEMPOTENCY_RETENTION_HOURS";
            return Err(invalid("IDEMPOTENCY_KEY_RETENTION_DAYS", &days, problem));
        }
        Ok(RetentionSettings {
            outbox: self.hours("OUTBOX_RETENTION_HOURS", 1)?,
            answers,
            keys,
            letters: self.hours("DEAD_LETTER_RETENTION_DAYS", 24)?,
            batches: Duration::from_hours(1),
            rest: Duration::from_secs(10),
            rest_of_keys: Duration::from_mins(10),
        })
    }

    fn consumer(&self) -> Result<ConsumerSettings, ConfigError> {
        let feeds = self.text("PROJECTOR_FEEDS")?;
        let named: Vec<&str> = feeds.split(',').map(str::trim).collect();
        if named.iter().any(|feed| !matches!(*feed, "kafka" | "outbox")) {
            return Err(invalid("PROJECTOR_FEEDS", &feeds, "use kafka, outbox or kafka,outbox"));
        }
        Ok(ConsumerSettings {
            max_poll_records: self.within("CONSUMER_MAX_POLL_RECORDS", 1, 10_000)?,
            max_wait: self.millis("CONSUMER_MAX_WAIT_MS")?,
            session_timeout: Duration::from_millis(self.within(
                "CONSUMER_SESSION_TIMEOUT_MS",
                1000,
                600_000,
            )?),
            group_prefix: self.text("CONSUMER_GROUP_ID")?,
            feed_kafka: named.contains(&"kafka"),
            feed_outbox: named.contains(&"outbox"),
        })
    }

    pub(super) fn text(&self, name: &str) -> Result<String, ConfigError> {
        Ok(self.0.get_string(&name.to_lowercase())?)
    }

    pub(super) fn parsed<T: FromStr>(&self, name: &str, wanted: &str) -> Result<T, ConfigError> {
        let text = self.text(name)?;
        text.trim().parse().map_err(|_| invalid(name, &text, &format!("use {wanted}")))
    }

    pub(super) fn within<T>(&self, name: &str, least: T, most: T) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let wanted = format!("a whole number from {least} to {most}");
        let value: T = self.parsed(name, &wanted)?;
        if value < least || value > most {
            return Err(invalid(name, &value.to_string(), &format!("use {wanted}")));
        }
        Ok(value)
    }

    pub(super) fn millis(&self, name: &str) -> Result<Duration, ConfigError> {
        self.within(name, 1, 86_400_000).map(Duration::from_millis)
    }

    /// A time in units of so many hours, at most ten years.
    fn hours(&self, name: &str, unit: u64) -> Result<Duration, ConfigError> {
        self.within(name, 1, 87_600 / unit).map(|count: u64| Duration::from_hours(count * unit))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ConfigError> {
        let accepted = [("true", true), ("1", true), ("false", false), ("0", false)];
        self.one_of(name, &accepted)
    }

    /// None where it is not set.
    pub(super) fn optional_flag(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        if self.text(name)?.is_empty() { Ok(None) } else { self.flag(name).map(Some) }
    }

    /// The file that holds a secret; none: the secret itself was given.
    pub(super) fn file_of(&self, name: &str) -> Option<PathBuf> {
        let path = self.0.get_string(&format!("{}_file", name.to_lowercase())).ok()?;
        Some(PathBuf::from(path))
    }

    pub(super) fn one_of<T: Copy>(
        &self,
        name: &str,
        accepted: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let text = self.text(name)?;
        let found = accepted.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = accepted.iter().map(|(word, _)| *word).collect();
            invalid(name, &text, &format!("use {}", words.join(" or ")))
        })
    }
}

pub(super) fn invalid(name: &str, value: &str, problem: &str) -> ConfigError {
    let secret = SETTINGS.iter().any(|setting| setting.name == name && setting.secret);
    ConfigError::Value {
        name: name.to_owned(),
        value: if secret { REDACTED.to_owned() } else { without_password(value) },
        problem: problem.to_owned(),
    }
}

/// A URL as it may be shown; anything else as it is.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // A password may itself have an @, a slash or a ?, however wrong that is: the last @ counts.
    let Some((credentials, host)) = rest.rsplit_once('@') else { return text.to_owned() };
    match credentials.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{REDACTED}@{host}"),
        None => text.to_owned(),
    }
}

/// A user, password or database name as it may stand in a URL.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_and_no_list_shows_a_password() {
        let url = without_password("postgres://fred:can@ry/x@db:5432/wallex?a=b");
        assert_eq!(url, "postgres://fred:[redacted]@db:5432/wallex?a=b");
        assert_eq!(without_password("postgres://fred@db/wallex"), "postgres://fred@db/wallex");
        assert_eq!(without_password("kafka:9092"), "kafka:9092");

        let line = "KAFKA_SASL_PASSWORD=\"canary";
        let read = dotenvy::from_read_iter(line.as_bytes()).find_map(Result::err).unwrap();
        let error = ConfigError::from(read).to_string();
        assert!(error.contains("KAFKA_SASL_PASSWORD") && !error.contains("canary"), "{error}");

        let text = "port = 1\nkafka_sasl_password = canary";
        let file = config::File::from_str(text, config::FileFormat::Toml);
        let read = config::Config::builder().add_source(file).build().unwrap_err();
        let error = ConfigError::from(read).to_string();
        assert!(error.contains("line 2") && !error.contains("canary"), "{error}");
    }
}
