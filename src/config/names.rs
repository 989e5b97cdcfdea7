//! Every setting: its name, its default and one line of meaning.

/// One setting as users know it.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    /// Empty: unset.
    pub default: &'static str,
    pub meaning: &'static str,
    /// Never shown.
    pub secret: bool,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning, secret: false }
}

const fn secret(name: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default: "", meaning, secret: true }
}

/// In the order of `.env.example`.
pub const SETTINGS: &[Setting] = &[
    setting("HOST", "127.0.0.1", "address the HTTP server listens on (0.0.0.0 in a container)"),
    setting("PORT", "3000", "port of the HTTP server; 0 takes any free one"),
    setting(
        "HTTP_MAX_CONNECTIONS",
        "16384",
        "connections at once, as far as the process may have as many file descriptors",
    ),
    setting(
        "HTTP_KEEP_ALIVE_SECONDS",
        "75",
        "seconds that an idle connection is kept for a further request: more than a proxy in front keeps its own",
    ),
    setting("REQUIRE_IDEMPOTENCY_KEY", "false", "refuse a POST without an Idempotency-Key"),
    setting("HEALTH_INCLUDE_KAFKA", "false", "let /api/health speak of Kafka as well"),
    setting(
        "DATABASE_URL",
        "",
        "postgres://user:password@host:port/name; wins over the five below",
    ),
    setting("DATABASE_HOST", "localhost", "host of Postgres"),
    setting("DATABASE_PORT", "5434", "port of Postgres"),
    setting("DATABASE_NAME", "wallex", "database"),
    setting("DATABASE_USER", "postgres", "login role"),
    secret("DATABASE_PASSWORD", "its password; DATABASE_PASSWORD_FILE reads it from a file"),
    setting(
        "DATABASE_MAX_CONNECTIONS",
        "10",
        "connections for reads (half of them) and for publisher and projectors; lanes and health have more",
    ),
    setting(
        "DATABASE_MIGRATION_URL",
        "",
        "the owner's connection for `wallex migrate`; the above unless set",
    ),
    setting("COMMAND_LANES", "1", "lanes that write batches of commands, 1 to 16"),
    setting("COMMAND_BATCH_MAX", "256", "commands in one transaction, at most"),
    setting(
        "COMMAND_QUEUE_MAX",
        "4096",
        "commands waiting in one lane, at most; more are answered 429",
    ),
    setting(
        "KAFKA_ENABLED",
        "true",
        "publish to Kafka; false: ledger and read model are fed from Postgres alone",
    ),
    setting("KAFKA_BROKERS", "localhost:29092", "comma-separated host:port list, no scheme"),
    setting("KAFKA_CLIENT_ID", "wallex-app", "client id shown to the brokers"),
    setting("KAFKA_EVENTS_TOPIC", "wallet-events", "topic of the events"),
    setting("KAFKA_DLQ_TOPIC", "wallet-events-dlq", "topic of the dead letters"),
    setting(
        "KAFKA_COMMANDS_TOPIC",
        "wallet-commands",
        "topic of inbound commands; its retry topics and dead letters are named after it",
    ),
    setting(
        "KAFKA_COMMAND_RESULTS_TOPIC",
        "wallet-command-results",
        "topic of the results of inbound commands",
    ),
    setting(
        "KAFKA_TOPIC_TEMPLATE",
        "",
        "topic of the events by template, billing-engine.{aggregate}.events; wins over both above",
    ),
    setting(
        "KAFKA_TOPICS_FILE",
        "",
        "TOML file of further topics, from the working directory; docs/topics.example.toml shows its form",
    ),
    setting(
        "KAFKA_CLEANUP_POLICY",
        "delete",
        "of the events topic: delete, compact,delete, or compact, which drops history by wallet",
    ),
    setting(
        "KAFKA_CLOUDEVENTS",
        "false",
        "give each record of the events topic the headers of CloudEvents 1.0, binary mode, as well",
    ),
    setting(
        "KAFKA_SSL",
        "",
        "TLS to the brokers, true or false; unset: true where every port is 9094",
    ),
    setting("KAFKA_TLS", "", "another name for KAFKA_SSL"),
    setting("KAFKA_SSL_ENABLED", "", "another name for KAFKA_SSL"),
    setting(
        "KAFKA_SSL_CA_FILE",
        "",
        "PEM file of the authorities that may sign the brokers' certificates; unset: the system's",
    ),
    setting(
        "KAFKA_SASL_ENABLED",
        "",
        "log in to the brokers, true or false; unset: true where a user is given",
    ),
    setting("KAFKA_SASL_MECHANISM", "plain", "plain, scram-sha-256 or scram-sha-512"),
    setting("KAFKA_SASL_USERNAME", "", "user at the brokers"),
    secret(
        "KAFKA_SASL_PASSWORD",
        "its password; KAFKA_SASL_PASSWORD_FILE reads it from a file, anew for each connection",
    ),
    setting(
        "KAFKA_VALIDATE_ON_STARTUP",
        "false",
        "do not start where the brokers cannot be reached or do not let the service in",
    ),
    setting(
        "KAFKA_SECOND_TOPIC",
        "",
        "a second topic that gets every event, too: for moving over; unset: none, or the first's name",
    ),
    setting(
        "KAFKA_SECOND_BROKERS",
        "",
        "its cluster, as a host:port list; unset: the first's, with the first's security",
    ),
    setting(
        "KAFKA_SECOND_FROM",
        "beginning",
        "where a second topic that is new begins: beginning (of all events) or now",
    ),
    setting("KAFKA_SECOND_SSL", "", "as KAFKA_SSL, for KAFKA_SECOND_BROKERS; so are the next five"),
    setting("KAFKA_SECOND_SSL_CA_FILE", "", "as KAFKA_SSL_CA_FILE"),
    setting("KAFKA_SECOND_SASL_ENABLED", "", "as KAFKA_SASL_ENABLED"),
    setting("KAFKA_SECOND_SASL_MECHANISM", "plain", "as KAFKA_SASL_MECHANISM"),
    setting("KAFKA_SECOND_SASL_USERNAME", "", "as KAFKA_SASL_USERNAME"),
    secret(
        "KAFKA_SECOND_SASL_PASSWORD",
        "as KAFKA_SASL_PASSWORD, KAFKA_SECOND_SASL_PASSWORD_FILE too",
    ),
    setting("KAFKA_CONNECTION_TIMEOUT", "10000", "ms until a connection attempt is given up"),
    setting(
        "KAFKA_REQUEST_TIMEOUT",
        "30000",
        "ms until an unanswered request is taken as of unknown outcome",
    ),
    setting("KAFKA_RETRY_MAX_MS", "10000", "ms, the longest pause between two attempts"),
    setting(
        "KAFKA_BREAKER_FAILURES",
        "5",
        "failures in a row after which only a cheap probe asks whether Kafka is back",
    ),
    setting("KAFKA_BREAKER_SUCCESSES", "2", "good probes in a row that end it"),
    setting(
        "KAFKA_BREAKER_RESET_MS",
        "300000",
        "ms, the longest time without a full attempt, whatever the probe says",
    ),
    setting("DEFAULT_PARTITIONS", "10", "partitions of topics that the service creates"),
    setting("DEFAULT_REPLICATION_FACTOR", "1", "replicas of topics that the service creates"),
    setting(
        "KAFKA_MAX_MESSAGE_BYTES",
        "10485760",
        "max.message.bytes of topics that the service creates: bytes of one batch",
    ),
    setting("MESSAGE_RETENTION_DAYS", "7", "days that the events topic keeps records"),
    setting(
        "PRODUCER_ACKS",
        "all",
        "only all, which is -1, is accepted: anything else could lose events",
    ),
    setting(
        "PRODUCER_COMPRESSION",
        "gzip",
        "gzip, snappy, lz4, zstd or none; also the topic's compression.type",
    ),
    setting(
        "PRODUCER_PROFILE",
        "low-latency",
        "low-latency (no linger) or throughput (5 ms); the two below win over it",
    ),
    setting(
        "PRODUCER_LINGER_MS",
        "",
        "ms that new events of a partition wait for more, 0 to 10000; unset: as the profile has it",
    ),
    setting(
        "PRODUCER_BATCH_BYTES",
        "",
        "bytes of a partition's waiting events that end the linger; unset: 16384",
    ),
    setting(
        "PRODUCER_MAX_REQUEST_BYTES",
        "900000",
        "bytes of one produce request, at most; a larger record goes alone",
    ),
    setting(
        "PRODUCER_RETRIES",
        "2147483647",
        "only this, without end, is accepted: anything less could lose events",
    ),
    setting(
        "CONSUMER_MAX_POLL_RECORDS",
        "500",
        "records of one partition that a projector applies at once, at most",
    ),
    setting(
        "CONSUMER_MAX_PARTITION_FETCH_BYTES",
        "65536",
        "bytes of one partition that a projector fetches at once; a larger batch comes whole",
    ),
    setting(
        "CONSUMER_FETCH_MAX_BYTES",
        "",
        "the same for one answer; each is of one partition, so the lower one counts",
    ),
    setting("CONSUMER_MAX_WAIT_MS", "500", "ms that a fetch waits for records"),
    setting(
        "CONSUMER_SESSION_TIMEOUT_MS",
        "10000",
        "ms that a silent instance keeps its partitions, of publisher and projectors; renewed at 3/10 of it",
    ),
    setting(
        "CONSUMER_COMMANDS_ENABLED",
        "true",
        "execute the commands of KAFKA_COMMANDS_TOPIC; false: its topics are not made",
    ),
    setting(
        "CONSUMER_RETRY_DELAYS_MS",
        "60000,300000,1800000",
        "ms that a command waits in each of its three retry topics",
    ),
    setting(
        "CONSUMER_GROUP_ID",
        "",
        "prefix of the group names; parted from them by - unless it ends in - . or _",
    ),
    setting(
        "PROJECTOR_FEEDS",
        "kafka,outbox",
        "where projectors read: kafka, outbox (straight from Postgres), or both",
    ),
    setting("OUTBOX_BATCH_SIZE", "100", "rows per partition and round of the publisher"),
    setting("OUTBOX_BATCH_MAX", "1000", "the same while behind"),
    setting(
        "OUTBOX_POLL_INTERVAL_MS",
        "5000",
        "ms between polls of the outbox: the net under the wake-up at commit",
    ),
    setting(
        "OUTBOX_RETENTION_HOURS",
        "168",
        "hours that processed outbox rows are kept; events are kept for ever",
    ),
    setting(
        "IDEMPOTENCY_RETENTION_HOURS",
        "24",
        "hours that first answers are kept; a later retry is told that it took effect",
    ),
    setting(
        "IDEMPOTENCY_KEY_RETENTION_DAYS",
        "365",
        "days that keys are kept; a later retry has a second effect",
    ),
    setting(
        "DEAD_LETTER_RETENTION_DAYS",
        "30",
        "days that dead letters are kept once they are settled or replayed; open ones for ever",
    ),
    setting(
        "AUTH_MODE",
        "off",
        "who may call: off, anybody, is the only mode there is; keep the port private",
    ),
    setting(
        "SCHEMA_REGISTRY_URL",
        "",
        "registry of the records' schemas, http://host:8081 or https://user:password@host/apis/ccompat/v7",
    ),
    setting(
        "LOG_LEVEL",
        "info",
        "off, error, warn, info, debug, trace, or a filter such as wallex=debug,info",
    ),
    setting("LOG_FORMAT", "auto", "pretty, json, or auto: pretty on a terminal, json elsewhere"),
];

