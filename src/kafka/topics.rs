//! The topics as they should be, pure: names, partitions, replicas and configurations.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::config::{Codec, EVENT_LETTERS, EVENTS, KafkaSettings, OWN_TOPICS, OwnTopic, Part};

pub use crate::config::KeyStrategy;

/// A topic as it should be.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: i32,
    pub replication_factor: i16,
    pub configs: Vec<(&'static str, String)>,
    pub key: KeyStrategy,
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    pub partitions: Vec<PartitionState>,
}

/// One partition of a topic, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionState {
    #[serde(rename = "partition")]
    pub number: i32,
    /// Null: it is offline.
    #[schema(required)]
    pub leader: Option<i32>,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

impl Topic {
    /// Partitions with fewer replicas in sync than they have replicas.
    pub fn under_replicated(&self) -> usize {
        let lacking = |p: &&PartitionState| p.in_sync.len() < p.replicas.len();
        self.partitions.iter().filter(lacking).count()
    }

    /// Partitions without a leader: they can be neither written nor read.
    pub fn offline(&self) -> usize {
        self.partitions.iter().filter(|p| p.leader.is_none()).count()
    }
}

/// What was done and what differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub created: Vec<String>,
    pub drift: Vec<Drift>,
}

/// One difference between a topic and its specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Drift {
    pub topic: String,
    /// `partitions`, `replication.factor` or a configuration's name.
    pub what: String,
    pub wanted: String,
    pub actual: String,
}

impl TopicSpec {
    /// One of the service's own.
    pub fn own(topic: &OwnTopic, settings: &KafkaSettings, codec: Codec) -> Self {
        let retention = u64::from(topic.retention_days(settings)) * 86_400_000;
        // The same codec on both sides: the broker then stores batches as they come.
        let compression = if codec == Codec::None { "uncompressed" } else { codec.as_str() };
        let mut configs = vec![
            ("retention.ms", retention.to_string()),
            ("max.message.bytes", settings.max_message_bytes.to_string()),
            ("compression.type", compression.to_owned()),
            ("cleanup.policy", topic.cleanup(settings).as_str().to_owned()),
        ];
        if settings.replication_factor >= 3 {
            configs.push(("min.insync.replicas", "2".to_owned()));
        }
        Self {
            name: topic.name(settings),
            partitions: topic.partitions(settings),
            replication_factor: settings.replication_factor,
            configs,
            key: topic.key,
        }
    }

    /// The topic of the events, over the frozen count of partitions.
    pub fn events(settings: &KafkaSettings, codec: Codec, partitions: i32) -> Self {
        Self { partitions, ..Self::own(&EVENTS, settings, codec) }
    }

    /// That topic and those beside it, which publisher and projectors cannot do without.
    pub fn all_of_events(settings: &KafkaSettings, codec: Codec, partitions: i32) -> Vec<Self> {
        let mut all = Self::of_part(Part::Events, settings, codec);
        let events = all.iter_mut().find(|spec| spec.name == settings.events_topic);
        events.into_iter().for_each(|spec| spec.partitions = partitions);
        all
    }

    /// The topic of the dead letters.
    pub fn dead_letters(settings: &KafkaSettings, codec: Codec) -> Self {
        Self::own(&EVENT_LETTERS, settings, codec)
    }

    /// A tenant's own two topics, in the form of those that all share.
    pub fn of_tenant(
        settings: &KafkaSettings,
        codec: Codec,
        tenant: &str,
        partitions: i32,
    ) -> [Self; 2] {
        let name = format!("{}.{tenant}", settings.events_topic);
        let letters = Self { name: format!("{name}-dlq"), ..Self::dead_letters(settings, codec) };
        [Self { name, ..Self::events(settings, codec, partitions) }, letters]
    }

    /// What inbound commands need: commands, results, delayed retries, dead letters.
    pub fn inbound(settings: &KafkaSettings, codec: Codec) -> Vec<Self> {
        Self::of_part(Part::Commands, settings, codec)
    }

