//! The service's own topics, once: their creation, `wallex verify-kafka`, the health pages, which names
//! collide, the AsyncAPI document and the tests of the documents are made of this list.

use super::declared::name;
use super::error::{ConfigError, invalid};
use super::inbound::{DEAD_LETTERS, RETRIES};
use super::kafka::legal;
use super::{Cleanup, KafkaSettings, KeyStrategy};
use crate::schemas::Channel;

/// What one of them is called, and in which form it is made.
#[derive(Debug)]
pub struct OwnTopic {
    pub part: Part,
    /// The setting that its name begins with; none: its name is fixed.
    pub setting: Option<&'static str>,
    base: fn(&KafkaSettings) -> &str,
    /// How its name goes on.
    pub suffix: &'static str,
    /// Its place in the AsyncAPI document, where it has one.
    pub channel: Option<Channel>,
    pub key: KeyStrategy,
    partitions: Partitions,
    /// How long it keeps records; none: as is set.
    days: Option<u32>,
}

/// What it is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Events,
    /// Inbound commands, where they are on.
    Commands,
    /// Nothing yet: it is made where an operator asks for it ahead of its use.
    Audit,
}

/// How many it is made with.
#[derive(Debug, Clone, Copy)]
enum Partitions {
    AsSet,
    /// For little: as set, and no more than this.
    UpTo(i32),
    Exactly(i32),
}

/// Dead letters are kept for so many days.
const MONTH: Option<u32> = Some(30);

macro_rules! own_topics {
    ($(
        $(#[$about:meta])*
        $name:ident: $part:ident, $setting:expr, $base:expr, $suffix:expr, $channel:expr, $key:ident,
            $partitions:expr, $days:expr;
    )*) => {
        $(
            $(#[$about])*
            pub const $name: OwnTopic = OwnTopic {
                part: Part::$part,
                setting: $setting,
                base: $base,
                suffix: $suffix,
                channel: $channel,
                key: KeyStrategy::$key,
                partitions: $partitions,
                days: $days,
            };
        )*

        /// All of them.
        pub const OWN_TOPICS: &[OwnTopic] = &[$($name),*];
    };
}

own_topics! {
    /// Every event of every wallet.
    EVENTS: Events, Some(name::KAFKA_EVENTS_TOPIC), |set| &set.events_topic, "", Some(Channel::Events),
        Wallet, Partitions::AsSet, None;
    /// Records of the events topic that are no events.
    EVENT_LETTERS: Events, Some(name::KAFKA_DLQ_TOPIC), |set| &set.dlq_topic, "", Some(Channel::DeadLetters),
        Wallet, Partitions::Exactly(5), MONTH;
    COMMANDS: Commands, Some(name::KAFKA_COMMANDS_TOPIC), |set| &set.inbound.topic, "",
        Some(Channel::Commands), Wallet, Partitions::AsSet, None;
    RESULTS: Commands, Some(name::KAFKA_COMMAND_RESULTS_TOPIC), |set| &set.inbound.results_topic, "",
        Some(Channel::Results), Random, Partitions::AsSet, None;
    /// Commands that are not decided yet, and are tried again later.
    RETRY_1: Commands, Some(name::KAFKA_COMMANDS_TOPIC), |set| &set.inbound.topic, RETRIES[0], None,
        Wallet, Partitions::UpTo(4), None;
    RETRY_2: Commands, Some(name::KAFKA_COMMANDS_TOPIC), |set| &set.inbound.topic, RETRIES[1], None,
        Wallet, Partitions::UpTo(4), None;
    RETRY_3: Commands, Some(name::KAFKA_COMMANDS_TOPIC), |set| &set.inbound.topic, RETRIES[2], None,
        Wallet, Partitions::UpTo(4), None;
    /// Records that are no commands, and commands that were never decided.
    COMMAND_LETTERS: Commands, Some(name::KAFKA_COMMANDS_TOPIC), |set| &set.inbound.topic, DEAD_LETTERS,
        None, Wallet, Partitions::UpTo(5), MONTH;
    AUDIT: Audit, None, |_| "platform.audit", "", None, Tenant, Partitions::Exactly(8), Some(365);
}

impl OwnTopic {
    pub fn name(&self, settings: &KafkaSettings) -> String {
        format!("{}{}", (self.base)(settings), self.suffix)
    }

    pub fn partitions(&self, settings: &KafkaSettings) -> i32 {
        match self.partitions {
            Partitions::AsSet => settings.default_partitions,
            Partitions::UpTo(most) => most.min(settings.default_partitions),
            Partitions::Exactly(count) => count,
        }
    }

    pub fn retention_days(&self, settings: &KafkaSettings) -> u32 {
        self.days.unwrap_or(settings.retention_days)
    }

    pub fn cleanup(&self, settings: &KafkaSettings) -> Cleanup {
        let is_events = self.channel == Some(Channel::Events);
        if is_events { settings.cleanup } else { Cleanup::Delete }
    }

    /// Whether the service uses it, with these settings.
    pub fn is_used(&self, settings: &KafkaSettings) -> bool {
        match self.part {
            Part::Events => true,
            Part::Commands => settings.inbound.enabled,
            Part::Audit => false,
        }
    }
}

impl KafkaSettings {
    /// Those that the service uses.
    pub fn own_topics(&self) -> impl Iterator<Item = &'static OwnTopic> {
        OWN_TOPICS.iter().filter(move |topic| topic.is_used(self))
    }

    /// Names that are the service's whether it uses them or not.
    pub(super) fn all_own_names(&self) -> Vec<String> {
        let own = OWN_TOPICS.iter().filter(|topic| topic.part != Part::Audit);
        own.map(|topic| topic.name(self)).collect()
    }

    /// Refuses names that Kafka does not take, and a name for two topics, unless both are of dead letters.
    pub(super) fn check_own_names(&self) -> Result<(), ConfigError> {
        let mut before: Vec<(&OwnTopic, &str, String)> = Vec::new();
        for topic in OWN_TOPICS {
            let Some(setting) = topic.setting else { continue };
            let name = legal(setting, topic.name(self))?;
            let is_alike = |(other, _, taken): &&(&OwnTopic, &str, String)| {
                *taken == name && (topic.days, other.days) != (MONTH, MONTH)
            };
            if let Some((_, of_other, _)) = before.iter().find(is_alike) {
                // A name that is made of another is no mistake of that setting.
                let (wrong, right) = match topic.suffix {
                    "" => (setting, of_other),
                    _ => (*of_other, &setting),
                };
                let problem = format!("topics need names of their own: {right} has this one");
                return Err(invalid(wrong, &name, &problem));
            }
            before.push((topic, setting, name));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::schemas;

    #[test]
    fn every_record_with_a_form_has_a_topic_and_no_two_topics_are_one_channel() {
        let channels: Vec<Channel> = OWN_TOPICS.iter().filter_map(|own| own.channel).collect();
        let each: BTreeSet<Channel> = channels.iter().copied().collect();
        assert_eq!(each.len(), channels.len(), "{channels:?}");
        assert!(schemas::all().iter().all(|schema| each.contains(&schema.channel)));
    }
}
