//! Every setting, once. `.env.example` is written from here (`WALLEX_BLESS=1 cargo test --lib
//! config`), and so is what `wallex config print` lists.

use std::net::IpAddr;
use std::time::Duration;

use super::access::{FIRST, SECOND, SaslSettings, TlsSettings};
use super::declare::{Setting, settings, words};
use super::error::{ConfigError, Refused};
use super::read::Reader;
use super::{DeclaredTopic, RegistrySettings, Secret};

/// What one request can carry: the brokers' default of `socket.request.max.bytes`. The least that is accepted holds an event with all that a command may have.
const MESSAGE_BYTES: [u32; 2] = [131_072, 104_857_600];

/// Words of a switch.
const SWITCH: &[(&str, bool)] = &[("on", true), ("off", false)];

settings! {
    pub struct HttpSettings {
        /// address the HTTP server listens on (0.0.0.0 in a container)
        HOST = "127.0.0.1" => host: IpAddr = parsed("an IP address such as 127.0.0.1");
        /// port of the HTTP server; 0 takes any free one
        PORT = "3000" => port: u16 = parsed("a port, 0 to 65535");
        /// connections at once, as far as the process may have as many file descriptors
        HTTP_MAX_CONNECTIONS = "16384" => max_connections: usize = within(1, 1_000_000);
        /// seconds that an idle connection is kept for a further request: more than a proxy in front keeps its own
        HTTP_KEEP_ALIVE_SECONDS = "75" => keep_alive: Duration = seconds(1, 86_400);
        /// refuse a POST without an Idempotency-Key
        REQUIRE_IDEMPOTENCY_KEY = "false" => require_idempotency_key: bool = flag();
        /// include Kafka in the answer of /api/health
        HEALTH_INCLUDE_KAFKA = "false" => health_include_kafka: bool = flag();
        /// who may call: off, anybody, is the only mode there is; keep the port private
        AUTH_MODE = "off" checked by no_other_mode();
    }

    pub struct DatabaseSettings {
        /// postgres://user:password@host:port/name; wins over the five below
        DATABASE_URL = "";
        /// host of Postgres
        DATABASE_HOST = "localhost";
        /// port of Postgres
        DATABASE_PORT = "5434";
        /// database
        DATABASE_NAME = "wallex";
        /// login role
        DATABASE_USER = "postgres";
        /// its password; DATABASE_PASSWORD_FILE reads it from a file
        DATABASE_PASSWORD = secret;
        /// connections for reads (half of them) and for publisher and projectors; lanes and health have more
        DATABASE_MAX_CONNECTIONS = "10" => max_connections: u32 = within(2, 1000);
        /// the owner's connection for `wallex migrate`; the above unless set
        DATABASE_MIGRATION_URL = "";
    } with {
        /// `postgres://…`; from `DATABASE_URL`, or put together from the single settings.
        url: Secret = Reader::database_url;
        /// The owner's connection, for migrations; the same as `url` unless set.
        migration_url: Secret = Reader::migration_url;
    }

    /// The lanes of the write path.
    pub struct CommandSettings {
        /// lanes that write batches of commands, 1 to 16
        COMMAND_LANES = "1" => lanes: usize = within(1, 16);
        /// commands in one transaction, at most
        COMMAND_BATCH_MAX = "256" => batch_max: usize = within(1, 1000);
        /// commands waiting in one lane, at most; more are answered 429
        COMMAND_QUEUE_MAX = "4096" => queue_max: usize = within(1, 1_000_000);
        /// seconds that a hold lives whose caller does not say
        HOLD_TTL = "604800" => hold_ttl: Duration = seconds(1, 31_622_400);
        /// on, or off: commands whose events instances of the version before do not know are refused; off while those still run
        MONEY_EVENTS = "on" => money_events: bool = one_of(SWITCH);
    } with {
        /// How long the first answers of keys count.
        answers: Duration = |reader| reader.hours(name::IDEMPOTENCY_RETENTION_HOURS, 1);
    }

    pub struct KafkaSettings {
        /// publish to Kafka; false: ledger and read model are fed from Postgres alone
        KAFKA_ENABLED = "true" => enabled: bool = flag();
        /// comma-separated host:port list, no scheme
        KAFKA_BROKERS = "localhost:29092" => brokers: Vec<String> = brokers();
        /// client id shown to the brokers
        KAFKA_CLIENT_ID = "wallex-app" => client_id: String = text();
        /// topic of the events
        KAFKA_EVENTS_TOPIC = "wallet-events";
        /// topic of the dead letters
        KAFKA_DLQ_TOPIC = "wallet-events-dlq";
        /// topic of the events by template, billing-engine.{aggregate}.events; wins over both above
        KAFKA_TOPIC_TEMPLATE = "";
        /// TOML file of further topics, from the working directory; docs/topics.example.toml shows its form
        KAFKA_TOPICS_FILE = "";
        /// of the events topic: delete, compact,delete, or compact, which drops history by wallet
        KAFKA_CLEANUP_POLICY = "delete" => cleanup: Cleanup = word();
        /// TLS to the brokers, true or false; unset: true where every port is 9094
        KAFKA_SSL = "";
        /// another name for KAFKA_SSL
        KAFKA_TLS = "";
        /// another name for KAFKA_SSL
        KAFKA_SSL_ENABLED = "";
        /// PEM file of the authorities that may sign the brokers' certificates; unset: the system's
        KAFKA_SSL_CA_FILE = "";
        /// log in to the brokers, true or false; unset: true where a user is given
        KAFKA_SASL_ENABLED = "";
        /// plain, scram-sha-256 or scram-sha-512
        KAFKA_SASL_MECHANISM = "plain";
        /// user at the brokers
        KAFKA_SASL_USERNAME = "";
        /// its password; KAFKA_SASL_PASSWORD_FILE reads it from a file, again for each connection
        KAFKA_SASL_PASSWORD = secret;
        /// refuse to start when the brokers cannot be reached or refuse the login
        KAFKA_VALIDATE_ON_STARTUP = "false" => validate_on_startup: bool = flag();
        /// ms until a connection attempt is given up
        KAFKA_CONNECTION_TIMEOUT = "10000" => connection_timeout: Duration = millis();
        /// ms until an unanswered request is taken as of unknown outcome
        KAFKA_REQUEST_TIMEOUT = "30000" => request_timeout: Duration = millis();
        /// ms, the longest pause between two attempts
        KAFKA_RETRY_MAX_MS = "10000" => retry_max: Duration = millis();
        /// partitions of topics that the service creates
        DEFAULT_PARTITIONS = "10" => default_partitions: i32 = within(1, 10_000);
        /// replicas of topics that the service creates
        DEFAULT_REPLICATION_FACTOR = "1" => replication_factor: i16 = within(1, 100);
        /// max.message.bytes of topics that the service creates: bytes of one batch
        KAFKA_MAX_MESSAGE_BYTES = "10485760"
            => max_message_bytes: u32 = within(MESSAGE_BYTES[0], MESSAGE_BYTES[1]);
        /// days that the events topic keeps records
        MESSAGE_RETENTION_DAYS = "7" => retention_days: u32 = within(1, 36_500);
    } with {
        events_topic: String = |reader| Ok(reader.topics()?.0);
        dlq_topic: String = |reader| Ok(reader.topics()?.1);
        inbound: InboundSettings = InboundSettings::read;
        breaker: BreakerSettings = BreakerSettings::read;
        /// None: plain text.
        tls: Option<TlsSettings> = |reader| reader.tls(&FIRST);
        /// None: no login.
        sasl: Option<SaslSettings> = |reader| reader.sasl(&FIRST);
        /// Further topics, from `KAFKA_TOPICS_FILE`; read last, with the other settings as defaults.
        declared: Vec<DeclaredTopic> = |_| Ok(Vec::new());
    }

    /// When Kafka counts as out of reach, and as back.
    pub struct BreakerSettings {
        /// failures in a row after which only a cheap probe asks whether Kafka is back
        KAFKA_BREAKER_FAILURES = "5" => failures: u32 = within(1, 1000);
        /// good probes in a row that end it
        KAFKA_BREAKER_SUCCESSES = "2" => successes: u32 = within(1, 1000);
        /// ms, the longest time without a full attempt, whatever the probe says
        KAFKA_BREAKER_RESET_MS = "300000" => reset: Duration = millis();
    }

    /// A second place for the events of the first: while a deployment moves from one to the other.
    pub struct SecondSettings {
        /// a second topic that gets every event, too: for moving over; unset: none, or the first's name
        KAFKA_SECOND_TOPIC = "";
        /// its cluster, as a host:port list; unset: the first's, with the first's security
        KAFKA_SECOND_BROKERS = "";
        /// where a second topic that is new begins: beginning (of all events) or now
        KAFKA_SECOND_FROM = "beginning" => from_now: bool = one_of(&[("beginning", false), ("now", true)]);
        /// as KAFKA_SSL, for KAFKA_SECOND_BROKERS; so are the next five
        KAFKA_SECOND_SSL = "";
        /// as KAFKA_SSL_CA_FILE
        KAFKA_SECOND_SSL_CA_FILE = "";
        /// as KAFKA_SASL_ENABLED
        KAFKA_SECOND_SASL_ENABLED = "";
        /// as KAFKA_SASL_MECHANISM
        KAFKA_SECOND_SASL_MECHANISM = "plain";
        /// as KAFKA_SASL_USERNAME
        KAFKA_SECOND_SASL_USERNAME = "";
        /// as KAFKA_SASL_PASSWORD, KAFKA_SECOND_SASL_PASSWORD_FILE too
        KAFKA_SECOND_SASL_PASSWORD = secret;
    } with {
        /// The first's settings, but for the topic, the cluster and the way into it.
        kafka: KafkaSettings = Reader::second_kafka;
        /// On a cluster of its own, with settings of its own for the way in.
        apart: bool = |reader| reader.is_set(SECOND.brokers);
    }

    pub struct ProducerSettings {
        /// only all, which is -1, is accepted: anything else could lose events
        PRODUCER_ACKS = "all" checked by one_of(&[("all", ()), ("-1", ())]);
        /// gzip, snappy, lz4, zstd or none; also the topic's compression.type
        PRODUCER_COMPRESSION = "gzip" => compression: Codec = word();
        /// low-latency (no linger) or throughput (5 ms); the two below win over it
        PRODUCER_PROFILE = "low-latency";
        /// ms that new events of a partition wait for more, 0 to 10000; unset: as the profile has it
        PRODUCER_LINGER_MS = "" => linger: Duration = linger();
        /// bytes of a partition's waiting events that end the linger; unset: 16384
        PRODUCER_BATCH_BYTES = "" => batch_bytes: usize = batch_bytes();
        /// bytes of one produce request, at most; a larger record goes alone
        PRODUCER_MAX_REQUEST_BYTES = "900000" => max_request_bytes: usize = max_request_bytes();
        /// only this, without end, is accepted: anything less could lose events
        PRODUCER_RETRIES = "2147483647" checked by no_last_attempt();
        /// give each record of the events topic the headers of CloudEvents 1.0, binary mode, as well
        KAFKA_CLOUDEVENTS = "false" => cloud_events: bool = flag();
    }

    pub struct ConsumerSettings {
        /// records of one partition that a projector applies at once, at most
        CONSUMER_MAX_POLL_RECORDS = "500" => max_poll_records: usize = within(1, 10_000);
        /// bytes of one partition that a projector fetches at once; a larger batch comes whole
        CONSUMER_MAX_PARTITION_FETCH_BYTES = "65536" => fetch_bytes: i32 = fetch_bytes();
        /// the same for one answer; each is of one partition, so the lower one counts
        CONSUMER_FETCH_MAX_BYTES = "";
        /// ms that a fetch waits for records
        CONSUMER_MAX_WAIT_MS = "500" => max_wait: Duration = millis();
        /// ms that a silent instance keeps its partitions, of publisher and projectors; renewed at 3/10 of it
        CONSUMER_SESSION_TIMEOUT_MS = "10000" => session_timeout: Duration = millis_within(1000, 600_000);
        /// prefix of the group names; parted from them by - unless it ends in - . or _
        CONSUMER_GROUP_ID = "" => group_prefix: String = group_prefix();
        /// where projectors read: kafka, outbox (straight from Postgres), or both
        PROJECTOR_FEEDS = "kafka,outbox";
    } with {
        feed_kafka: bool = |reader| Ok(reader.feeds()?.contains(&"kafka".to_owned()));
        feed_outbox: bool = |reader| Ok(reader.feeds()?.contains(&"outbox".to_owned()));
    }

    #[derive(PartialEq, Eq)]
    pub struct InboundSettings {
        /// execute the commands of KAFKA_COMMANDS_TOPIC; false: its topics are not made
        CONSUMER_COMMANDS_ENABLED = "true" => enabled: bool = flag();
        /// topic of inbound commands; its retry topics and dead letters are named after it
        KAFKA_COMMANDS_TOPIC = "wallet-commands" => topic: String = topic();
        /// topic of the results of inbound commands
        KAFKA_COMMAND_RESULTS_TOPIC = "wallet-command-results" => results_topic: String = topic();
        /// ms that a command waits in each of its three retry topics
        CONSUMER_RETRY_DELAYS_MS = "60000,300000,1800000" => delays: [Duration; 3] = delays();
    }

    pub struct OutboxSettings {
        /// events per partition and round of the publisher, and the rest of the last batch
        OUTBOX_BATCH_SIZE = "100" => batch_size: i64 = within(1, 10_000);
        /// the same while behind
        OUTBOX_BATCH_MAX = "1000" => batch_max: i64 = batch_max();
        /// ms between polls of the outbox: the net under the wake-up at commit
        OUTBOX_POLL_INTERVAL_MS = "5000" => poll_interval: Duration = millis();
    }

    /// How long what has done its service is kept.
    pub struct RetentionSettings {
        /// hours that processed outbox rows are kept; events are kept for ever
        OUTBOX_RETENTION_HOURS = "168" => outbox: Duration = hours(1);
        /// hours that first answers are kept; a later retry is answered that it took effect
        IDEMPOTENCY_RETENTION_HOURS = "24" => answers: Duration = hours(1);
        /// days that keys are kept; a later retry has a second effect
        IDEMPOTENCY_KEY_RETENTION_DAYS = "365" => keys: Duration = key_retention();
        /// days that dead letters are kept once they are settled or replayed; open ones for ever
        DEAD_LETTER_RETENTION_DAYS = "30" => letters: Duration = hours(24);
    } with {
        /// Ids of batches of commands. Not a setting: only a COMMIT in doubt asks for them.
        batches: Duration = |_| Ok(Duration::from_hours(1));
        /// Between two walks over a table.
        rest: Duration = |_| Ok(Duration::from_secs(10));
        /// The same over the keys, which are read from end to end each time.
        rest_of_keys: Duration = |_| Ok(Duration::from_mins(10));
    }

    pub struct LogSettings {
        /// off, error, warn, info, debug, trace, or a filter such as wallex=debug,info
        LOG_LEVEL = "info" => level: String = level();
        /// pretty, json, or auto: pretty on a terminal, json elsewhere
        LOG_FORMAT = "auto" => format: LogFormat = word();
    }

    /// All settings, handed out piecewise: no room gets more than its own struct.
    pub struct Settings {
        /// registry of the records' schemas, http://host:8081 or https://user:password@host/apis/ccompat/v7
        SCHEMA_REGISTRY_URL = "" => registry: Option<RegistrySettings> = registry();
    } with {
        http: HttpSettings = HttpSettings::read;
        database: DatabaseSettings = DatabaseSettings::read;
        commands: CommandSettings = CommandSettings::read;
        kafka: KafkaSettings = Reader::kafka;
        /// None: nothing is published twice.
        second: Option<SecondSettings> = Reader::second;
        producer: ProducerSettings = ProducerSettings::read;
        consumer: ConsumerSettings = ConsumerSettings::read;
        outbox: OutboxSettings = OutboxSettings::read;
        retention: RetentionSettings = RetentionSettings::read;
        log: LogSettings = LogSettings::read;
    }
}

words! {
    /// A Kafka compression codec.
    pub enum Codec {
        Gzip = "gzip",
        Snappy = "snappy",
        Lz4 = "lz4",
        Zstd = "zstd",
        None = "none",
    }

    /// What the broker does with old records.
    pub enum Cleanup {
        Delete = "delete",
        /// Keeps the last record of each key only: a wallet's history goes.
        Compact = "compact",
        CompactDelete = "compact,delete",
    }

    /// What a topic's records are keyed by. Records of one key keep their order: the events of a
    /// wallet are keyed by it, always.
    pub enum KeyStrategy {
        Wallet = "wallet",
        Owner = "owner",
        Tenant = "tenant",
        /// A key of its own for each record: spread evenly, without an order.
        Random = "random",
    }

    pub enum SaslMechanism {
        Plain = "plain",
        ScramSha256 = "scram-sha-256",
        ScramSha512 = "scram-sha-512",
    }

    pub enum LogFormat {
        /// Pretty on a terminal, JSON elsewhere.
        Auto = "auto",
        Pretty = "pretty",
        Json = "json",
    }
}
