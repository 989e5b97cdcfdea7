//! From outbox to tables: which tasks carry events on, and with what.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Background, cutover, identity, topic_health, watch};
use crate::config::{KafkaSettings, Settings};
use crate::dead_letters::{self, DeadLetters};
use crate::group_offsets::{self, OffsetCommitter};
use crate::kafka::{Breaker, Connection, SharedTopic};
use crate::projector::{OpenPartition, Projection, Projector, Wiring};
use crate::publisher::{Deps, Publisher, Role};
use crate::republisher::Republisher;
use crate::retention::Retention;
use crate::status::Status;
use crate::store;
use crate::topics::{self, Seen, Topics, TopicsError};
use crate::wallet::TenantId;

impl Background {
    /// The connection that all of it shares, where Kafka is enabled.
    pub(super) fn spawn_pipeline(
        &self,
        settings: &Settings,
        seen: Seen,
    ) -> Option<Arc<Connection>> {
        let breaker = Breaker::new(&settings.kafka.breaker);
        let enabled = settings.kafka.enabled;
        let kafka =
            enabled.then(|| Connection::with_breaker(&settings.kafka, Arc::clone(&breaker)));
        if let Some(kafka) = &kafka {
            let decided = CancellationToken::new();
            self.spawn_watches(settings, &breaker, kafka, &decided, seen);
            self.spawn_dual_publisher(settings, kafka, &decided);
            self.spawn_publisher(settings, breaker, kafka, decided);
            let republisher = Republisher {
                pool: self.pools.upkeep.clone(),
                tenant: TenantId::default_tenant(),
                topic: settings.kafka.events_topic.clone(),
                asked: Arc::clone(&self.wake_republisher),
                publisher: Arc::clone(&self.wake_publisher),
            };
            self.supervise("republisher", republisher.run(self.stop.clone()));
        }
        let letters = DeadLetters::new(dead_letters::Parts {
            pool: self.pools.pipeline.clone(),
            tenant: TenantId::default_tenant(),
            kafka: kafka.clone().map(|kafka| (kafka, settings.kafka.clone())),
            codec: settings.producer.compression,
            max_request_bytes: settings.producer.max_request_bytes,
        });
        self.supervise("dead letters", letters.run(self.stop.clone()));
        if let (Some(kafka), true) = (&kafka, settings.consumer.feed_kafka) {
            self.spawn_offset_committers(settings, kafka);
        }
        let tenant = TenantId::default_tenant();
        let retention =
            Retention::new(self.pools.upkeep.clone(), tenant, settings.retention.clone());
        self.supervise("retention", retention.run(self.stop.clone()));
        self.spawn_projectors(settings, kafka.as_ref());
        kafka
    }

    /// `decided`: it is known which topic is the first.
    fn spawn_watches(
        &self,
        settings: &Settings,
        breaker: &Arc<Breaker>,
        kafka: &Arc<Connection>,
        decided: &CancellationToken,
        seen: Seen,
    ) {
        let (status, stop) = (self.status.clone(), self.stop.clone());
        let watch = watch::watch(settings.kafka.clone(), Arc::clone(breaker), status, stop);
        self.supervise("kafka watch", watch);
        let (wiring, connection) = (self.topics(settings), Arc::clone(kafka));
        let (status, stop) = (self.status.clone(), self.stop.clone());
        self.supervise("topic health", topic_health::watch(wiring, connection, status, stop));
        let (wiring, status, kafka) =
            (self.topics(settings), self.status.clone(), Arc::clone(kafka));
        let (decided, stop) = (decided.clone(), self.stop.clone());
        self.supervise("topic watch", async move {
            // Another cluster's topic of the same name is not one that was made anew.
            stop.run_until_cancelled(decided.cancelled()).await;
            identity::watch(wiring, kafka, status, seen, stop).await;
        });
    }

    fn spawn_publisher(
        &self,
        settings: &Settings,
        breaker: Arc<Breaker>,
        kafka: &Arc<Connection>,
        decided: CancellationToken,
    ) {
        let kafka_settings = settings.kafka.clone();
        let wake = &self.wake_publisher;
        let deps = self.publisher_deps(settings, Role::Outbox, kafka_settings, breaker, wake);
        let stop = self.stop.clone();
        let (wiring, kafka) = (self.topics(settings), Arc::clone(kafka));
        self.supervise("publisher", async move {
            cutover::run(&deps.pool, &kafka, &deps.kafka.events_topic, &stop).await;
            decided.cancel();
            // It runs, and has nothing to do before the first event.
            deps.status.update(|pipeline| pipeline.publisher.running = true);
            let waits = || metrics::counter!("kafka_producer_init_failures_total").increment(1);
            if let Some(Books { partitions, deployment }) =
                books(&wiring, &kafka, &deps.status, &stop, waits).await
            {
                Publisher::new(Deps { partitions, deployment, ..deps }).run(stop).await;
            }
        });
    }

