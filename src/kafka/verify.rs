//! The way to Kafka walked step by step, for people who look for what is wrong: each step with its
//! time and, where it fails, its cause and what to do. Nothing here is used by the service itself.
//!
//! It writes one record, into a topic of its own: consumers of the events never see it.

use std::future::Future;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use krafka::admin::ListConsumerGroupOffsetsOptions;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::time::timeout;

use super::admin::Admin;
use super::connect::{Connection, connect_krafka};
use super::error::{Class, Error};
use super::fetch::{FetchError, Fetcher};
use super::hint;
use super::peek::peek;
use super::produce::{Outgoing, Producer};
use super::secure::Access;
use super::topics::{KeyStrategy, TopicSpec};
use crate::config::{Codec, KafkaSettings, Part, SaslMechanism};

const DNS: &str = "dns";
const TCP: &str = "tcp";
const TLS: &str = "tls";
const SASL: &str = "sasl";
const METADATA: &str = "metadata";
const TOPICS: &str = "topics";
const PRODUCE: &str = "produce";
const FETCH: &str = "fetch";
const OFFSETS: &str = "group offsets";

/// In this order; after the first that fails no other is tried.
const STEPS: [&str; 9] = [DNS, TCP, TLS, SASL, METADATA, TOPICS, PRODUCE, FETCH, OFFSETS];

/// Several requests of a step may follow each other, each with a bound of its own.
const STEP_LIMIT: Duration = Duration::from_secs(60);
const FETCH_BYTES: i32 = 1024 * 1024;
const FETCH_WAIT: Duration = Duration::from_secs(1);
const VERIFY_RETENTION_MS: u32 = 3_600_000;

/// One step and what came of it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Step {
    pub step: &'static str,
    pub status: Outcome,
    pub ms: u64,
    /// What was found, or what went wrong.
    pub detail: String,
    pub hint: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    Failed,
    /// The settings do without it.
    Off,
    /// A step before it failed.
    NotTried,
}

/// What to walk with.
#[derive(Debug, Clone)]
pub struct Plan {
    pub kafka: KafkaSettings,
    pub codec: Codec,
    /// The groups whose offsets are asked for.
    pub groups: Vec<String>,
    /// The time of the record that is written.
    pub now: DateTime<Utc>,
    /// Its key: one that was never used before.
    pub key: String,
}

/// Walks to the end or to the first failure; each step is reported when it is done. Whether all went
/// well.
pub async fn walk(plan: Plan, mut tell: impl FnMut(Step)) -> bool {
    let mut walk = Walk::new(plan);
    let mut fine = true;
    for step in STEPS {
        let (detail, hint) = (String::new(), None);
        let mut told = Step { step, status: Outcome::NotTried, ms: 0, detail, hint };
        if fine {
            let begun = Instant::now();
            let mut result = timeout(STEP_LIMIT, Box::pin(walk.step(step)))
                .await
                .unwrap_or_else(|_| Err(Error::timeout(step, STEP_LIMIT)));
            if let Err(error) = &mut result {
                walk.look_closer(step, error).await;
            }
            fine = result.is_ok();
            told.ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            match result {
                Ok(Some(detail)) => (told.status, told.detail) = (Outcome::Ok, detail),
                Ok(None) => (told.status, told.ms) = (Outcome::Off, 0),
                Err(error) => {
                    told.detail = format!("{}: {}", error.class.as_str(), error.message);
                    (told.status, told.hint) = (Outcome::Failed, error.hint);
                }
            }
        }
        tell(told);
    }
    fine
}

struct Walk {
    plan: Plan,
    connection: Arc<Connection>,
    /// Of the brokers in the settings those that took a connection.
    open: Vec<String>,
    /// The topic of its own.
    topic: String,
    offset: i64,
}

/// What a step found; none: the settings do without it.
type Found = Result<Option<String>, Error>;

impl Walk {
    fn new(plan: Plan) -> Self {
        let connection = Connection::new(&plan.kafka);
        let topic = format!("{}-verify", plan.kafka.events_topic);
        Self { plan, connection, open: Vec::new(), topic, offset: 0 }
    }

    async fn step(&mut self, step: &'static str) -> Found {
        match step {
            DNS => self.names().await,
            TCP => self.ports().await,
            TLS => self.handshakes().await,
            SASL => self.login().await,
            METADATA => self.metadata().await,
            TOPICS => self.topics().await,
            PRODUCE => self.produce().await,
            FETCH => self.fetch().await,
            _ => self.offsets().await,
        }
    }