    fn of_part(part: Part, settings: &KafkaSettings, codec: Codec) -> Vec<Self> {
        let own = OWN_TOPICS.iter().filter(|topic| topic.part == part);
        own.map(|topic| Self::own(topic, settings, codec)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cleanup;

    fn settings() -> KafkaSettings {
        crate::config::given(&[]).unwrap().0.kafka
    }

    #[test]
    fn topics_are_created_as_the_contract_says() {
        let events = TopicSpec::events(&settings(), Codec::Gzip, 10);
        assert_eq!((events.name.as_str(), events.partitions), ("wallet-events", 10));
        let configs = [
            ("retention.ms", "604800000".to_owned()),
            ("max.message.bytes", "10485760".to_owned()),
            ("compression.type", "gzip".to_owned()),
            ("cleanup.policy", "delete".to_owned()),
        ];
        assert_eq!(events.configs, configs);
        let letters = TopicSpec::dead_letters(&settings(), Codec::None);
        assert_eq!((letters.name.as_str(), letters.partitions), ("wallet-events-dlq", 5));
        assert!(letters.configs.contains(&("retention.ms", "2592000000".to_owned())));
        assert!(letters.configs.contains(&("compression.type", "uncompressed".to_owned())));
    }

    #[test]
    fn inbound_commands_have_six_topics() {
        let specs = TopicSpec::inbound(&settings(), Codec::Gzip);
        let shape = |spec: &TopicSpec| (spec.name.clone(), spec.partitions);
        let found: Vec<(String, i32)> = specs.iter().map(shape).collect();
        let wanted = [
            ("wallet-commands", 10),
            ("wallet-command-results", 10),
            ("wallet-commands.retry.1min", 4),
            ("wallet-commands.retry.5min", 4),
            ("wallet-commands.retry.30min", 4),
            ("wallet-commands_dlt", 5),
        ];
        assert_eq!(found, wanted.map(|(name, count)| (name.to_owned(), count)));
        let month = ("retention.ms", "2592000000".to_owned());
        let kept: Vec<bool> = specs.iter().map(|spec| spec.configs.contains(&month)).collect();
        assert_eq!(kept, [false, false, false, false, false, true]);
    }

    #[test]
    fn inbound_topics_have_as_many_partitions_as_the_settings_say() {
        let counts = |default_partitions| {
            let few = KafkaSettings { default_partitions, ..settings() };
            TopicSpec::inbound(&few, Codec::Gzip).iter().map(|spec| spec.partitions).collect()
        };
        let (few, many): (Vec<i32>, Vec<i32>) = (counts(3), counts(24));
        assert_eq!(few, [3, 3, 3, 3, 3, 3]);
        assert_eq!(many, [24, 24, 4, 4, 4, 5]);
    }

    #[test]
    fn a_tenant_has_topics_of_its_own_in_the_same_form() {
        let compacted = KafkaSettings { cleanup: Cleanup::CompactDelete, ..settings() };
        let [events, letters] = TopicSpec::of_tenant(&compacted, Codec::Gzip, "acme", 3);
        assert_eq!((events.name.as_str(), events.partitions), ("wallet-events.acme", 3));
        assert_eq!((letters.name.as_str(), letters.partitions), ("wallet-events.acme-dlq", 5));
        let cleaned = |by: &str| ("cleanup.policy", by.to_owned());
        assert!(events.configs.contains(&cleaned("compact,delete")));
        assert!(letters.configs.contains(&cleaned("delete")), "dead letters are never compacted");
    }

    #[test]
    fn a_partition_that_lacks_replicas_and_one_without_a_leader_are_counted() {
        let partition = |leader, in_sync: &[i32]| PartitionState {
            number: 0,
            leader,
            replicas: vec![1, 2, 3],
            in_sync: in_sync.to_vec(),
        };
        let partitions =
            vec![partition(Some(1), &[1, 2, 3]), partition(Some(1), &[1]), partition(None, &[])];
        let topic = Topic { name: "t".to_owned(), id: Uuid::nil(), partitions };
        assert_eq!((topic.under_replicated(), topic.offline()), (2, 1));
    }

    #[test]
    fn three_replicas_need_two_in_sync() {
        let events = TopicSpec::events(
            &KafkaSettings { replication_factor: 3, ..settings() },
            Codec::Gzip,
            10,
        );
        assert!(events.configs.contains(&("min.insync.replicas", "2".to_owned())));
    }
}
