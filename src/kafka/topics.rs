//! The topics as they should be, pure: names, partitions, replicas and configurations.

use serde::Serialize;
use uuid::Uuid;

use crate::config::{Codec, KafkaSettings};

const DLQ_PARTITIONS: i32 = 5;
const DLQ_RETENTION_DAYS: u32 = 30;
const MAX_MESSAGE_BYTES: u32 = 10_485_760;

/// A topic as it should be.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: i32,
    pub replication_factor: i16,
    pub configs: Vec<(&'static str, String)>,
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    pub partitions: Vec<PartitionState>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionState {
    #[serde(rename = "partition")]
    pub number: i32,
    /// None: it is offline.
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

    /// Partitions without a leader: nobody can write to or read from them.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    pub topic: String,
    /// `partitions`, `replication.factor` or a configuration's name.
    pub what: String,
    pub wanted: String,
    pub actual: String,
}

impl TopicSpec {
    /// The topic of the events, over the frozen count of partitions.
    pub fn events(settings: &KafkaSettings, codec: Codec, partitions: i32) -> Self {
        Self::new(settings, &settings.events_topic, codec, partitions, settings.retention_days)
    }

    /// The topic of the dead letters.
    pub fn dead_letters(settings: &KafkaSettings, codec: Codec) -> Self {
        Self::new(settings, &settings.dlq_topic, codec, DLQ_PARTITIONS, DLQ_RETENTION_DAYS)
    }

    fn new(settings: &KafkaSettings, name: &str, codec: Codec, partitions: i32, days: u32) -> Self {
        let retention = u64::from(days) * 86_400_000;
        // The same codec on both sides: the broker then stores batches as they come.
        let compression = if codec == Codec::None { "uncompressed" } else { codec.as_str() };
        let mut configs = vec![
            ("retention.ms", retention.to_string()),
            ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
            ("compression.type", compression.to_owned()),
        ];
        if settings.replication_factor >= 3 {
            configs.push(("min.insync.replicas", "2".to_owned()));
        }
        Self {
            name: name.to_owned(),
            partitions,
            replication_factor: settings.replication_factor,
            configs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(replication_factor: i16) -> KafkaSettings {
        KafkaSettings {
            enabled: true,
            brokers: vec!["localhost:1".to_owned()],
            client_id: "test".to_owned(),
            events_topic: "wallet-events".to_owned(),
            dlq_topic: "wallet-events-dlq".to_owned(),
            connection_timeout: std::time::Duration::from_secs(1),
            request_timeout: std::time::Duration::from_secs(1),
            retry_max: std::time::Duration::from_secs(1),
            breaker: crate::config::BreakerSettings {
                failures: 5,
                successes: 2,
                reset: std::time::Duration::from_secs(300),
            },
            default_partitions: 10,
            replication_factor,
            retention_days: 7,
        }
    }

    #[test]
    fn topics_are_created_as_the_contract_says() {
        let events = TopicSpec::events(&settings(1), Codec::Gzip, 10);
        assert_eq!((events.name.as_str(), events.partitions), ("wallet-events", 10));
        let configs = [
            ("retention.ms", "604800000".to_owned()),
            ("max.message.bytes", "10485760".to_owned()),
            ("compression.type", "gzip".to_owned()),
        ];
        assert_eq!(events.configs, configs);
        let letters = TopicSpec::dead_letters(&settings(1), Codec::None);
        assert_eq!((letters.name.as_str(), letters.partitions), ("wallet-events-dlq", 5));
        assert!(letters.configs.contains(&("retention.ms", "2592000000".to_owned())));
        assert!(letters.configs.contains(&("compression.type", "uncompressed".to_owned())));
    }

    #[test]
    fn three_replicas_need_two_in_sync() {
        let events = TopicSpec::events(&settings(3), Codec::Gzip, 10);
        assert!(events.configs.contains(&("min.insync.replicas", "2".to_owned())));
    }
}
