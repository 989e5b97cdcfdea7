//! Settings: the only reader of the environment.
//!
//! flag > environment > `.env` in the working directory > TOML file (`WALLEX_CONFIG`, else
//! `wallex.toml` where there is one) > default. Every name, its default and its meaning stand in
//! [`names::SETTINGS`]; `.env.example` is compared with that table by a test.

mod access;
mod database;
mod elsewhere;
mod environment;
mod file;
mod inbound;
mod kafka;
mod layers;
mod log;
pub mod names;
mod producer;
mod read;
mod registry;
mod topics_file;

use std::net::IpAddr;
use std::time::Duration;

pub use access::{SaslMechanism, SaslSettings, SecretSource, TlsSettings};
pub use inbound::InboundSettings;
pub use kafka::{BreakerSettings, Cleanup, KafkaSettings, KeyStrategy, SecondSettings};
pub use read::{ConfigError, Explained, Notes, Overrides, explain, load, load_from};
pub use registry::RegistrySettings;
pub use topics_file::{DeclaredTopic, is_topic_part};

/// All settings, handed out piecewise: no room gets more than its own struct.
#[derive(Debug, Clone)]
pub struct Settings {
    pub http: HttpSettings,
    pub database: DatabaseSettings,
    pub commands: CommandSettings,
    pub kafka: KafkaSettings,
    /// None: nothing is published twice.
    pub second: Option<SecondSettings>,
    pub producer: ProducerSettings,
    pub consumer: ConsumerSettings,
    pub outbox: OutboxSettings,
    pub retention: RetentionSettings,
    /// None: schemas are registered nowhere.
    pub registry: Option<RegistrySettings>,
    pub log: LogSettings,
}

#[derive(Debug, Clone)]
pub struct HttpSettings {
    pub host: IpAddr,
    /// 0 takes any free port; the log says which.
    pub port: u16,
    pub require_idempotency_key: bool,
    /// Connections at once, if there are as many descriptors.
    pub max_connections: usize,
    /// How long a connection is kept for a further request.
    pub keep_alive: Duration,
    /// Whether `/api/health` speaks of Kafka.
    pub health_include_kafka: bool,
}

#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// `postgres://…`; from `DATABASE_URL`, or put together from the single settings.
    pub url: Secret,
    /// The owner's connection, for migrations; the same as `url` unless set.
    pub migration_url: Secret,
    pub max_connections: u32,
}

/// The lanes of the write path.
#[derive(Debug, Clone)]
pub struct CommandSettings {
    pub lanes: usize,
    /// Commands in one transaction, at most.
    pub batch_max: usize,
    /// Commands waiting in one lane, at most; more are answered 429.
    pub queue_max: usize,
}

#[derive(Debug, Clone)]
pub struct ProducerSettings {
    pub compression: Codec,
    /// Bytes of one produce request, at most; one larger record goes alone.
    pub max_request_bytes: usize,
    /// How long a partition's new events wait for more.
    pub linger: Duration,
    /// Bytes of waiting events that end the linger.
    pub batch_bytes: usize,
    /// Records have the headers of CloudEvents, too.
    pub cloud_events: bool,
}

/// A Kafka compression codec by its configuration name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    pub max_poll_records: usize,
    /// Bytes of one answer, as the topic has them; one larger batch comes whole.
    pub fetch_bytes: i32,
    /// For how long a silent instance keeps its partitions.
    pub session_timeout: Duration,
    pub max_wait: Duration,
    /// Put before both group names.
    pub group_prefix: String,
    pub feed_kafka: bool,
    pub feed_outbox: bool,
}

#[derive(Debug, Clone)]
pub struct OutboxSettings {
    /// Rows per partition and round.
    pub batch_size: i64,
    /// The same while behind.
    pub batch_max: i64,
    /// The safety net under the wake-up at commit.
    pub poll_interval: Duration,
}

/// How long what has done its service is kept.
#[derive(Debug, Clone)]
pub struct RetentionSettings {
    /// Outbox rows, from when they were processed.
    pub outbox: Duration,
    /// Stored answers.
    pub answers: Duration,
    /// Idempotency keys.
    pub keys: Duration,
    /// Dead letters that a person has settled, or that were replayed and have not failed since.
    pub letters: Duration,
    /// Ids of batches of commands. Not a setting: nobody but a COMMIT in doubt asks for them.
    pub batches: Duration,
    /// Between two walks over a table.
    pub rest: Duration,
    /// The same over the keys, which are read from end to end each time.
    pub rest_of_keys: Duration,
}

#[derive(Debug, Clone)]
pub struct LogSettings {
    /// A `tracing` filter: `info`, `wallex=debug,info`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    Pretty,
    Json,
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

impl Codec {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}
