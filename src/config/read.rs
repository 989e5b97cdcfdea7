//! Reading: one setting's text as a value of its type, or an error that names the setting and the mend.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::declare::Word;
use super::declared::name;
use super::error::{ConfigError, invalid, is_secret};
use super::layers::Found;

/// Both projectors may have as much of every partition in memory, ten times so when it is unpacked.
const FETCH_MOST: i32 = 52_428_800;

pub(super) struct Reader(pub(super) HashMap<&'static str, Found>);

/// Readings of any setting.
impl Reader {
    pub(super) fn found(&self, name: &str) -> Result<&Found, ConfigError> {
        self.0.get(name).ok_or_else(|| ConfigError::Source(format!("{name} is no setting")))
    }

    /// Reads what comes of several settings.
    pub(super) fn derive<T>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        read(self)
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

    pub(super) fn is_set(&self, name: &str) -> Result<bool, ConfigError> {
        Ok(!self.text(name)?.is_empty())
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
        self.millis_within(name, 1, 86_400_000)
    }

    pub(super) fn millis_within(
        &self,
        name: &str,
        least: u64,
        most: u64,
    ) -> Result<Duration, ConfigError> {
        self.within(name, least, most).map(Duration::from_millis)
    }

    pub(super) fn seconds(
        &self,
        name: &str,
        least: u64,
        most: u64,
    ) -> Result<Duration, ConfigError> {
        self.within(name, least, most).map(Duration::from_secs)
    }

    /// A time in units of so many hours, at most ten years.
    pub(super) fn hours(&self, name: &str, unit: u64) -> Result<Duration, ConfigError> {
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

    pub(super) fn word<T: Word>(&self, name: &str) -> Result<T, ConfigError> {
        self.one_of(name, T::WORDS)
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

/// Readings of one setting each.
impl Reader {
    /// A mode that there is not must not pass for one that protects.
    pub(super) fn no_other_mode(&self, name: &str) -> Result<(), ConfigError> {
        let mode = self.text(name)?;
        if mode.eq_ignore_ascii_case("off") {
            return Ok(());
        }
        let problem = "use off, the only mode there is: callers are not asked who they are, so keep the \
                       port private, or put a proxy that asks before it";
        Err(invalid(name, &mode, problem))
    }

    pub(super) fn batch_max(&self, name: &str) -> Result<i64, ConfigError> {
        let least: i64 = self.within(name::OUTBOX_BATCH_SIZE, 1, 10_000)?;
        let most = self.within(name, 1, 10_000)?;
        if most < least {
            let problem = format!("use at least OUTBOX_BATCH_SIZE, {least}");
            return Err(invalid(name, &most.to_string(), &problem));
        }
        Ok(most)
    }

    pub(super) fn key_retention(&self, name: &str) -> Result<Duration, ConfigError> {
        let keys = self.hours(name, 24)?;
        if keys < self.hours(name::IDEMPOTENCY_RETENTION_HOURS, 1)? {
            let problem = "an answer goes with its key: use at least IDEMPOTENCY_RETENTION_HOURS";
            return Err(invalid(name, &self.text(name)?, problem));
        }
        Ok(keys)
    }

    /// Every answer is of one partition: Kafka's own consumer has a limit for each of the two.
    pub(super) fn fetch_bytes(&self, name: &str) -> Result<i32, ConfigError> {
        let of_partition = self.within(name, 1024, FETCH_MOST)?;
        let of_answer = name::CONSUMER_FETCH_MAX_BYTES;
        if !self.is_set(of_answer)? {
            return Ok(of_partition);
        }
        Ok(self.within(of_answer, 1024, FETCH_MOST)?.min(of_partition))
    }

    /// With what parts it from the group's own name, unless it ends so already.
    pub(super) fn group_prefix(&self, name: &str) -> Result<String, ConfigError> {
        let mut prefix = self.text(name)?;
        if !prefix.is_empty() && !prefix.ends_with(['-', '.', '_']) {
            prefix.push('-');
        }
        Ok(prefix)
    }

    /// To the filter a bare word that is no level is a target, of which there would be no events:
    /// `verbose`. Such a word is taken for a misspelt level.
    pub(super) fn level(&self, name: &str) -> Result<String, ConfigError> {
        let text = self.text(name)?;
        let wanted =
            "use off, error, warn, info, debug or trace, or a filter such as wallex=debug,info";
        let is_said = |part: &str| {
            part.contains('=')
                || part.split("::").next() == Some(env!("CARGO_PKG_NAME"))
                || part.parse::<LevelFilter>().is_ok()
        };
        // Within brackets commas part fields.
        let plain = !text.contains('[');
        if plain && !text.split(',').map(str::trim).all(is_said) {
            return Err(invalid(name, &text, wanted));
        }
        EnvFilter::try_new(&text)
            .map_err(|error| invalid(name, &text, &format!("{error}: {wanted}")))?;
        Ok(text)
    }

    /// Where projectors read from.
    pub(super) fn feeds(&self) -> Result<Vec<String>, ConfigError> {
        let feeds = self.text(name::PROJECTOR_FEEDS)?;
        let named: Vec<String> = feeds.split(',').map(|feed| feed.trim().to_owned()).collect();
        if named.iter().any(|feed| !matches!(feed.as_str(), "kafka" | "outbox")) {
            return Err(invalid(
                name::PROJECTOR_FEEDS,
                &feeds,
                "use kafka, outbox or kafka,outbox",
            ));
        }
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use super::super::given;

    #[test]
    fn a_groups_prefix_ends_in_what_parts_it_from_the_name() {
        for (set, wanted) in [
            ("", ""),
            ("caas-consumer-group", "caas-consumer-group-"),
            ("blue-", "blue-"),
            ("blue.", "blue."),
            ("blue_", "blue_"),
        ] {
            let (settings, _) = given(&[("CONSUMER_GROUP_ID", set)]).unwrap();
            assert_eq!(settings.consumer.group_prefix, wanted);
        }
    }

    #[test]
    fn a_filter_that_would_log_nothing_is_refused() {
        for level in
            ["info", "WARN", "off", "wallex=debug,info", "wallex", "sqlx=trace, warn", "3", "info,"]
        {
            assert_eq!(given(&[("LOG_LEVEL", level)]).unwrap().0.log.level, level);
        }
        for level in ["verbose", "warning", "info,verbose", "wallex=verbose", "inf0"] {
            let error = given(&[("LOG_LEVEL", level)]).unwrap_err();
            assert!(error.starts_with("LOG_LEVEL") && error.contains("use off, error"), "{error}");
        }
    }

    #[test]
    fn what_would_be_off_in_silence_is_refused_or_told() {
        let error = given(&[("AUTH_MODE", "required")]).unwrap_err();
        assert!(error.starts_with("AUTH_MODE=required: use off"), "{error}");
        assert!(given(&[("AUTH_MODE", "off")]).is_ok());
        let (_, notes) = given(&[
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
            given(&[("KAFKA_CLIENT_ID", " a\r"), ("KAFKA_ENABLED", "true ")]).unwrap();
        assert_eq!(settings.kafka.client_id, "a");
        let error = given(&[("KAFKA_CLIENT_ID", "\"a\"")]).unwrap_err();
        assert!(error.starts_with("KAFKA_CLIENT_ID=\"a\": the quotes"), "{error}");
        let secret = [("DATABASE_PASSWORD", "'x '")];
        let url = given(&secret).unwrap().0.database.url;
        assert!(url.expose().contains(":%27x%20%27@"), "a secret is as it is");
    }
}
