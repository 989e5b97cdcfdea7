//! The sources of settings, one over the other: flags over the environment over the file over the defaults.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use config::Source as _;

use super::declared::SETTINGS;
use super::error::ConfigError;
use super::read::Reader;
use super::{Overrides, environment, file};

const FLAG: &str = "flag";
const ENVIRONMENT: &str = "environment";
const FILE: &str = "file";
const DEFAULT: &str = "default";

/// A setting's value and where it comes from.
#[derive(Clone)]
pub(super) struct Found {
    pub value: String,
    pub origin: &'static str,
    /// The file that it was read from.
    pub file: Option<PathBuf>,
}

/// The sources, each over those before it: the defaults, the file, the environment, the flags.
pub(super) fn merged(
    variables: &HashMap<String, String>,
    flags: &Overrides,
) -> Result<Reader, ConfigError> {
    let in_file = file::read(variables)?;
    let defaults = SETTINGS.iter().map(|setting| (setting.name, plain(setting.default)));
    let given_flags = flags.iter().map(|(name, value)| (*name, plain(value)));
    let layers = [
        Layer { origin: DEFAULT, values: defaults.collect() },
        Layer { origin: FILE, values: given(|name| in_file.get(name))? },
        Layer { origin: ENVIRONMENT, values: given(|name| variables.get(name))? },
        Layer { origin: FLAG, values: given_flags.collect() },
    ];
    let merged =
        layers.into_iter().fold(config::Config::builder(), |all, layer| all.add_source(layer));
    let mut values = merged.build()?.collect()?;
    let mut found = HashMap::new();
    for name in SETTINGS.iter().map(|setting| setting.name) {
        let Some(value) = values.remove(&value_key(name)) else { continue };
        let known = |origin: &&&str| value.origin() == Some(**origin);
        let origin = [FLAG, ENVIRONMENT, FILE].iter().find(known).copied().unwrap_or(DEFAULT);
        let file = values.remove(&file_key(name)).map(config::Value::into_string).transpose()?;
        let file = file.filter(|path| !path.is_empty()).map(PathBuf::from);
        found.insert(name, Found { value: value.into_string()?, origin, file });
    }
    Ok(Reader(found))
}

/// One source of settings. A value and the file that it was read from go together, so that a value
/// of a later source hides both of an earlier one's.
#[derive(Debug, Clone)]
struct Layer {
    origin: &'static str,
    values: BTreeMap<&'static str, (String, String)>,
}

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, config::Value>, config::ConfigError> {
        let of = |text: &String| config::Value::new(Some(&self.origin.to_owned()), text.clone());
        let values = self.values.iter();
        let pairs = values.flat_map(|(name, (value, file))| {
            [(value_key(name), of(value)), (file_key(name), of(file))]
        });
        Ok(pairs.collect())
    }
}

fn value_key(name: &str) -> String {
    name.to_lowercase()
}

fn file_key(name: &str) -> String {
    format!("{}_read_from", name.to_lowercase())
}

/// A value that was read from no file.
fn plain(value: &str) -> (String, String) {
    (value.to_owned(), String::new())
}

/// The values of a source, or the contents of the files that `NAME_FILE` point to. An empty one is
/// as good as none: compose files set them so.
fn given<'v>(
    source: impl Fn(&str) -> Option<&'v String>,
) -> Result<BTreeMap<&'static str, (String, String)>, ConfigError> {
    let set = |name: &str| source(name).filter(|value| !value.is_empty());
    let mut values = BTreeMap::new();
    for name in SETTINGS.iter().map(|setting| setting.name) {
        if let Some(path) = set(&format!("{name}_FILE")) {
            let refused = |problem: String| ConfigError::File {
                name: name.to_owned(),
                path: path.clone(),
                problem,
            };
            let read = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
            let text = environment::text(read).map_err(refused)?;
            let value = text.trim_end_matches(['\n', '\r']).to_owned();
            values.insert(name, (value, path.clone()));
        } else if let Some(value) = set(name) {
            values.insert(name, plain(value));
        }
    }
    Ok(values)
}
