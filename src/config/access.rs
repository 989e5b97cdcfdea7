//! The way into a cluster: its brokers, TLS and SASL. One cluster's settings share a prefix.

use std::path::PathBuf;

use super::declared::name;
use super::error::{ConfigError, invalid};
use super::read::Reader;
use super::{SaslMechanism, Secret};

/// The port on which brokers speak TLS by custom.
const TLS_PORT: &str = "9094";

/// The names of the settings that belong to one cluster.
pub(super) struct Cluster {
    pub brokers: &'static str,
    prefix: &'static str,
    pub tls_switches: &'static [&'static str],
}

pub(super) const FIRST: Cluster = Cluster {
    brokers: name::KAFKA_BROKERS,
    prefix: "KAFKA_",
    // Three names of one switch, since all of them are in use.
    tls_switches: &[name::KAFKA_SSL, name::KAFKA_TLS, name::KAFKA_SSL_ENABLED],
};

pub(super) const SECOND: Cluster = Cluster {
    brokers: name::KAFKA_SECOND_BROKERS,
    prefix: "KAFKA_SECOND_",
    tls_switches: &[name::KAFKA_SECOND_SSL],
};

/// TLS; the broker's certificate is always checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM; none: the system's authorities. Read again for each connection.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslSettings {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: SecretSource,
}

/// A secret, or the file that holds it as of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    Value(Secret),
    /// Read again for each connection: a changed password needs no restart.
    File(PathBuf),
}

impl Reader {
    pub(super) fn tls(&self, cluster: &Cluster) -> Result<Option<TlsSettings>, ConfigError> {
        let Cluster { brokers: name, prefix, .. } = cluster;
        let list = self.brokers(name)?;
        let on = match self.tls_switch(cluster)? {
            Some(on) => on,
            None => {
                let by_custom =
                    |broker: &&String| broker.rsplit(':').next().is_some_and(|p| p == TLS_PORT);
                let count = list.iter().filter(by_custom).count();
                if count > 0 && count < list.len() {
                    let problem = format!(
                        "some ports are 9094, which speaks TLS by custom, others are not: \
                         set {prefix}SSL=true or {prefix}SSL=false"
                    );
                    return Err(invalid(name, &list.join(","), &problem));
                }
                count > 0
            }
        };
        let ca_file = format!("{prefix}SSL_CA_FILE");
        let file = self.text(&ca_file)?;
        if file.is_empty() {
            return Ok(on.then_some(TlsSettings { ca_file: None }));
        }
        if !on {
            let problem =
                format!("TLS is off, so nothing would be checked with it: set {prefix}SSL=true");
            return Err(invalid(&ca_file, &file, &problem));
        }
        std::fs::read(&file).map_err(|error| invalid(&ca_file, &file, &error.to_string()))?;
        Ok(Some(TlsSettings { ca_file: Some(PathBuf::from(file)) }))
    }

    /// None: no name of the switch is set.
    fn tls_switch(&self, cluster: &Cluster) -> Result<Option<bool>, ConfigError> {
        let mut found: Option<(&str, bool)> = None;
        for name in cluster.tls_switches {
            let Some(on) = self.optional_flag(name)? else { continue };
            match found {
                Some((other, said)) if said != on => {
                    let problem = format!("{other} says the contrary: set one of them");
                    return Err(invalid(name, &on.to_string(), &problem));
                }
                _ => found = Some((name, on)),
            }
        }
        Ok(found.map(|(_, on)| on))
    }

    /// On where it is switched on, or where a user is given and it is not switched off.
    pub(super) fn sasl(&self, cluster: &Cluster) -> Result<Option<SaslSettings>, ConfigError> {
        let prefix = cluster.prefix;
        let name = |end: &str| format!("{prefix}SASL_{end}");
        let mechanism: SaslMechanism = self.word(&name("MECHANISM"))?;
        let username = self.text(&name("USERNAME"))?;
        let password = self.text(&name("PASSWORD"))?;
        let given = !username.is_empty() || !password.is_empty();
        if !self.optional_flag(&name("ENABLED"))?.unwrap_or(given) {
            return Ok(None);
        }
        for (name, value) in [(name("USERNAME"), &username), (name("PASSWORD"), &password)] {
            if value.is_empty() {
                let problem = format!("SASL needs it; {prefix}SASL_ENABLED=false: no SASL");
                return Err(invalid(&name, value, &problem));
            }
        }
        if username.contains('\0') || password.contains('\0') {
            return Err(invalid(&name("PASSWORD"), &password, "it must not have a NUL byte"));
        }
        let password = match self.file_of(&name("PASSWORD")) {
            Some(path) => SecretSource::File(path),
            None => SecretSource::Value(Secret::new(password)),
        };
        Ok(Some(SaslSettings { mechanism, username, password }))
    }

    pub(super) fn brokers(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let list = self.text(name)?;
        let valid = |broker: &str| {
            broker.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty()
                    && !host.contains("//")
                    && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        // As Kafka's own clients, which pass over what is empty.
        let brokers = list.split(',').map(str::trim).filter(|broker| !broker.is_empty());
        let brokers: Vec<String> = brokers.map(str::to_owned).collect();
        if !brokers.is_empty() && brokers.iter().all(|broker| valid(broker)) {
            return Ok(brokers);
        }
        Err(invalid(name, &list, "use host:port,host:port without a scheme"))
    }
}
