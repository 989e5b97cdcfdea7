//! The log's settings. What the filter takes and what it would silently drop are told apart here,
//! since a filter that matches nothing logs nothing at all.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::read::{ConfigError, Reader, invalid};
use super::{LogFormat, LogSettings};

impl Reader {
    pub(super) fn log(&self) -> Result<LogSettings, ConfigError> {
        let formats =
            [("auto", LogFormat::Auto), ("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
        Ok(LogSettings {
            level: self.level("LOG_LEVEL")?,
            format: self.one_of("LOG_FORMAT", &formats)?,
        })
    }

    /// To the filter a bare word that is no level is a target, of which there would be no events:
    /// `verbose`. Such a word is taken for a misspelt level.
    fn level(&self, name: &str) -> Result<String, ConfigError> {
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
}
