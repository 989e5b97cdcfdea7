//! The way to the brokers, shared by producers and fetchers: one rskafka client, checked with krafka
//! first, built again after any doubt about its connections. Must not retry by itself.
//!
//! rskafka asks for a topic by its name in a way that has a broker make it where it is missing, with the
//! broker's own count of partitions. So krafka, which asks without that, is asked before every such request.

use std::sync::Arc;
use std::time::Duration;

use krafka::KafkaBuilder;
use rskafka::BackoffConfig;
use rskafka::client::partition::{PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::admin::Admin;
use super::breaker::Breaker;
use super::error::{Class, Error};
use super::secure::Access;
use crate::config::KafkaSettings;

/// Of one answer. A broker gives a whole batch, however few bytes were asked for, and takes what its
/// `socket.request.max.bytes` lets in, 100 MiB unless it is configured otherwise: what is in a topic can be read.
const MAX_MESSAGE_SIZE: usize = 128 * 1024 * 1024;

/// No request waits longer: the answer is late, not slow.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Whether a topic is there is known at once.
const PRESENCE_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// A cluster, connected to when first needed. Dropping it closes the connections.
#[derive(Debug)]
pub struct Connection {
    settings: KafkaSettings,
    breaker: Arc<Breaker>,
    state: Mutex<State>,
    /// The last failure of an administration's connection, for the same reason as the client's.
    admins: Mutex<Option<(Instant, Error)>>,
}

#[derive(Debug, Default)]
struct State {
    client: Option<Arc<Clients>>,
    /// The last failure, for those who waited while it happened: else each would try in turn.
    failed: Option<(Instant, Error)>,
}

/// Both clients of one cluster.
#[derive(Debug)]
struct Clients {
    records: Client,
    admin: Admin,
}

/// A connection of its own to the leader of one partition.
#[derive(Debug, Clone)]
pub(super) struct Leader {
    client: Arc<Clients>,
    pub(super) partition: Arc<PartitionClient>,
}

impl Connection {
    /// With a breaker of its own. Does not connect yet: the service starts before its brokers.
    pub fn new(settings: &KafkaSettings) -> Arc<Self> {
        Self::with_breaker(settings, Breaker::new(&settings.breaker))
    }

    /// Behind a breaker that it shares with other connections.
    pub fn with_breaker(settings: &KafkaSettings, breaker: Arc<Breaker>) -> Arc<Self> {
        let (state, admins) = (Mutex::default(), Mutex::default());
        Arc::new(Self { settings: settings.clone(), breaker, state, admins })
    }

    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// The bound of one request.
    pub(super) fn request_timeout(&self) -> Duration {
        self.settings.request_timeout.min(REQUEST_TIMEOUT_MAX)
    }

    /// For topics and groups, behind the breaker: while that is open, nothing is connected to, and
    /// whatever is asked through it fails at once. A caller that waited while another failed shares that
    /// failure: else each would try to connect in turn.
    pub async fn admin(&self) -> Result<Admin, Error> {
        let asked = Instant::now();
        let mut failed = self.admins.lock().await;
        if let Some((at, error)) = &*failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        self.breaker.allows()?;
        match Admin::connect(&self.settings).await {
            Ok(admin) => Ok(admin.with_breaker(&self.breaker)),
            Err(error) => {
                self.breaker.tried(Err(&error));
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// A connection to the partition's leader as of now.
    pub(super) async fn leader(&self, topic: &str, partition: i32) -> Result<Leader, Error> {
        self.breaker.allows()?;
        let client = self.client().await?;
        let wait = self.settings.connection_timeout;
        let error = match timeout(wait, client.open(topic, partition)).await {
            Ok(Ok(connected)) => return Ok(Leader { client, partition: Arc::new(connected) }),
            // The cluster answered: the clients are as good as before.
            Ok(Err(Closed::Missing(error))) => return Err(error),
            Ok(Err(Closed::Failed(error))) => error,
            Err(_) => Error::timeout("connecting to the partition's leader", wait),
        };
        count_failure(&error);
        self.discard(&client, &error).await;
        Err(error)
    }

    /// Gives up the client behind `leader`: its connections may be mute, its metadata stale.
    pub(super) async fn discard_leader(&self, leader: &Leader, cause: &Error) {
        self.discard(&leader.client, cause).await;
    }

    /// One client is one failure, however many partitions were behind it.
    async fn discard(&self, client: &Arc<Clients>, cause: &Error) {
        let mut state = self.state.lock().await;
        if state.client.as_ref().is_some_and(|current| Arc::ptr_eq(current, client)) {
            state.client = None;
            self.breaker.tried(Err(cause));
        }
    }

    async fn client(&self) -> Result<Arc<Clients>, Error> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(client) = &state.client {
            return Ok(Arc::clone(client));
        }
        if let Some((at, error)) = &state.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        self.breaker.allows()?;
        let wait = self.settings.connection_timeout;
        let built = timeout(wait, connect(&self.settings, &self.breaker))
            .await
            .unwrap_or_else(|_| Err(Error::connecting(&self.settings.brokers, wait)));
        match built {
            Ok(client) => {
                metrics::counter!("kafka_connections_total").increment(1);
                tracing::info!(brokers = self.settings.brokers.join(","), "connected to Kafka");
                let client = Arc::new(client);
                state.client = Some(Arc::clone(&client));
                Ok(client)
            }
            Err(error) => {
                count_failure(&error);
                self.breaker.tried(Err(&error));
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

/// Why there is no connection to a partition's leader.
enum Closed {
    /// There is no such partition.
    Missing(Error),
    /// It could not be had; what the clients know of the cluster may be old.
    Failed(Error),
}

impl Clients {
    /// A connection to the partition's leader, where there is such a partition.
    async fn open(&self, topic: &str, partition: i32) -> Result<PartitionClient, Closed> {
        let asked = self.admin.partitions(topic).await.map_err(|error| match error.class {
            Class::Topic => Closed::Missing(error),
            _ => Closed::Failed(error),
        });
        match asked? {
            Some(count) if partition < count => {}
            Some(count) => {
                let text = format!("the topic {topic} has {count} partitions, no {partition}");
                let mut error = Error::new(Class::Topic, text);
                error.hint = Some("give it more: `kafka-topics --alter --topic … --partitions …`");
                return Err(Closed::Missing(error));
            }
            None => {
                let text = format!("there is no topic {topic}");
                return Err(Closed::Missing(Error::new(Class::Topic, text)));
            }
        }
        let connecting =
            self.records.partition_client(topic, partition, UnknownTopicHandling::Error);
        // The cluster has just answered: what fails is where it sent us.
        let failed = |error| Closed::Failed(Error::from_rskafka(&error).behind_advertised());
        connecting.await.map_err(failed)
    }
}

/// Connects with krafka. Its own bounds are the settings'.
pub(super) async fn connect_krafka(settings: &KafkaSettings) -> Result<krafka::Kafka, Error> {
    let access = Access::read(settings).await?;
    connect_krafka_with(settings, &access).await
}

async fn connect_krafka_with(
    settings: &KafkaSettings,
    access: &Access,
) -> Result<krafka::Kafka, Error> {
    match krafka_builder(settings, access).connect().await {
        Ok(kafka) => Ok(kafka),
        Err(error) => {
            let error = Error::from_krafka(&error);
            let unnamed =
                error.class == Class::Network && !any_has_address(&settings.brokers).await;
            Err(if unnamed { Error::new(Class::Dns, error.message) } else { error })
        }
    }
}

async fn connect(settings: &KafkaSettings, breaker: &Arc<Breaker>) -> Result<Clients, Error> {
    let access = Access::read(settings).await?;
    // rskafka hides authentication and certificate errors behind silence: ask krafka first.
    let kafka = connect_krafka_with(settings, &access).await?;
    let wait = settings.connection_timeout.min(PRESENCE_TIMEOUT_MAX);
    let admin = Admin::of(&kafka, wait).with_breaker(breaker);
    let records = rskafka_builder(settings, &access).build().await;
    Ok(Clients { records: records.map_err(|error| Error::from_rskafka(&error))?, admin })
}

/// How krafka gets in.
fn krafka_builder(settings: &KafkaSettings, access: &Access) -> KafkaBuilder {
    krafka::Kafka::builder(settings.brokers.join(","))
        .client_id(settings.client_id.as_str())
        .security(access.krafka())
        .connect_timeout(settings.connection_timeout)
        // krafka refuses a request timeout below its connection timeout.
        .request_timeout(settings.request_timeout.max(settings.connection_timeout))
}

/// How rskafka gets in. Its own retry is off: it would send a batch twice by itself.
fn rskafka_builder(settings: &KafkaSettings, access: &Access) -> ClientBuilder {
    let builder = ClientBuilder::new(settings.brokers.clone())
        .client_id(settings.client_id.as_str())
        .max_message_size(MAX_MESSAGE_SIZE)
        .backoff_config(BackoffConfig {
            deadline: Some(Duration::ZERO),
            ..BackoffConfig::default()
        });
    access.rskafka(builder)
}

async fn any_has_address(brokers: &[String]) -> bool {
    for broker in brokers {
        if tokio::net::lookup_host(broker.as_str())
            .await
            .is_ok_and(|mut found| found.next().is_some())
        {
            return true;
        }
    }
    false
}

/// Counts what keeps us from the brokers; an answer of theirs is no failure of the connection.
pub(super) fn count_failure(error: &Error) {
    if error.is_outage() {
        metrics::counter!("kafka_connection_errors_total", "class" => error.class.as_str())
            .increment(1);
    }
}