    /// Where a port takes connections and does not do what it should, its answers tell why.
    async fn look_closer(&self, step: &str, error: &mut Error) {
        let unclear = matches!(error.class, Class::Network | Class::Timeout)
            && matches!(step, TLS | SASL | METADATA)
            && error.hint != Some(hint::ADVERTISED);
        let Some(broker) = self.open.first().filter(|_| unclear) else { return };
        let Plan { kafka, .. } = &self.plan;
        error.hint = match peek(broker).await {
            Some(heard) => heard.hint(kafka.tls.is_some(), kafka.sasl.is_some()).or(error.hint),
            None => Some(hint::CLOSES_ALWAYS),
        };
    }

    /// One broker that answers is enough for the service; the others are reported.
    async fn names(&mut self) -> Found {
        let wait = self.plan.kafka.connection_timeout;
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for broker in &self.plan.kafka.brokers {
            let looking = tokio::net::lookup_host(broker.as_str());
            match within(wait, looking).await {
                Ok(addresses) => {
                    let addresses: Vec<String> = addresses.map(|a| a.ip().to_string()).collect();
                    found.push(format!("{broker} is {}", addresses.join(" ")));
                }
                Err(error) => failed.push(format!("{broker}: {error}")),
            }
        }
        any_of(found, failed, Class::Dns)
    }

    async fn ports(&mut self) -> Found {
        let wait = self.plan.kafka.connection_timeout;
        let mut failed = Vec::new();
        for broker in &self.plan.kafka.brokers {
            match within(wait, tokio::net::TcpStream::connect(broker.as_str())).await {
                Ok(_) => self.open.push(broker.clone()),
                Err(error) => failed.push(format!("{broker}: {error}")),
            }
        }
        let silent = failed.iter().all(|text| text.contains("no answer"));
        any_of(self.open.clone(), failed, if silent { Class::Timeout } else { Class::Network })
    }

    /// Every broker that listens must show a good certificate.
    async fn handshakes(&mut self) -> Found {
        let Some(client) = Access::read(&self.plan.kafka).await?.tls() else { return Ok(None) };
        let wait = self.plan.kafka.connection_timeout;
        let mut found = Vec::new();
        for broker in &self.open {
            let connecting = tokio::net::TcpStream::connect(broker.as_str());
            let socket = within(wait, connecting).await.map_err(|error| network(&error))?;
            let socket = socket.into_std().map_err(|error| network(&error))?;
            let (broker, client) = (broker.clone(), Arc::clone(&client));
            let shaking =
                tokio::task::spawn_blocking(move || handshake(&broker, socket, client, wait));
            let shaken = timeout(wait, shaking).await;
            let shaken = shaken.map_err(|_| Error::timeout("TLS handshake", wait))?;
            found.push(shaken.unwrap_or_else(|panic| Err(network(&panic)))?);
        }
        Ok(Some(found.join(", ")))
    }

    async fn login(&mut self) -> Found {
        let settings = &self.plan.kafka;
        let Some(sasl) = &settings.sasl else { return Ok(None) };
        let wait = settings.connection_timeout;
        timeout(wait, connect_krafka(settings))
            .await
            .unwrap_or_else(|_| Err(Error::timeout("login", wait)))?;
        let bare = sasl.mechanism == SaslMechanism::Plain && settings.tls.is_none();
        let warning = if bare { ", with the password in clear text on the network" } else { "" };
        Ok(Some(format!("{} by {}{warning}", sasl.username, sasl.mechanism.as_str())))
    }

    /// The clients go on to the addresses that the brokers advertise: those must be reachable, too.
    async fn metadata(&mut self) -> Found {
        let cluster = Admin::connect(&self.plan.kafka).await?.describe().await?;
        let mut names = Vec::new();
        for broker in &cluster.brokers {
            let name = format!("{} at {}:{}", broker.id, broker.host, broker.port);
            if broker.latency().await.is_none() {
                let text = format!("broker {name} is advertised, but cannot be reached from here");
                return Err(Error::new(Class::Network, text).behind_advertised());
            }
            names.push(name);
        }
        Ok(Some(format!("cluster {}, brokers {}", cluster.id, names.join(", "))))
    }

