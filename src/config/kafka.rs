//! Kafka's settings: which clusters there are, what the topics are called, how long to wait.
//!
//! What cannot work is refused here, by name, before anything is started: a password without a user,
//! a CA without TLS, names of one switch that contradict each other.

use std::time::Duration;

use super::access::{Brokers, SaslSettings, TlsSettings};
use super::read::{ConfigError, Reader, invalid};
use super::{DeclaredTopic, InboundSettings};

/// Three names of one switch, since all of them are in use.
const TLS_SWITCHES: [&str; 3] = ["KAFKA_SSL", "KAFKA_TLS", "KAFKA_SSL_ENABLED"];

/// An event with all that a command may hold must fit.
const MESSAGE_BYTES_LEAST: u32 = 131_072;
/// What one request can carry: the brokers' `socket.request.max.bytes`, unless they are told otherwise.
const MESSAGE_BYTES_MOST: u32 = 104_857_600;

#[derive(Debug, Clone)]
pub struct KafkaSettings {
    pub enabled: bool,
    /// `host:port`, at least one.
    pub brokers: Vec<String>,
    pub client_id: String,
    pub events_topic: String,
    pub dlq_topic: String,
    pub inbound: InboundSettings,
    pub connection_timeout: Duration,
    pub request_timeout: Duration,
    /// The longest pause between two attempts.
    pub retry_max: Duration,
    pub default_partitions: i32,
    pub replication_factor: i16,
    /// Of one batch in the service's own topics.
    pub max_message_bytes: u32,
    pub retention_days: u32,
    /// Of the events topic.
    pub cleanup: Cleanup,
    pub breaker: BreakerSettings,
    /// None: plain text.
    pub tls: Option<TlsSettings>,
    /// None: no login.
    pub sasl: Option<SaslSettings>,
    /// The service does not start where the brokers do not let it in.
    pub validate_on_startup: bool,
    /// Further topics, from `KAFKA_TOPICS_FILE`.
    pub declared: Vec<DeclaredTopic>,
}

/// A second place for the events of the first: while a deployment moves from one to the other.
#[derive(Debug, Clone)]
pub struct SecondSettings {
    /// The first's settings, but for the topic, the cluster and the way into it.
    pub kafka: KafkaSettings,
    /// On a cluster of its own, with settings of its own for the way in.
    pub apart: bool,
    /// Where it is new: it gets events from now on only.
    pub from_now: bool,
}

/// What the broker does with old records, by its configuration name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    Delete,
    /// Keeps the last record of each key only: a wallet's history goes.
    Compact,
    CompactDelete,
}

/// What a topic's records are keyed by. Records of one key keep their order: the events of a wallet
/// are keyed by it, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStrategy {
    Wallet,
    Owner,
    Tenant,
    /// A key of its own for each record: spread evenly, without an order.
    Random,
}

impl KeyStrategy {
    pub const WORDS: &[(&str, Self)] = &[
        ("wallet", Self::Wallet),
        ("owner", Self::Owner),
        ("tenant", Self::Tenant),
        ("random", Self::Random),
    ];

    pub fn parse(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, key)| *key)
    }

    pub fn as_str(self) -> &'static str {
        let word = Self::WORDS.iter().find(|(_, key)| *key == self);
        word.map_or("", |(word, _)| word)
    }
}

/// When Kafka counts as out of reach, and as back.
#[derive(Debug, Clone)]
pub struct BreakerSettings {
    /// Failures in a row that open it.
    pub failures: u32,
    /// Good probes in a row that close it.
    pub successes: u32,
    /// The longest time without a full attempt.
    pub reset: Duration,
}

impl Cleanup {
    pub const ALL: [Self; 3] = [Self::Delete, Self::Compact, Self::CompactDelete];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactDelete => "compact,delete",
        }
    }
}

/// A topic's name, where Kafka takes it.
pub(super) fn legal(name: &str, topic: String) -> Result<String, ConfigError> {
    let legal = (1..=249).contains(&topic.len())
        && topic.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !matches!(topic.as_str(), "." | "..");
    if legal { Ok(topic) } else { Err(invalid(name, &topic, "use 1 to 249 of a-z A-Z 0-9 . _ -")) }
}

