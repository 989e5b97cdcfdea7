//! The file of further topics, `KAFKA_TOPICS_FILE`: read whole at the start, and refused with the
//! line and the name of what cannot be.

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::declared::name::KAFKA_TOPICS_FILE as NAME;
use super::error::ConfigError;
use super::kafka::legal;
use super::read::Reader;
use super::{Cleanup, KafkaSettings, KeyStrategy};

/// In a topic's name: one topic for each tenant.
const TENANT: &str = "{tenant}";
const DAY_MS: i64 = 86_400_000;

/// A topic, or one for each of its tenants, that the file declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTopic {
    /// With `{tenant}` in it: a name for each tenant.
    pub name: String,
    /// Those that the file names; tenants with topics of their own come to them.
    pub tenants: Vec<String>,
    pub partitions: i32,
    pub replication_factor: i16,
    /// In ms; -1: for ever.
    pub retention_ms: i64,
    pub cleanup: Cleanup,
    pub max_message_bytes: i64,
    pub key: KeyStrategy,
    /// Each record is a part of a history: compaction would drop the parts before the last.
    pub events: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    topic: Vec<Spanned<Entry>>,
}

/// One `[[topic]]` as it stands there. What is left out is as the settings say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    tenants: Option<Vec<String>>,
    partitions: Option<i64>,
    replication: Option<i64>,
    retention: Option<String>,
    cleanup: Option<String>,
    max_message_bytes: Option<i64>,
    key: Option<String>,
    events: Option<bool>,
}

impl DeclaredTopic {
    /// Whether each tenant has one of its own.
    pub fn is_set(&self) -> bool {
        self.name.contains(TENANT)
    }

    /// Its name for a tenant.
    pub fn name_for(&self, tenant: &str) -> String {
        self.name.replace(TENANT, tenant)
    }
}

/// A tenant's name, where it can be a part of a topic's.
pub fn is_topic_part(tenant: &str) -> bool {
    (1..=100).contains(&tenant.len())
        && tenant.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        // `x-dlq` would have the name of x's dead letters.
        && !tenant.ends_with("-dlq")
        && tenant != "default"
}

impl Reader {
    /// The topics of the file, for a service whose own topics have these settings.
    pub(super) fn declared_topics(
        &self,
        settings: &KafkaSettings,
    ) -> Result<Vec<DeclaredTopic>, ConfigError> {
        let path = self.text(NAME)?;
        if path.is_empty() {
            return Ok(Vec::new());
        }
        let refused = |problem: String| ConfigError::Value {
            name: NAME.to_owned(),
            value: path.clone(),
            problem,
        };
        let text = std::fs::read_to_string(PathBuf::from(&path)).map_err(|error| {
            refused(format!("{error}: name a file that is there, from the working directory"))
        })?;
        read(&text, settings).map_err(refused)
    }
}

fn read(text: &str, settings: &KafkaSettings) -> Result<Vec<DeclaredTopic>, String> {
    let file: File = toml::from_str(text).map_err(|error| {
        let place =
            error.span().map_or_else(String::new, |span| format!("line {}: ", line(text, &span)));
        format!("{place}{}", error.message())
    })?;
    let mut names = HashSet::new();
    let mut declared = Vec::new();
    for entry in file.topic {
        let place = |problem: String, name: &str| {
            format!("line {}: topic {name:?}: {problem}", line(text, &entry.span()))
        };
        let name = entry.as_ref().name.clone();
        let topic = entry.as_ref().read(settings).map_err(|problem| place(problem, &name))?;
        for name in topic.names() {
            if !names.insert(name.clone()) {
                return Err(place(format!("{name} stands twice: leave one out"), &topic.name));
            }
        }
        declared.push(topic);
    }
    Ok(declared)
}

fn line(text: &str, span: &Range<usize>) -> usize {
    text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1)
}