    pub(super) fn publisher_deps(
        &self,
        settings: &Settings,
        role: Role,
        kafka: KafkaSettings,
        breaker: Arc<Breaker>,
        wake: &Arc<Notify>,
    ) -> Deps {
        Deps {
            role,
            pool: self.pools.pipeline.clone(),
            tenant: TenantId::default_tenant(),
            partitions: settings.kafka.default_partitions,
            deployment: None,
            kafka,
            breaker,
            producer: settings.producer.clone(),
            outbox: settings.outbox.clone(),
            status: self.status.clone(),
            instance: Arc::clone(&self.instance),
            wake: Arc::clone(wake),
            pressure: self.pressure.clone(),
        }
    }

    fn spawn_projectors(&self, settings: &Settings, kafka: Option<&Arc<Connection>>) {
        let events = &settings.kafka.events_topic;
        let topic = kafka.map(|kafka| SharedTopic::new(Arc::clone(kafka), events));
        for (kind, commits) in Projection::ALL.into_iter().zip(&self.wake_projectors) {
            let projector = Projector::new(Wiring {
                kind,
                tenant: TenantId::default_tenant(),
                topic: settings.kafka.events_topic.clone(),
                consumer: settings.consumer.clone(),
                kafka: topic.clone().map(open_partition),
                pool: self.pools.pipeline.clone(),
                commits: Arc::clone(commits),
                applied: Arc::clone(&self.applied),
                status: self.status.clone(),
                pressure: self.pressure.clone(),
                recent: self.recent.clone(),
                instance: Arc::clone(&self.instance),
            });
            let stop = self.stop.clone();
            self.supervise(kind.name(), projector.run(stop));
        }
    }

    /// The projectors as the groups that Kafka's own tools show.
    fn spawn_offset_committers(&self, settings: &Settings, kafka: &Arc<Connection>) {
        for kind in Projection::ALL {
            let role = kind.offsets_role;
            let offsets = OffsetCommitter::new(group_offsets::Deps {
                projector: kind.name(),
                role,
                group: format!("{}{}", settings.consumer.group_prefix, kind.name()),
                tenant: TenantId::default_tenant().as_str().to_owned(),
                topic: settings.kafka.events_topic.clone(),
                connection: Arc::clone(kafka),
                pool: self.pools.pipeline.clone(),
                instance: Arc::clone(&self.instance),
                status: self.status.clone(),
            });
            self.supervise(role, offsets.run(self.stop.clone()));
        }
    }
}

/// Both projectors read the same records at nearly the same time.
fn open_partition(topic: Arc<SharedTopic>) -> OpenPartition {
    Arc::new(move |partition| topic.reader(partition))
}

/// What the books say of what is published.
pub(super) struct Books {
    /// The count that wallets are hashed over.
    pub partitions: i32,
    /// Whose events they are; none: books of a time before that was known.
    pub deployment: Option<Uuid>,
}

/// Asked for until it is known; none when the service stops first. Where no count is frozen yet, Kafka
/// says what the topic has, and while it is away the first command freezes the setting's. `waits` is told
/// of each time that Kafka was away.
pub(super) async fn books(
    wiring: &topics::Wiring,
    kafka: &Connection,
    status: &Status,
    stop: &CancellationToken,
    waits: impl Fn(),
) -> Option<Books> {
    loop {
        let asked = stop.run_until_cancelled(Box::pin(ask_books(wiring, kafka, status))).await?;
        match asked {
            Ok(Some(books)) => return Some(books),
            Ok(None) if status.snapshot().connection_error.is_some() => waits(),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "publisher waits for the books"),
        }
        stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await?;
    }
}

async fn ask_books(
    wiring: &topics::Wiring,
    kafka: &Connection,
    status: &Status,
) -> Result<Option<Books>, TopicsError> {
    let (pool, tenant) = (&wiring.pool, TenantId::default_tenant());
    let topic = &wiring.kafka.events_topic;
    let partitions = match store::topics::frozen(pool, &tenant, topic).await? {
        Some((partitions, _)) => partitions,
        None if status.snapshot().connected => {
            Topics::open_behind(wiring, kafka).await?.hashed_over().await?
        }
        None => return Ok(None),
    };
    let mut connection = store::acquire(pool).await?;
    let deployment = store::topics::deployment(&mut connection, &tenant).await?;
    Ok(Some(Books { partitions, deployment }))
}