impl Reader {
    pub(super) fn kafka(&self) -> Result<KafkaSettings, ConfigError> {
        let brokers = Brokers {
            name: "KAFKA_BROKERS",
            prefix: "KAFKA_",
            tls_switches: &TLS_SWITCHES,
            list: self.brokers("KAFKA_BROKERS")?,
        };
        let tls = self.tls(&brokers)?;
        let (events_topic, dlq_topic) = self.topics()?;
        if events_topic == dlq_topic {
            return Err(invalid(
                "KAFKA_DLQ_TOPIC",
                &dlq_topic,
                "the dead letters need a topic of their own, other than KAFKA_EVENTS_TOPIC",
            ));
        }
        let inbound = self.inbound([&events_topic, &dlq_topic])?;
        let mut settings = KafkaSettings {
            enabled: self.flag("KAFKA_ENABLED")?,
            brokers: brokers.list,
            client_id: self.text("KAFKA_CLIENT_ID")?,
            events_topic,
            dlq_topic,
            inbound,
            connection_timeout: self.millis("KAFKA_CONNECTION_TIMEOUT")?,
            request_timeout: self.millis("KAFKA_REQUEST_TIMEOUT")?,
            retry_max: self.millis("KAFKA_RETRY_MAX_MS")?,
            default_partitions: self.within("DEFAULT_PARTITIONS", 1, 10_000)?,
            replication_factor: self.within("DEFAULT_REPLICATION_FACTOR", 1, 100)?,
            max_message_bytes: self.within(
                "KAFKA_MAX_MESSAGE_BYTES",
                MESSAGE_BYTES_LEAST,
                MESSAGE_BYTES_MOST,
            )?,
            retention_days: self.within("MESSAGE_RETENTION_DAYS", 1, 36_500)?,
            cleanup: self.one_of(
                "KAFKA_CLEANUP_POLICY",
                &Cleanup::ALL.map(|cleanup| (cleanup.as_str(), cleanup)),
            )?,
            breaker: BreakerSettings {
                failures: self.within("KAFKA_BREAKER_FAILURES", 1, 1000)?,
                successes: self.within("KAFKA_BREAKER_SUCCESSES", 1, 1000)?,
                reset: self.millis("KAFKA_BREAKER_RESET_MS")?,
            },
            tls,
            sasl: self.sasl("KAFKA_")?,
            validate_on_startup: self.flag("KAFKA_VALIDATE_ON_STARTUP")?,
            declared: Vec::new(),
        };
        settings.declared = self.declared_topics(&settings)?;
        Ok(settings)
    }

    /// The second destination; none where neither of its names is set.
    pub(super) fn second(
        &self,
        first: &KafkaSettings,
    ) -> Result<Option<SecondSettings>, ConfigError> {
        let (topic, list) = ("KAFKA_SECOND_TOPIC", "KAFKA_SECOND_BROKERS");
        let from_now = self.one_of("KAFKA_SECOND_FROM", &[("beginning", false), ("now", true)])?;
        let mut kafka = first.clone();
        let given = self.text(topic)?;
        if !given.is_empty() {
            kafka.events_topic = legal(topic, given.clone())?;
        }
        let apart = !self.text(list)?.is_empty();
        if !apart {
            if given.is_empty() {
                return Ok(None);
            }
            let taken = [&first.events_topic, &first.dlq_topic];
            if taken.contains(&&kafka.events_topic) {
                let problem = "the first has this topic already: use another, or another cluster";
                return Err(invalid(topic, &given, problem));
            }
        } else {
            let brokers = Brokers {
                name: list,
                prefix: "KAFKA_SECOND_",
                tls_switches: &["KAFKA_SECOND_SSL"],
                list: self.brokers(list)?,
            };
            kafka.tls = self.tls(&brokers)?;
            kafka.sasl = self.sasl(brokers.prefix)?;
            kafka.brokers = brokers.list;
            if kafka.brokers == first.brokers && kafka.events_topic == first.events_topic {
                let problem = "that is the first cluster and its topic: set KAFKA_SECOND_TOPIC";
                return Err(invalid(list, &kafka.brokers.join(","), problem));
            }
        }
        Ok(Some(SecondSettings { kafka, apart, from_now }))
    }

