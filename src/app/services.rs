//! What the tasks of this process share. Cheap to clone: each takes what it needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::event_cache::EventCache;
use crate::instance::Instance;
use crate::kafka::{Breaker, Connection, SharedTopic};
use crate::projector::Projection;
use crate::status::Status;
use crate::store;
use crate::throttle::Throttle;
use crate::topics;
use crate::wallet::TenantId;

#[derive(Clone)]
pub(super) struct Services {
    pub settings: Arc<Settings>,
    pub tenant: TenantId,
    pub way: store::Way,
    pub pools: store::Pools,
    pub status: Status,
    pub instance: Arc<Instance>,
    /// None with `KAFKA_ENABLED=false`.
    pub kafka: Option<Kafka>,
    pub wakes: Wakes,
    pub throttle: Throttle,
    pub event_cache: EventCache,
    /// Ends the HTTP server and the consumer of commands, the ways in.
    pub shutdown: CancellationToken,
    /// Ends the tasks; fired after the lanes have drained.
    pub stop: CancellationToken,
    /// Ends the listener, when all else has ended.
    pub quit: CancellationToken,
}

/// The way to the cluster that the events are published to.
#[derive(Clone)]
pub(super) struct Kafka {
    pub connection: Arc<Connection>,
    pub breaker: Arc<Breaker>,
    /// All projectors read the same records at nearly the same time.
    pub events: Arc<SharedTopic>,
    /// Fired once it is known which topic is the first.
    pub decided: CancellationToken,
}

/// Who is woken by what.
#[derive(Clone, Default)]
pub(super) struct Wakes {
    /// By commits, to tell the other instances.
    pub others: Arc<Notify>,
    pub publisher: Arc<Notify>,
    pub second: Arc<Notify>,
    pub projectors: BTreeMap<&'static str, Arc<Notify>>,
    /// By a request for a republication.
    pub republisher: Arc<Notify>,
    /// By each projector here that has applied something.
    pub applied: Arc<Notify>,
}

impl Services {
    pub fn new(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let way = store::Way::new(&settings.database.url);
        let pools = store::Pools::new(&way, &settings.database)
            .context("DATABASE_URL: not a usable postgres:// URL")?;
        let instance = Arc::new(Instance::new(settings.consumer.session_timeout));
        let status = Status::default();
        status.update(|pipeline| {
            pipeline.kafka_enabled = settings.kafka.enabled;
            pipeline.instance = instance.owner().to_owned();
            pipeline.group_prefix.clone_from(&settings.consumer.group_prefix);
        });
        let projectors = Projection::ALL.map(|of| (of.name, Arc::default())).into();
        Ok(Self {
            kafka: settings.kafka.enabled.then(|| Kafka::new(&settings)),
            tenant: TenantId::default_tenant(),
            way,
            pools,
            status,
            instance,
            wakes: Wakes { projectors, ..Wakes::default() },
            throttle: Throttle::default(),
            event_cache: EventCache::default(),
            shutdown,
            stop: CancellationToken::new(),
            quit: CancellationToken::new(),
            settings: Arc::new(settings),
        })
    }

    pub fn topics(&self) -> topics::Wiring {
        topics::Wiring {
            pool: self.pools.upkeep.clone(),
            kafka: self.settings.kafka.clone(),
            codec: self.settings.producer.compression,
        }
    }
}

impl Kafka {
    fn new(settings: &Settings) -> Self {
        let breaker = Breaker::new(&settings.kafka.breaker);
        let connection = Connection::with_breaker(&settings.kafka, Arc::clone(&breaker));
        let events = SharedTopic::new(Arc::clone(&connection), &settings.kafka.events_topic);
        Self { connection, breaker, events, decided: CancellationToken::new() }
    }
}

impl Wakes {
    /// Whom a commit wakes, here or in another instance.
    pub fn of_commits(&self) -> Vec<Arc<Notify>> {
        self.projectors.values().chain([&self.publisher, &self.second]).map(Arc::clone).collect()
    }
}
