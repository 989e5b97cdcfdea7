//! Settings: the only reader of the environment.
//!
//! flag > environment > `.env` in the working directory > TOML file (`WALLEX_CONFIG`, else
//! `wallex.toml` where there is one) > default. Each is declared once, in [`declared`]: its name,
//! default and meaning, the field that holds it, how it is read and within which bounds.

mod access;
mod database;
mod declare;
mod declared;
mod environment;
mod error;
mod file;
mod inbound;
mod kafka;
mod layers;
mod names;
mod own_topics;
mod producer;
mod read;
mod registry;
mod topics_file;

use std::collections::{BTreeMap, HashMap};

pub use access::{SaslSettings, SecretSource, TlsSettings};
pub use declare::Setting;
pub use declared::{
    BreakerSettings, Cleanup, Codec, CommandSettings, ConsumerSettings, DatabaseSettings,
    HttpSettings, InboundSettings, KafkaSettings, KeyStrategy, LogFormat, LogSettings,
    OutboxSettings, ProducerSettings, RetentionSettings, SETTINGS, SaslMechanism, SecondSettings,
    Settings, name,
};
pub use error::ConfigError;
pub use own_topics::{EVENT_LETTERS, EVENTS, OWN_TOPICS, OwnTopic, Part};
pub use registry::RegistrySettings;
pub use topics_file::{DeclaredTopic, is_topic_part};

/// Settings given as flags, by name: they win over everything.
pub type Overrides = BTreeMap<&'static str, String>;

/// One setting as `wallex config print` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Explained {
    pub name: &'static str,
    pub value: String,
    /// flag, environment (`.env` included), file or default.
    pub origin: &'static str,
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
    let reader = layers::merged(variables, flags)?;
    let settings = Settings::read(&reader)?;
    let mut warnings = names::unknown(variables);
    warnings.extend(database::passed_over(&reader));
    Ok((settings, Notes { warnings, elsewhere: names::elsewhere(variables) }))
}

/// Settings with these values and the defaults, for unit tests; errors as users see them.
#[cfg(test)]
pub(crate) fn given(variables: &[(&str, &str)]) -> Result<(Settings, Notes), String> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_from(&variables.collect(), &Overrides::new()).map_err(|error| error.to_string())
}

/// Every setting's value and where it comes from, for people; secrets are not among the values.
pub fn explain(flags: &Overrides) -> Result<Vec<Explained>, ConfigError> {
    let reader = layers::merged(&environment::variables()?, flags)?;
    let explained = SETTINGS.iter().map(|setting| {
        let found = reader.found(setting.name)?;
        let is_empty = found.value.is_empty();
        let value = if is_empty { String::new() } else { error::shown(setting.name, &found.value) };
        Ok(Explained { name: setting.name, value, origin: found.origin })
    });
    explained.collect()
}

/// A value that no log, error or debug output may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself: only for the client that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.env.example` as it should be: every setting with its meaning, commented out at its default.
    fn example() -> String {
        let mut text = "# Every setting with its default. Copy to .env and uncomment what you change.\n\
             # flag > environment > .env > wallex.toml > default. NAME_FILE=path reads a value from a file.\n"
            .to_owned();
        for setting in SETTINGS {
            let (name, default, meaning) = (setting.name, setting.default, setting.meaning);
            text.push_str(&format!("\n# {meaning}\n# {name}={default}\n"));
        }
        text
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "blessing is asked for by the environment")]
    fn the_example_file_lists_every_setting() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
        if std::env::var_os("WALLEX_BLESS").is_some() {
            std::fs::write(path, example()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(found, example(), "WALLEX_BLESS=1 cargo test writes it again");
    }
}
