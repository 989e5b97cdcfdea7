//! Inbound commands' settings: whether they are consumed, from which topics, and how retries wait.

use std::time::Duration;

use super::InboundSettings;
use super::declared::name;
use super::error::{ConfigError, invalid};
use super::kafka::legal;
use super::read::Reader;

/// The stages of a delayed retry as the topics' names tell them.
const STAGES: [&str; 3] = ["1min", "5min", "30min"];
const DEAD_LETTERS: &str = "_dlt";
const RETRY: &str = ".retry.";

impl InboundSettings {
    /// In the order in which a command goes through them.
    pub fn retry_topics(&self) -> [String; 3] {
        STAGES.map(|stage| format!("{}{RETRY}{stage}", self.topic))
    }

    pub fn dead_letter_topic(&self) -> String {
        format!("{}{DEAD_LETTERS}", self.topic)
    }

    /// All of them.
    pub fn topics(&self) -> Vec<String> {
        let mut topics = vec![self.topic.clone(), self.results_topic.clone()];
        topics.extend(self.retry_topics());
        topics.push(self.dead_letter_topic());
        topics
    }
}

impl Reader {
    pub(super) fn inbound(&self) -> Result<InboundSettings, ConfigError> {
        let (topic, results) = (name::KAFKA_COMMANDS_TOPIC, name::KAFKA_COMMAND_RESULTS_TOPIC);
        let settings = InboundSettings::read(self)?;
        let (events, letters) = self.topics()?;
        for derived in settings.retry_topics() {
            legal(topic, derived)?;
        }
        let names = settings.topics();
        for name in [&settings.topic, &settings.results_topic] {
            let uses = names.iter().filter(|other| *other == name).count();
            if uses > 1 || [&events, &letters].contains(&name) {
                let setting = if *name == settings.topic { topic } else { results };
                let problem = "commands and their results need topics of their own";
                return Err(invalid(setting, name, problem));
            }
        }
        Ok(settings)
    }

    pub(super) fn delays(&self, name: &str) -> Result<[Duration; 3], ConfigError> {
        let text = self.text(name)?;
        let wanted = "use three numbers of ms from 1 to 86400000, ascending: 60000,300000,1800000";
        let numbers: Option<Vec<u64>> =
            text.split(',').map(|number| number.trim().parse().ok()).collect();
        let numbers: Option<[u64; 3]> = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers
            .filter(|n| n.is_sorted() && n.iter().all(|n| (1..=86_400_000).contains(n)))
            .map(|numbers| numbers.map(Duration::from_millis))
            .ok_or_else(|| invalid(name, &text, wanted))
    }
}