    /// The topics of events and of dead letters.
    fn topics(&self) -> Result<(String, String), ConfigError> {
        let (name, template) = ("KAFKA_TOPIC_TEMPLATE", self.text("KAFKA_TOPIC_TEMPLATE")?);
        if template.is_empty() {
            let topic = |name| legal(name, self.text(name)?);
            return Ok((topic("KAFKA_EVENTS_TOPIC")?, topic("KAFKA_DLQ_TOPIC")?));
        }
        let events = template.replace("{aggregate}", "wallet");
        if events == template || events.contains(['{', '}']) {
            return Err(invalid(name, &template, "use {aggregate} once, and no other braces"));
        }
        Ok((legal(name, events.clone())?, legal(name, format!("{events}-dlq"))?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::{Overrides, SaslMechanism, SecretSource, load_from};
    use super::*;

    fn kafka(variables: &[(&str, &str)]) -> Result<KafkaSettings, String> {
        let variables: HashMap<String, String> =
            variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let loaded = load_from(&variables, &Overrides::new());
        loaded.map(|(settings, _)| settings.kafka).map_err(|error| error.to_string())
    }

    fn refused(variables: &[(&str, &str)], name: &str, hint: &str) {
        let error = kafka(variables).unwrap_err();
        assert!(error.starts_with(name) && error.contains(hint), "{error}");
    }

    #[test]
    fn tls_is_on_by_itself_for_port_9094_and_by_any_name_of_its_switch() {
        assert_eq!(kafka(&[]).unwrap().tls, None);
        let tls = Some(TlsSettings { ca_file: None });
        assert_eq!(kafka(&[("KAFKA_BROKERS", "a:9094,b:9094")]).unwrap().tls, tls);
        for name in TLS_SWITCHES {
            assert_eq!(kafka(&[(name, "true")]).unwrap().tls, tls, "{name}");
            let off = kafka(&[("KAFKA_BROKERS", "a:9094"), (name, "false")]).unwrap().tls;
            assert_eq!(off, None, "{name}");
        }
        refused(&[("KAFKA_BROKERS", "a:9094,b:9092")], "KAFKA_BROKERS", "KAFKA_SSL=true");
        refused(&[("KAFKA_SSL", "true"), ("KAFKA_TLS", "false")], "KAFKA_TLS", "KAFKA_SSL says");
    }

    #[test]
    fn a_list_of_brokers_is_read_as_kafkas_own_clients_read_it() {
        let brokers = kafka(&[("KAFKA_BROKERS", "a:1, b:2,,[::1]:3,")]).unwrap().brokers;
        assert_eq!(brokers, ["a:1", "b:2", "[::1]:3"]);
    }

    #[test]
    fn a_certificate_authority_is_a_file_that_is_there_and_in_use() {
        refused(&[("KAFKA_SSL_CA_FILE", "Cargo.toml")], "KAFKA_SSL_CA_FILE", "TLS is off");
        let missing = [("KAFKA_SSL", "1"), ("KAFKA_SSL_CA_FILE", "/nowhere/ca.pem")];
        refused(&missing, "KAFKA_SSL_CA_FILE=/nowhere/ca.pem", "No such file");
    }

    #[test]
    fn sasl_needs_user_and_password_and_a_mechanism_that_there_is() {
        let user = ("KAFKA_SASL_USERNAME", "svc");
        let password = ("KAFKA_SASL_PASSWORD", "canary");
        let sasl = kafka(&[user, password]).unwrap().sasl.unwrap();
        assert_eq!((sasl.mechanism, sasl.username.as_str()), (SaslMechanism::Plain, "svc"));
        assert!(!format!("{sasl:?}").contains("canary"), "{sasl:?}");
        let scram = ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512");
        let sasl = kafka(&[user, password, scram]).unwrap().sasl.unwrap();
        assert_eq!(sasl.mechanism, SaslMechanism::ScramSha512);
        assert_eq!(kafka(&[user, password, ("KAFKA_SASL_ENABLED", "false")]).unwrap().sasl, None);
        refused(&[user], "KAFKA_SASL_PASSWORD", "SASL needs it");
        refused(&[password], "KAFKA_SASL_USERNAME", "SASL needs it");
        refused(&[("KAFKA_SASL_ENABLED", "true")], "KAFKA_SASL_USERNAME", "SASL needs it");
        refused(
            &[user, password, ("KAFKA_SASL_MECHANISM", "gssapi")],
            "KAFKA_SASL_MECHANISM",
            "plain",
        );
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        refused(&[("KAFKA_BROKERS", "kafka:0")], "KAFKA_BROKERS", "host:port");
        refused(&[("KAFKA_BROKERS", ", ,")], "KAFKA_BROKERS", "host:port");
        refused(&[("KAFKA_BROKERS", "SASL_SSL://kafka:9094")], "KAFKA_BROKERS", "scheme");
        refused(&[("KAFKA_DLQ_TOPIC", "wallet-events")], "KAFKA_DLQ_TOPIC", "of their own");
        refused(&[("KAFKA_COMMANDS_TOPIC", "wallet-events")], "KAFKA_COMMANDS_TOPIC", "own");
        let alike = [("KAFKA_COMMAND_RESULTS_TOPIC", "wallet-commands_dlt")];
        refused(&alike, "KAFKA_COMMAND_RESULTS_TOPIC", "own");
        refused(&[("CONSUMER_RETRY_DELAYS_MS", "1,2")], "CONSUMER_RETRY_DELAYS_MS", "three");
        refused(&[("CONSUMER_RETRY_DELAYS_MS", "3,2,1")], "CONSUMER_RETRY_DELAYS_MS", "asc");
        refused(&[("OUTBOX_BATCH_SIZE", "2000")], "OUTBOX_BATCH_MAX", "at least");
        let keys = [("IDEMPOTENCY_KEY_RETENTION_DAYS", "1"), ("IDEMPOTENCY_RETENTION_HOURS", "48")];
        refused(&keys, "IDEMPOTENCY_KEY_RETENTION_DAYS", "at least");
    }

    #[test]
    fn a_second_destination_is_another_topic_or_another_cluster() {
        let second = |variables: &[(&str, &str)]| {
            let variables: HashMap<String, String> =
                variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            load_from(&variables, &Overrides::new()).unwrap().0.second
        };
        assert!(second(&[]).is_none());
        let user = [("KAFKA_SASL_USERNAME", "one"), ("KAFKA_SASL_PASSWORD", "secret")];
        let topic = second(&[&[("KAFKA_SECOND_TOPIC", "new")][..], &user].concat()).unwrap();
        assert_eq!((topic.kafka.events_topic.as_str(), topic.from_now), ("new", false));
        assert!(topic.kafka.sasl.is_some(), "the same cluster, the same way in");
        let cluster = [("KAFKA_SECOND_BROKERS", "b:9094"), ("KAFKA_SECOND_FROM", "now")];
        let cluster = second(&[&cluster[..], &user].concat()).unwrap();
        assert_eq!(cluster.kafka.events_topic, "wallet-events");
        assert_eq!((cluster.kafka.brokers, cluster.from_now), (vec!["b:9094".to_owned()], true));
        assert!(cluster.kafka.sasl.is_none() && cluster.kafka.tls.is_some(), "its own way in");
        for topic in ["wallet-events", "wallet-events-dlq"] {
            refused(&[("KAFKA_SECOND_TOPIC", topic)], "KAFKA_SECOND_TOPIC", "another cluster");
        }
        refused(&[("KAFKA_SECOND_TOPIC", "a b")], "KAFKA_SECOND_TOPIC", "a-z");
        let same = [("KAFKA_SECOND_BROKERS", "localhost:29092")];
        refused(&same, "KAFKA_SECOND_BROKERS", "KAFKA_SECOND_TOPIC");
        let user = [("KAFKA_SECOND_BROKERS", "b:1"), ("KAFKA_SECOND_SASL_USERNAME", "two")];
        refused(&user, "KAFKA_SECOND_SASL_PASSWORD", "KAFKA_SECOND_SASL_ENABLED");
        refused(&[("KAFKA_SECOND_FROM", "then")], "KAFKA_SECOND_FROM", "beginning or now");
    }

    #[test]
    fn a_misspelt_name_is_told_and_a_file_of_a_setting_is_none() {
        let names =
            ["KAFKA_SSL_CA_FIL", "KAFKA_SASL_PASWORD", "KAFKA_SASL_PASSWORD_FILE", "KAFKA_TLS"];
        let mut variables: HashMap<String, String> =
            names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        variables.insert("KAFKA_SASL_PASSWORD_FILE".to_owned(), file.display().to_string());
        variables.insert("KAFKA_SASL_USERNAME".to_owned(), "svc".to_owned());
        let (settings, notes) = load_from(&variables, &Overrides::new()).unwrap();
        let [password, file_name] = notes.warnings.as_slice() else { panic!("{notes:?}") };
        assert!(
            password.starts_with(
                "KAFKA_SASL_PASWORD is no setting; the nearest is KAFKA_SASL_PASSWORD;"
            )
        );
        assert!(
            file_name
                .starts_with("KAFKA_SSL_CA_FIL is no setting; the nearest is KAFKA_SSL_CA_FILE;")
        );
        assert_eq!(settings.kafka.sasl.unwrap().password, SecretSource::File(file));
    }
}