/// Names read by tools around the service, not by `Settings`.
pub const AROUND: &[&str] = &[
    "WALLEX_CONFIG",
    "WALLEX_KAFKA_HOME",
    "WALLEX_PGBOUNCER",
    "WALLEX_POSTGRES_16",
    "WALLEX_POSTGRES_17",
    "WALLEX_POSTGRES_18",
    "WALLEX_POSTGRES_BIN",
    "WALLEX_REGISTRY_HOME",
];

/// Prefixes under which an unknown name is most likely a misspelt setting.
pub const WATCHED_PREFIXES: &[&str] = &[
    "KAFKA_",
    "OUTBOX_",
    "PRODUCER_",
    "CONSUMER_",
    "DATABASE_",
    "COMMAND_",
    "IDEMPOTENCY_",
    "PROJECTOR_",
    "SCHEMA_REGISTRY_",
    "AUTH_",
];

/// The setting whose name is most like this one; none: none is like it.
pub fn nearest(name: &str) -> Option<&'static str> {
    let names = SETTINGS.iter().map(|setting| setting.name);
    let near = names.map(|known| (distance(name, known), known)).min()?;
    // A third of the letters wrong: another name.
    (near.0 * 3 <= name.len()).then_some(near.1)
}

/// How many letters are to be added, left out or changed to make one of the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.bytes().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        let mut next = vec![left];
        for (wanted, up) in to.bytes().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(wanted != letter)).min(left + 1).min(up + 1);
            diagonal = *up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
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
        assert_eq!(found, example(), "WALLEX_BLESS=1 cargo test writes it anew");
    }
}