impl DeclaredTopic {
    /// What it is called, as far as the file knows.
    fn names(&self) -> Vec<String> {
        if !self.is_set() {
            return vec![self.name.clone()];
        }
        // The pattern itself, too: two sets of one pattern would have one topic at the next tenant.
        let own = self.tenants.iter().map(|tenant| self.name_for(tenant));
        own.chain([self.name.clone()]).collect()
    }
}

impl Entry {
    fn read(&self, settings: &KafkaSettings) -> Result<DeclaredTopic, String> {
        let topic = DeclaredTopic {
            name: self.name.clone(),
            tenants: self.tenants.clone().unwrap_or_default(),
            partitions: number("partitions", self.partitions, settings.default_partitions, 10_000)?,
            replication_factor: number(
                "replication",
                self.replication,
                settings.replication_factor,
                100,
            )?,
            retention_ms: match &self.retention {
                Some(text) => retention(text)?,
                None => i64::from(settings.retention_days) * DAY_MS,
            },
            cleanup: match self.cleanup.as_deref() {
                None => Cleanup::Delete,
                Some(word) => Cleanup::parse(word).ok_or_else(|| {
                    format!("cleanup {word:?}: use delete, compact or compact,delete")
                })?,
            },
            max_message_bytes: number(
                "max_message_bytes",
                self.max_message_bytes,
                i64::from(settings.max_message_bytes),
                1 << 30,
            )?,
            key: match self.key.as_deref() {
                None => KeyStrategy::Random,
                Some(word) => KeyStrategy::parse(word)
                    .ok_or_else(|| format!("key {word:?}: use wallet, owner, tenant or random"))?,
            },
            events: self.events.unwrap_or_else(|| speaks_of_events(&self.name)),
        };
        self.check_names(&topic, settings)?;
        Ok(topic)
    }

    fn check_names(&self, topic: &DeclaredTopic, settings: &KafkaSettings) -> Result<(), String> {
        match (topic.is_set(), &self.tenants) {
            (false, Some(_)) => {
                return Err("tenants: put {tenant} into the name, or leave them out".to_owned());
            }
            (true, _) if topic.name_for("").contains(['{', '}']) => {
                return Err("name: use {tenant}, and no other braces".to_owned());
            }
            _ => {}
        }
        if let Some(tenant) = topic.tenants.iter().find(|tenant| !is_topic_part(tenant)) {
            return Err(format!(
                "tenant {tenant:?}: use 1 to 100 of a-z A-Z 0-9 . _ -, not ending in -dlq, not default"
            ));
        }
        let (events_topic, own) = (&settings.events_topic, settings.all_own_names());
        let example = topic.name_for("t");
        for name in topic.tenants.iter().map(|tenant| topic.name_for(tenant)).chain([example]) {
            legal("name", name.clone())
                .map_err(|_| format!("name {name}: use 1 to 249 of a-z A-Z 0-9 . _ -"))?;
            if own.contains(&name) {
                return Err(format!("{name} is the service's own, which its settings describe"));
            }
            if name.starts_with(&format!("{events_topic}.")) {
                return Err(format!(
                    "{name}: names that begin with {events_topic}. are those of tenants' own topics"
                ));
            }
        }
        Ok(())
    }
}

/// Whether a part of the name says so: `platform.events`.
fn speaks_of_events(name: &str) -> bool {
    name.split(['.', '-', '_']).any(|part| part == "events")
}

fn number<T>(name: &str, given: Option<i64>, default: T, most: i64) -> Result<T, String>
where
    T: TryFrom<i64>,
{
    let Some(given) = given else { return Ok(default) };
    let wrong = || format!("{name} {given}: use a whole number from 1 to {most}");
    if !(1..=most).contains(&given) {
        return Err(wrong());
    }
    T::try_from(given).map_err(|_| wrong())
}

