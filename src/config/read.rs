//! Reading: each value of the merged sources parsed, each error naming the setting and the mend.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::layers::{Found, merged};
use super::names::{SETTINGS, WATCHED_PREFIXES, nearest};
use super::{
    CommandSettings, ConsumerSettings, HttpSettings, OutboxSettings, RetentionSettings, Settings,
    database, elsewhere, environment,
};

/// Settings given as flags, by name: they win over everything.
pub type Overrides = BTreeMap<&'static str, String>;

/// Both projectors may have as much of every partition in memory, ten times so when it is unpacked.
const FETCH_MOST: i32 = 52_428_800;

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
    #[error("settings: {0}")]
    Merge(#[from] config::ConfigError),
}

/// What is worth telling of settings that can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Most likely mistakes, a sentence each.
    pub warnings: Vec<String>,
    /// Names that other services read and this one does not.
    pub elsewhere: Vec<String>,
}

impl Notes {
    /// Tells the log, once, what is set and means nothing here.
    pub fn log(&self) {
        if !self.elsewhere.is_empty() {
            tracing::info!(
                names = self.elsewhere.join(", "),
                "names that other services read are set and have no effect: docs/OPERATIONS.md, \
                 Settings of earlier services"
            );
        }
    }
}

/// Reads the process's environment, `.env` and the settings file.
pub fn load(flags: &Overrides) -> Result<(Settings, Notes), ConfigError> {
    load_from(&environment::variables()?, flags)
}

/// The same from given variables: what [`load`] does once it has read them.
pub fn load_from(
    variables: &HashMap<String, String>,
    flags: &Overrides,
) -> Result<(Settings, Notes), ConfigError> {
    let reader = merged(variables, flags)?;
    let settings = reader.settings()?;
    let mut warnings = unknown_names(variables);
    warnings.extend(database::passed_over(&reader));
    Ok((settings, Notes { warnings, elsewhere: elsewhere::names(variables) }))
}

/// Every setting's value and where it comes from, for people; secrets are not among the values.
pub fn explain(flags: &Overrides) -> Result<Vec<Explained>, ConfigError> {
    let reader = merged(&environment::variables()?, flags)?;
    let explained = SETTINGS.iter().map(|setting| {
        let found = reader.found(setting.name)?;
        let hidden = setting.secret && !found.value.is_empty();
        let value = if hidden { REDACTED.to_owned() } else { without_password(&found.value) };
        Ok(Explained { name: setting.name, value, origin: found.origin })
    });
    explained.collect()
}

/// Names that look like settings and are none, a sentence each. What an orchestrator sets for each
/// service of a name is not among them: `KAFKA_PORT_9092_TCP`.
fn unknown_names(variables: &HashMap<String, String>) -> Vec<String> {
    let known = |name: &str| {
        let bare = name.strip_suffix("_FILE").unwrap_or(name);
        SETTINGS.iter().any(|setting| setting.name == name || setting.name == bare)
    };
    let is_link = |name: &str, value: &str| {
        name.contains("_SERVICE_") || name.contains("_PORT_") || value.starts_with("tcp://")
    };
    let mut names: Vec<&String> = variables
        .iter()
        .filter(|(name, _)| WATCHED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|(name, value)| !known(name) && !is_link(name, value))
        .map(|(name, _)| name)
        .collect();
    names.sort();
    let told = names.into_iter().map(|name| {
        let hint =
            nearest(name).map_or_else(String::new, |near| format!("; the nearest is {near}"));
        format!("{name} is no setting{hint}; .env.example lists all")
    });
    told.collect()
}

pub(super) struct Reader(pub(super) HashMap<&'static str, Found>);

impl Reader {
    fn settings(&self) -> Result<Settings, ConfigError> {
        self.auth()?;
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
            log: self.log()?,
        })
    }

    /// A mode that there is not must not pass for one that protects.
    fn auth(&self) -> Result<(), ConfigError> {
        let mode = self.text("AUTH_MODE")?;
        if mode.eq_ignore_ascii_case("off") {
            return Ok(());
        }
        let problem = "use off, the only mode there is: callers are not asked who they are, so keep the \
                       port private, or put a proxy that asks before it";
        Err(invalid("AUTH_MODE", &mode, problem))
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
            fetch_bytes: self.fetch_bytes()?,
            max_wait: self.millis("CONSUMER_MAX_WAIT_MS")?,
            session_timeout: Duration::from_millis(self.within(
                "CONSUMER_SESSION_TIMEOUT_MS",
                1000,
                600_000,
            )?),
            group_prefix: group_prefix(self.text("CONSUMER_GROUP_ID")?),
            feed_kafka: named.contains(&"kafka"),
            feed_outbox: named.contains(&"outbox"),
        })
    }

    /// Every answer is of one partition: Kafka's own consumer has a limit for each of the two.
    fn fetch_bytes(&self) -> Result<i32, ConfigError> {
        let of_partition = self.within("CONSUMER_MAX_PARTITION_FETCH_BYTES", 1024, FETCH_MOST)?;
        let name = "CONSUMER_FETCH_MAX_BYTES";
        if self.text(name)?.is_empty() {
            return Ok(of_partition);
        }
        Ok(self.within(name, 1024, FETCH_MOST)?.min(of_partition))
    }

    fn found(&self, name: &str) -> Result<&Found, ConfigError> {
        self.0.get(name).ok_or_else(|| ConfigError::Source(format!("{name} is no setting")))
    }

    /// A secret as it is; anything else without white space around it, which files leave there.
    pub(super) fn text(&self, name: &str) -> Result<String, ConfigError> {
        let value = &self.found(name)?.value;
        if is_secret(name) {
            return Ok(value.clone());
        }
        let text = value.trim();
        let quoted = ['"', '\'']
            .iter()
            .any(|quote| text.len() > 1 && text.starts_with(*quote) && text.ends_with(*quote));
        if quoted {
            return Err(invalid(name, text, "the quotes are a part of the value: leave them out"));
        }
        Ok(text.to_owned())
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
        self.found(name).ok()?.file.clone()
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

/// With what parts it from the group's own name, unless it ends so already.
fn group_prefix(mut prefix: String) -> String {
    if !prefix.is_empty() && !prefix.ends_with(['-', '.', '_']) {
        prefix.push('-');
    }
    prefix
}

fn is_secret(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name == name && setting.secret)
}

