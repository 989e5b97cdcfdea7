//! The list of background tasks: what runs beside HTTP and the lanes, and with what.
//!
//! | task | what it does | needs |
//! |---|---|---|
//! | `database` | watches the way to Postgres: what it must not be, and what an operator should know of it | |
//! | `schemas` | registers the schemas | a registry |
//! | `listener` | receives commits and leases elsewhere; shows the others that this instance lives | |
//! | `signals` | notifies the others of commits here | |
//! | `snapshots`, `gauges` | measure what only the clock shows | |
//! | `retention`, for each table | purges what has done its service | |
//! | `partitions` | makes tables' partitions ahead of time, drops old ones | |
//! | `transaction index` | summarizes what transactions are found by | |
//! | `sweeper` | lets happen what is due on wallets; ends with the ways in | |
//! | `dead letters` | sends them to their topic and back, counts them | |
//! | `projectors` | bring events into the tables of all projections | |
//! | `kafka watch` | asks the cluster who it is: health, and the breaker's probe | Kafka |
//! | `topic health`, `topic watch` | compare the topics with what they should be; make one that is gone | Kafka |
//! | `publisher` | outbox → topic | Kafka |
//! | `republisher` | puts events into the outbox again | Kafka |
//! | `second publisher` | events → second topic | a second topic |
//! | offsets of each group | commit positions for Kafka's tools | the feed from Kafka |
//! | `inbound commands` | commands by Kafka; ends with the ways in | inbound commands |

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use super::services::{Kafka, Services};
use super::{database, gauges, identity, inbound, pipeline, signals, snapshots, summaries};
use super::{topic_health, watch};
use crate::background::task::{self, Task};
use crate::dead_letters::{self, DeadLetters};
use crate::execute::Executor;
use crate::partitions::Partitions;
use crate::projector::Projection;
use crate::republisher::Republisher;
use crate::retention::Retention;
use crate::sweeper::Sweeper;
use crate::topics::KnownTopic;

/// A task that must not end before `stop`.
pub(super) struct Running {
    pub name: &'static str,
    pub stop: CancellationToken,
    /// Nothing waits for its end.
    pub is_last: bool,
    pub work: BoxFuture<'static, ()>,
}

/// All tasks, in the order in which they begin. `seen`: the events topic at the start.
pub(super) fn all(
    services: &Services,
    seen: KnownTopic,
    executor: &Executor,
    metrics: PrometheusHandle,
) -> Vec<Running> {
    let s = services;
    let mut all = vec![
        running(database::TASK, &s.stop, database::watch(s)),
        Running { is_last: true, ..running("listener", &s.quit, signals::listen(s.clone())) },
        running("signals", &s.stop, signals::notify(s.clone())),
        repeated(s, snapshots::Snapshots::new(s.pools.health.clone())),
        repeated(s, gauges::Gauges::new(metrics, executor.queue(), s.status.clone())),
        repeated(s, Partitions::new(s.pools.upkeep.clone(), s.settings.retention.clone())),
        repeated(s, summaries::Summaries::new(s.pools.pipeline.clone())),
        repeated(s, dead_letters(s)),
        // A way in, as the consumer of commands is.
        running(Sweeper::NAME, &s.shutdown, sweeper(s, executor).run(s.shutdown.clone())),
    ];
    all.extend(retention(s).purges().into_iter().map(|purge| repeated(s, purge)));
    all.push(running("projectors", &s.stop, pipeline::projectors(s)));
    let Some(kafka) = &s.kafka else { return all };
    all.push(running("kafka watch", &s.stop, watch::watch(s.clone(), Arc::clone(&kafka.breaker))));
    all.push(repeated(s, topic_health::TopicWatch::new(s, kafka)));
    all.push(running(identity::Identity::NAME, &s.stop, topic_watch(s, kafka, seen)));
    all.push(running("publisher", &s.stop, pipeline::publisher(s, kafka)));
    all.push(repeated(s, republisher(s)));
    if let Some(second) = &s.settings.second {
        let publisher = pipeline::dual_publisher(s, kafka, second);
        all.push(running("second publisher", &s.stop, publisher));
    }
    if s.settings.consumer.feed_kafka {
        for projection in Projection::ALL {
            let role = projection.offsets_role;
            let topic = s.settings.kafka.events_topic.clone();
            let offsets = pipeline::offsets(s, kafka, topic, projection.name, role);
            all.push(running(role, &s.stop, offsets));
        }
    }
    if s.settings.kafka.inbound.enabled {
        // A way in: it stops before the lanes, which drain once no task can send them anything.
        let commands = inbound::commands(s, kafka, executor.clone());
        all.push(running("inbound commands", &s.shutdown, commands));
        let (name, offsets) = inbound::offsets(s, kafka);
        all.push(running(name, &s.stop, offsets));
    }
    all
}

fn running(
    name: &'static str,
    stop: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) -> Running {
    Running { name, stop: stop.clone(), is_last: false, work: work.boxed() }
}

/// What is done again and again.
pub(super) fn repeated<T: Task + 'static>(services: &Services, repeated: T) -> Running {
    let stop = &services.stop;
    running(T::NAME, stop, task::run(repeated, stop.clone()))
}

fn retention(s: &Services) -> Retention {
    Retention::new(s.pools.upkeep.clone(), s.settings.retention.clone())
}

fn sweeper(s: &Services, executor: &Executor) -> Sweeper {
    Sweeper {
        pool: s.pools.upkeep.clone(),
        executor: executor.clone(),
        instance: Arc::clone(&s.instance),
        tenant: s.tenant.clone(),
        topic: s.settings.kafka.events_topic.clone(),
    }
}

fn dead_letters(s: &Services) -> DeadLetters {
    let kafka = s.kafka.as_ref().map(|kafka| Arc::clone(&kafka.connection));
    DeadLetters::new(dead_letters::Parts {
        pool: s.pools.pipeline.clone(),
        kafka: kafka.map(|connection| (connection, s.settings.kafka.clone())),
        codec: s.settings.producer.compression,
        max_request_bytes: s.settings.producer.max_request_bytes,
    })
}

fn republisher(s: &Services) -> Republisher {
    Republisher {
        pool: s.pools.upkeep.clone(),
        tenant: s.tenant.clone(),
        topic: s.settings.kafka.events_topic.clone(),
        asked: Arc::clone(&s.wakes.republisher),
        publisher: Arc::clone(&s.wakes.publisher),
    }
}

fn topic_watch(
    s: &Services,
    kafka: &Kafka,
    seen: KnownTopic,
) -> impl Future<Output = ()> + Send + 'static {
    let identity = identity::Identity {
        wiring: s.topics(),
        connection: Arc::clone(&kafka.connection),
        status: s.status.clone(),
        seen,
        open: None,
    };
    let (decided, stop) = (kafka.decided.clone(), s.stop.clone());
    async move {
        // Another cluster's topic of the same name is not one that was recreated.
        stop.run_until_cancelled(decided.cancelled()).await;
        task::run(identity, stop).await;
    }
}