/// `90d`, `12h`, `30m`, or `forever`.
fn retention(text: &str) -> Result<i64, String> {
    if text == "forever" {
        return Ok(-1);
    }
    let wrong = || format!("retention {text:?}: use 90d, 12h, 30m or forever");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let ms = match unit {
        'd' => DAY_MS,
        'h' => 3_600_000,
        'm' => 60_000,
        _ => return Err(wrong()),
    };
    let count: i64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    count.checked_mul(ms).filter(|ms| *ms > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::given;
    use super::*;

    fn load(text: &str) -> Result<Vec<DeclaredTopic>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().display().to_string();
        given(&[(NAME, &path)]).map(|(settings, _)| settings.kafka.declared)
    }

    #[test]
    fn what_is_left_out_is_as_the_settings_say() {
        let topics = load("[[topic]]\nname = \"platform.notifications\"\n").unwrap();
        let [topic] = topics.as_slice() else { panic!("{topics:?}") };
        assert_eq!((topic.partitions, topic.replication_factor), (10, 1));
        assert_eq!((topic.retention_ms, topic.cleanup), (7 * DAY_MS, Cleanup::Delete));
        assert_eq!((topic.key, topic.events, topic.is_set()), (KeyStrategy::Random, false, false));
        assert_eq!(load(""), Ok(Vec::new()));
    }

    #[test]
    fn a_set_has_a_topic_for_each_of_its_tenants() {
        let text = "[[topic]]\nname = \"audit.{tenant}.events\"\ntenants = [\"a\", \"b\"]\n\
                    retention = \"forever\"\ncleanup = \"compact,delete\"\nkey = \"tenant\"\n";
        let topics = load(text).unwrap();
        let [topic] = topics.as_slice() else { panic!("{topics:?}") };
        assert_eq!(topic.name_for("b"), "audit.b.events");
        assert_eq!((topic.retention_ms, topic.events, topic.is_set()), (-1, true, true));
    }

    #[test]
    fn what_cannot_be_is_refused_by_line_and_name() {
        let named = |rest: &str| format!("\n[[topic]]\nname = \"x.y\"\n{rest}\n");
        for (text, line, hint) in [
            ("[[topic]]\nname = 1".to_owned(), 2, "expected a string"),
            ("[[topic]]\nname = \"x\"\ncolour = 1".to_owned(), 3, "colour"),
            ("[[topic]\n".to_owned(), 1, ""),
            ("\n[[topic]]\npartitions = 1\n".to_owned(), 2, "name"),
            ("[[topic]]\nname = \"a b\"".to_owned(), 1, "a-z A-Z"),
            ("[[topic]]\nname = \"wallet-events\"".to_owned(), 1, "the service's own"),
            ("[[topic]]\nname = \"wallet-events.acme\"".to_owned(), 1, "tenants' own"),
            ("[[topic]]\nname = \"x\"\n[[topic]]\nname = \"x\"".to_owned(), 3, "stands twice"),
            ("[[topic]]\nname = \"x.{aggregate}\"".to_owned(), 1, "a-z A-Z"),
            ("[[topic]]\nname = \"x.{tenant}.{aggregate}\"".to_owned(), 1, "no other braces"),
            ("[[topic]]\nname = \"x.{tenant}\"\ntenants = [\"a b\"]".to_owned(), 1, "\"a b\""),
            (named("tenants = [\"a\"]"), 2, "put {tenant} into the name"),
            (named("partitions = 0"), 2, "partitions 0: use a whole number from 1"),
            (named("replication = 200"), 2, "replication 200"),
            (named("retention = \"7\""), 2, "90d"),
            (named("cleanup = \"keep\""), 2, "compact,delete"),
            (named("key = \"colour\""), 2, "wallet, owner, tenant or random"),
            (named("max_message_bytes = -1"), 2, "max_message_bytes -1"),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.starts_with(NAME) && error.contains(hint), "{text}: {error}");
            assert!(error.contains(&format!("line {line}: ")), "{text}: {error}");
        }
        let error = given(&[(NAME, "nowhere.toml")]).unwrap_err();
        assert!(error.starts_with("KAFKA_TOPICS_FILE=nowhere.toml") && error.contains("working"));
    }
}