pub(super) fn invalid(name: &str, value: &str, problem: &str) -> ConfigError {
    ConfigError::Value {
        name: name.to_owned(),
        value: if is_secret(name) { REDACTED.to_owned() } else { without_password(value) },
        problem: problem.to_owned(),
    }
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

    fn loaded(variables: &[(&str, &str)]) -> Result<(Settings, Notes), String> {
        let variables: HashMap<String, String> =
            variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        load_from(&variables, &Overrides::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_groups_prefix_ends_in_what_parts_it_from_the_name() {
        for (given, wanted) in [
            ("", ""),
            ("caas-consumer-group", "caas-consumer-group-"),
            ("blue-", "blue-"),
            ("blue.", "blue."),
            ("blue_", "blue_"),
        ] {
            let (settings, _) = loaded(&[("CONSUMER_GROUP_ID", given)]).unwrap();
            assert_eq!(settings.consumer.group_prefix, wanted);
        }
    }

    #[test]
    fn a_filter_that_would_log_nothing_is_refused() {
        for level in
            ["info", "WARN", "off", "wallex=debug,info", "wallex", "sqlx=trace, warn", "3", "info,"]
        {
            assert_eq!(loaded(&[("LOG_LEVEL", level)]).unwrap().0.log.level, level);
        }
        for level in ["verbose", "warning", "info,verbose", "wallex=verbose", "inf0"] {
            let error = loaded(&[("LOG_LEVEL", level)]).unwrap_err();
            assert!(error.starts_with("LOG_LEVEL") && error.contains("use off, error"), "{error}");
        }
    }

    #[test]
    fn what_would_be_off_in_silence_is_refused_or_told() {
        let error = loaded(&[("AUTH_MODE", "required")]).unwrap_err();
        assert!(error.starts_with("AUTH_MODE=required: use off"), "{error}");
        assert!(loaded(&[("AUTH_MODE", "off")]).is_ok());
        let (_, notes) = loaded(&[
            ("KAFKA_BROKER", "a:1"),
            ("DATABASE_SSL", "true"),
            ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1"),
            ("KAFKA_PORT", "tcp://10.0.0.1:9092"),
            ("REDIS_HOST", "redis"),
            ("KURRENTDB_URL", "esdb://x"),
            ("DATABASE_URL", "postgres://h/d?connect_timeout=3"),
        ])
        .unwrap();
        assert_eq!(notes.elsewhere, ["KURRENTDB_URL", "REDIS_HOST"]);
        let [url, broker, parameter] = notes.warnings.as_slice() else { panic!("{notes:?}") };
        assert!(url.starts_with("DATABASE_SSL is no setting"), "{url}");
        assert!(broker.starts_with("KAFKA_BROKER is no setting; the nearest is KAFKA_BROKERS"));
        assert!(parameter.starts_with("DATABASE_URL: the parameter connect_timeout"));
    }

    #[test]
    fn quotes_and_white_space_around_a_value_are_no_part_of_it() {
        let (settings, _) =
            loaded(&[("KAFKA_CLIENT_ID", " a\r"), ("KAFKA_ENABLED", "true ")]).unwrap();
        assert_eq!(settings.kafka.client_id, "a");
        let error = loaded(&[("KAFKA_CLIENT_ID", "\"a\"")]).unwrap_err();
        assert!(error.starts_with("KAFKA_CLIENT_ID=\"a\": the quotes"), "{error}");
        let secret = [("DATABASE_PASSWORD", "'x '")];
        let url = loaded(&secret).unwrap().0.database.url;
        assert!(url.expose().contains(":%27x%20%27@"), "a secret is as it is");
    }
}
