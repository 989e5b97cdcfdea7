//! From outbox to tables: which tasks carry events on, and with what.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use super::cutover;
use super::services::{Kafka, Services};
use crate::config::{KafkaSettings, SecondSettings};
use crate::group_offsets::{self, OffsetCommitter};
use crate::kafka::{Breaker, Connection};
use crate::projector::{OpenPartition, Projection, Projectors, Wiring};
use crate::publisher::{Deps, Publisher, Role};
use crate::status::Status;
use crate::store;
use crate::topics::{self, Topics, TopicsError};
use crate::wallet::TenantId;

/// Publishes, once it is known which topic is the first and what its wallets are hashed over.
pub(super) fn publisher(s: &Services, kafka: &Kafka) -> impl Future<Output = ()> + Send + 'static {
    let breaker = Arc::clone(&kafka.breaker);
    let deps = deps(s, Role::Outbox, s.settings.kafka.clone(), breaker, &s.wakes.publisher);
    let (s, kafka) = (s.clone(), kafka.clone());
    async move {
        let topic = &deps.kafka.events_topic;
        cutover::run(&deps.pool, &kafka.connection, topic, &s.stop).await;
        kafka.decided.cancel();
        // It runs, and has nothing to do before the first event.
        s.status.update(|pipeline| pipeline.publisher.running = true);
        let waits = || metrics::counter!("kafka_producer_init_failures_total").increment(1);
        publish(&s, &kafka.connection, deps, waits).await;
    }
}

/// Publishes events into the second topic, too, once the first is known to be the first.
pub(super) fn dual_publisher(
    s: &Services,
    kafka: &Kafka,
    second: &SecondSettings,
) -> impl Future<Output = ()> + Send + 'static {
    let role = Role::Dual {
        first_topic: s.settings.kafka.events_topic.clone(),
        from_now: second.from_now,
        apart: second.apart,
    };
    let breaker = Breaker::for_second_cluster(&second.kafka.breaker);
    let deps = deps(s, role, second.kafka.clone(), breaker, &s.wakes.second);
    let (s, kafka) = (s.clone(), kafka.clone());
    async move {
        if s.stop.run_until_cancelled(kafka.decided.cancelled()).await.is_some() {
            publish(&s, &kafka.connection, deps, || {}).await;
        }
    }
}

async fn publish(s: &Services, kafka: &Connection, deps: Deps, waits: impl Fn()) {
    if let Some(Books { partitions, deployment }) = books(s, kafka, waits).await {
        Publisher::new(Deps { partitions, deployment, ..deps }).run(s.stop.clone()).await;
    }
}

fn deps(
    s: &Services,
    role: Role,
    kafka: KafkaSettings,
    breaker: Arc<Breaker>,
    wake: &Arc<Notify>,
) -> Deps {
    Deps {
        role,
        pool: s.pools.pipeline.clone(),
        tenant: s.tenant.clone(),
        partitions: s.settings.kafka.default_partitions,
        deployment: None,
        kafka,
        breaker,
        producer: s.settings.producer.clone(),
        outbox: s.settings.outbox.clone(),
        status: s.status.clone(),
        instance: Arc::clone(&s.instance),
        wake: Arc::clone(wake),
        throttle: s.throttle.clone(),
    }
}

/// Brings events into the tables of all projections.
pub(super) fn projectors(s: &Services) -> impl Future<Output = ()> + Send + 'static {
    let topic = s.kafka.as_ref().map(|kafka| Arc::clone(&kafka.events));
    let open =
        topic.map(|topic| -> OpenPartition { Arc::new(move |partition| topic.reader(partition)) });
    let wiring = |kind: &'static Projection| Wiring {
        kind,
        topic: s.settings.kafka.events_topic.clone(),
        consumer: s.settings.consumer.clone(),
        kafka: open.clone(),
        pool: s.pools.pipeline.clone(),
        commits: s.wakes.projectors.get(kind.name()).map(Arc::clone).unwrap_or_default(),
        applied: Arc::clone(&s.wakes.applied),
        status: s.status.clone(),
        throttle: s.throttle.clone(),
        event_cache: s.event_cache.clone(),
        instance: Arc::clone(&s.instance),
    };
    Projectors::new(Projection::ALL.map(wiring)).run(s.stop.clone())
}

/// A consumer's positions as a group that Kafka's own tools show.
pub(super) fn offsets(
    s: &Services,
    kafka: &Kafka,
    topic: String,
    projector: &'static str,
    role: &'static str,
) -> impl Future<Output = ()> + Send + 'static {
    let offsets = OffsetCommitter::new(group_offsets::Deps {
        projector,
        role,
        group: format!("{}{projector}", s.settings.consumer.group_prefix),
        tenant: s.tenant.as_str().to_owned(),
        topic,
        connection: Arc::clone(&kafka.connection),
        pool: s.pools.pipeline.clone(),
        instance: Arc::clone(&s.instance),
        status: s.status.clone(),
    });
    offsets.run(s.stop.clone())
}

/// What the books say of what is published.
struct Books {
    /// The count that wallets are hashed over.
    partitions: i32,
    /// Whose events they are; none: books of a time before that was known.
    deployment: Option<Uuid>,
}

/// Asked for until it is known; none when the service stops first. Where no count is frozen yet, Kafka
/// says what the topic has, and while it is away the first command freezes the setting's. `waits` is told
/// of each time that Kafka was away.
async fn books(s: &Services, kafka: &Connection, waits: impl Fn()) -> Option<Books> {
    let (wiring, status, stop) = (s.topics(), &s.status, &s.stop);
    loop {
        let asked = stop.run_until_cancelled(Box::pin(ask_books(&wiring, kafka, status))).await?;
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
    let deployment = store::topics::deployment(&mut connection).await?;
    Ok(Some(Books { partitions, deployment }))
}
