//! Kafka's settings that come of several: which clusters there are and what the topics are called.
//!
//! What cannot work is refused here, by name, before anything is started: a password without a user,
//! a CA without TLS, names of one switch that contradict each other.

use super::access::SECOND;
use super::declared::name;
use super::error::{ConfigError, invalid};
use super::read::Reader;
use super::{KafkaSettings, SecondSettings};

/// A topic's name, where Kafka takes it.
pub(super) fn legal(name: &str, topic: String) -> Result<String, ConfigError> {
    let legal = (1..=249).contains(&topic.len())
        && topic.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !matches!(topic.as_str(), "." | "..");
    if legal { Ok(topic) } else { Err(invalid(name, &topic, "use 1 to 249 of a-z A-Z 0-9 . _ -")) }
}

impl Reader {
    pub(super) fn topic(&self, name: &str) -> Result<String, ConfigError> {
        legal(name, self.text(name)?)
    }

    pub(super) fn kafka(&self) -> Result<KafkaSettings, ConfigError> {
        let mut settings = KafkaSettings::read(self)?;
        settings.check_own_names()?;
        settings.declared = self.declared_topics(&settings)?;
        Ok(settings)
    }

    /// The topics of events and of dead letters.
    pub(super) fn topics(&self) -> Result<(String, String), ConfigError> {
        let (name, template) = (name::KAFKA_TOPIC_TEMPLATE, self.text(name::KAFKA_TOPIC_TEMPLATE)?);
        if template.is_empty() {
            return Ok((self.topic(name::KAFKA_EVENTS_TOPIC)?, self.topic(name::KAFKA_DLQ_TOPIC)?));
        }
        let events = template.replace("{aggregate}", "wallet");
        if events == template || events.contains(['{', '}']) {
            return Err(invalid(name, &template, "use {aggregate} once, and no other braces"));
        }
        Ok((legal(name, events.clone())?, legal(name, format!("{events}-dlq"))?))
    }

    /// The second destination; none where neither of its names is set.
    pub(super) fn second(&self) -> Result<Option<SecondSettings>, ConfigError> {
        let second = SecondSettings::read(self)?;
        let wanted = second.apart || self.is_set(name::KAFKA_SECOND_TOPIC)?;
        Ok(Some(second).filter(|second| wanted && second.kafka.enabled))
    }

    pub(super) fn second_kafka(&self) -> Result<KafkaSettings, ConfigError> {
        let first = self.kafka()?;
        let mut kafka = first.clone();
        let (topic, list) = (name::KAFKA_SECOND_TOPIC, SECOND.brokers);
        if self.is_set(topic)? {
            kafka.events_topic = self.topic(topic)?;
        }
        if self.is_set(list)? {
            kafka.brokers = self.brokers(list)?;
            kafka.tls = self.tls(&SECOND)?;
            kafka.sasl = self.sasl(&SECOND)?;
            if kafka.brokers == first.brokers && kafka.events_topic == first.events_topic {
                let problem = "that is the first cluster and its topic: set KAFKA_SECOND_TOPIC";
                return Err(invalid(list, &kafka.brokers.join(","), problem));
            }
        } else if self.is_set(topic)?
            && [&first.events_topic, &first.dlq_topic].contains(&&kafka.events_topic)
        {
            let problem = "the first has this topic already: use another, or another cluster";
            return Err(invalid(topic, &kafka.events_topic, problem));
        }
        Ok(kafka)
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::FIRST;
    use super::super::{
        KafkaSettings, SaslMechanism, SecondSettings, SecretSource, TlsSettings, given,
    };

    fn kafka(variables: &[(&str, &str)]) -> Result<KafkaSettings, String> {
        given(variables).map(|(settings, _)| settings.kafka)
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
        for name in FIRST.tls_switches {
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
        let letters = [("KAFKA_DLQ_TOPIC", "wallet-commands.retry.5min")];
        refused(&letters, "KAFKA_DLQ_TOPIC", "KAFKA_COMMANDS_TOPIC has this one");
        assert!(kafka(&[("KAFKA_DLQ_TOPIC", "wallet-commands_dlt")]).is_ok(), "of dead letters");
        refused(&[("CONSUMER_RETRY_DELAYS_MS", "1,2")], "CONSUMER_RETRY_DELAYS_MS", "three");
        refused(&[("CONSUMER_RETRY_DELAYS_MS", "3,2,1")], "CONSUMER_RETRY_DELAYS_MS", "asc");
        refused(&[("OUTBOX_BATCH_SIZE", "2000")], "OUTBOX_BATCH_MAX", "at least");
        let keys = [("IDEMPOTENCY_KEY_RETENTION_DAYS", "1"), ("IDEMPOTENCY_RETENTION_HOURS", "48")];
        refused(&keys, "IDEMPOTENCY_KEY_RETENTION_DAYS", "at least");
    }

    #[test]
    fn a_second_destination_is_another_topic_or_another_cluster() {
        let second = |variables: &[(&str, &str)]| -> Option<SecondSettings> {
            given(variables).unwrap().0.second
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
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let (settings, notes) = given(&[
            ("KAFKA_SSL_CA_FIL", ""),
            ("KAFKA_SASL_PASWORD", ""),
            ("KAFKA_TLS", ""),
            ("KAFKA_SASL_PASSWORD_FILE", &file.display().to_string()),
            ("KAFKA_SASL_USERNAME", "svc"),
        ])
        .unwrap();
        let [password, ca] = notes.warnings.as_slice() else { panic!("{notes:?}") };
        let told =
            |wrong: &str, right: &str| format!("{wrong} is no setting; the nearest is {right};");
        assert!(password.starts_with(&told("KAFKA_SASL_PASWORD", "KAFKA_SASL_PASSWORD")));
        assert!(ca.starts_with(&told("KAFKA_SSL_CA_FIL", "KAFKA_SSL_CA_FILE")));
        assert_eq!(settings.kafka.sasl.unwrap().password, SecretSource::File(file));
    }
}