    async fn topics(&mut self) -> Found {
        let admin = Admin::connect(&self.plan.kafka).await?;
        let (settings, mut found) = (&self.plan.kafka, Vec::new());
        for own in settings.own_topics() {
            let topic = own.name(settings);
            match admin.partitions(&topic).await {
                Ok(Some(partitions)) => found.push(format!("{topic} has {partitions} partitions")),
                // Only inbound commands wait for it.
                Ok(None) | Err(Error { class: Class::Topic, .. }) if own.part == Part::Commands => {
                    found.push(format!("not {topic}, which commands need"));
                }
                Ok(None) => {
                    let text = format!("there is no topic {topic}, or the user may not see it");
                    return Err(Error::new(Class::Topic, text));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(found.join(", ")))
    }

    async fn produce(&mut self) -> Found {
        let admin = Admin::connect(&self.plan.kafka).await?;
        let topic = TopicSpec {
            name: self.topic.clone(),
            partitions: 1,
            replication_factor: self.plan.kafka.replication_factor,
            configs: vec![("retention.ms", VERIFY_RETENTION_MS.to_string())],
            key: KeyStrategy::Random,
        };
        admin.ensure_topics(&[topic]).await?;
        let record = Outgoing {
            key: self.plan.key.clone().into_bytes(),
            value: b"{}".to_vec(),
            headers: Vec::new(),
            timestamp: self.plan.now,
        };
        let producer = Producer::new(Arc::clone(&self.connection), &self.topic, self.plan.codec);
        let offsets = producer.produce(0, vec![record]).await;
        let offsets = offsets.map_err(|error| error.cause().clone())?;
        self.offset = offsets.first().copied().unwrap_or(0);
        Ok(Some(format!("one record to {}, offset {}", self.topic, self.offset)))
    }

    async fn fetch(&mut self) -> Found {
        let mut fetcher = Fetcher::new(Arc::clone(&self.connection), &self.topic, 0);
        let fetched = fetcher.fetch(self.offset, FETCH_BYTES, FETCH_WAIT).await;
        let (records, _) = fetched.map_err(|error| match error {
            FetchError::Kafka(error) => error,
            other @ FetchError::OffsetOutOfRange(_) => {
                Error::new(Class::Refused, other.to_string())
            }
        })?;
        let key = self.plan.key.as_bytes();
        let ours = records.iter().any(|r| r.offset == self.offset && r.key.as_deref() == Some(key));
        if ours {
            return Ok(Some(format!("the record came back from {}", self.topic)));
        }
        let text = format!("{} has another record at offset {}", self.topic, self.offset);
        Err(Error::new(Class::Refused, text))
    }

    /// Asked for, not written: the groups are the projectors'.
    async fn offsets(&mut self) -> Found {
        let wait = self.plan.kafka.connection_timeout;
        let kafka = connect_krafka(&self.plan.kafka).await?;
        let admin = kafka.admin().default_api_timeout(wait);
        for group in &self.plan.groups {
            let options = ListConsumerGroupOffsetsOptions::default();
            let asking = admin.list_consumer_group_offsets(group, options);
            let answer =
                timeout(wait, asking).await.map_err(|_| Error::timeout("group offsets", wait))?;
            let read = answer.and_then(|offsets| {
                offsets.into_values().collect::<krafka::Result<Vec<_>>>().map(drop)
            });
            read.map_err(|error| {
                let error = Error::from_krafka(&error);
                Error::new(error.class, format!("{group}: {}", error.message))
            })?;
        }
        Ok(Some(format!("those of {} groups can be read", self.plan.groups.len())))
    }
}

/// A TLS handshake as the clients do it. Blocks for `wait` at most per read.
fn handshake(
    broker: &str,
    mut socket: TcpStream,
    client: Arc<ClientConfig>,
    wait: Duration,
) -> Result<String, Error> {
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host).to_owned();
    let name = ServerName::try_from(host).map_err(|error| network(&error))?;
    socket.set_nonblocking(false).map_err(|error| network(&error))?;
    socket.set_read_timeout(Some(wait)).map_err(|error| network(&error))?;
    let mut connection = ClientConnection::new(client, name).map_err(|error| network(&error))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(|error| {
            let text = match error.kind() {
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                    "tls handshake eof".to_owned()
                }
                _ => error.to_string(),
            };
            let class = if text.contains("certificate") { Class::Auth } else { Class::Network };
            Error::new(class, format!("{broker}: {text}"))
        })?;
    }
    let version = connection.protocol_version().and_then(|version| version.as_str());
    Ok(format!("{broker} speaks {}", version.unwrap_or("TLS")))
}

async fn within<T>(
    wait: Duration,
    io: impl Future<Output = std::io::Result<T>>,
) -> Result<T, String> {
    match timeout(wait, io).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", wait.as_millis())),
    }
}

fn any_of(found: Vec<String>, failed: Vec<String>, class: Class) -> Found {
    if found.is_empty() {
        return Err(Error::new(class, failed.join(", ")));
    }
    let failed = failed.into_iter().map(|text| format!("not {text}"));
    Ok(Some(found.into_iter().chain(failed).collect::<Vec<_>>().join(", ")))
}

fn network(error: &dyn std::fmt::Display) -> Error {
    Error::new(Class::Network, error.to_string())
}
