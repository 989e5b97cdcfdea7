//! Wiring: who gets what, which tasks run, and in which order they stop. The only place that
//! spawns tasks which live as long as the service.
//!
//! Shutdown: not ready → no new connections, running requests finish → lanes drain → unknown
//! COMMITs settle → publisher and projectors finish what they have in hand and give their partitions
//! up → the listening session ends.

mod admission;
mod identity;
mod moving;
mod signals;
mod watch;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{KafkaSettings, Settings};
use crate::dead_letters::{self, DeadLetters};
use crate::execute::{self, EventsTopic, Executor, Lane, Notifiers, Queue};
use crate::group_mirror::{self, GroupMirror};
use crate::http::{self, HttpState, Repairs};
use crate::instance::Instance;
use crate::kafka::{Breaker, Connection, Fetcher};
use crate::pressure::Pressure;
use crate::projector::{Kind, OpenPartition, Projector, Wiring};
use crate::publisher::{Parts, Publisher};
use crate::republisher::Republisher;
use crate::retention::Retention;
use crate::status::Status;
use crate::store;
use crate::topics;
use crate::wallet::TenantId;

/// After the last request, COMMITs in doubt get this long to be settled.
const SETTLE: Duration = Duration::from_secs(20);
/// After the last command, publisher and projectors get this long to finish what they have in hand.
const GRACE: Duration = Duration::from_secs(10);
/// Idle sessions say goodbye to Postgres within this time.
const CLOSE: Duration = Duration::from_secs(2);
/// How often gauges are refreshed and old histogram samples folded.
const METRICS_TICK: Duration = Duration::from_secs(5);
/// Samples that span a minute.
const MINUTE_TICKS: usize = 13;

/// The OpenAPI document of the service, as it serves it.
pub fn openapi() -> bytes::Bytes {
    http::document()
}

/// Runs the service until `shutdown`. Returns an error when a part that it cannot do without died.
pub async fn run(
    settings: Settings,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = SocketAddr::new(settings.http.host, settings.http.port);
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: set PORT (or HOST) to a free one, or stop what uses it"
        )
    })?;
    if settings.kafka.enabled {
        admission::check(&settings.kafka).await?;
    }
    let background = Background::new(&settings)?;
    let (executor, lanes) = background.lanes(&settings);
    background.spawn_lanes(lanes, &shutdown);
    background.spawn_signals(&settings);
    background.spawn_pipeline(&settings);
    background.spawn_metrics(metrics.clone(), executor.queue());

    let state = HttpState {
        executor,
        pool: background.pool.clone(),
        status: background.status.clone(),
        settings: settings.http.clone(),
        metrics,
        repairs: background.repairs(&settings),
    };
    tracing::info!(address = %listener.local_addr()?, "listening");
    let draining = background.status.clone();
    let stop = shutdown.clone();
    background.tasks.spawn(async move {
        stop.cancelled().await;
        draining.update(|pipeline| pipeline.draining = true);
    });
    http::serve(listener, http::router(state), shutdown).await;
    background.stop().await
}

/// The tasks behind the HTTP server, and what they share.
struct Background {
    pool: store::Pool,
    status: Status,
    /// Everything that must end before the process does.
    tasks: TaskTracker,
    /// Lanes and their side work: they end when the last executor is gone.
    commands: TaskTracker,
    /// Ends publisher, projectors and gauges; fired after the lanes have drained.
    stop: CancellationToken,
    /// What shows the other instances that this one lives.
    last: TaskTracker,
    /// Ends it, when all else has ended.
    quit: CancellationToken,
    instance: Arc<Instance>,
    wake_others: Arc<Notify>,
    wake_publisher: Arc<Notify>,
    wake_republisher: Arc<Notify>,
    wake_second: Arc<Notify>,
    wake_projectors: Vec<Arc<Notify>>,
    pressure: Pressure,
}

impl Background {
    fn new(settings: &Settings) -> anyhow::Result<Self> {
        let status = Status::default();
        let instance = Arc::new(Instance::new(settings.consumer.session_timeout));
        status.update(|pipeline| {
            pipeline.kafka_enabled = settings.kafka.enabled;
            pipeline.instance = instance.owner().to_owned();
            pipeline.group_prefix.clone_from(&settings.consumer.group_prefix);
        });
        Ok(Self {
            pool: store::connect_service(&settings.database)
                .context("DATABASE_URL: not a usable postgres:// URL")?,
            status,
            tasks: TaskTracker::new(),
            commands: TaskTracker::new(),
            stop: CancellationToken::new(),
            last: TaskTracker::new(),
            quit: CancellationToken::new(),
            instance,
            wake_others: Arc::default(),
            wake_publisher: Arc::default(),
            wake_republisher: Arc::default(),
            wake_second: Arc::default(),
            wake_projectors: vec![Arc::default(), Arc::default()],
            pressure: Pressure::default(),
        })
    }

    fn lanes(&self, settings: &Settings) -> (Executor, Vec<Lane>) {
        let topic = EventsTopic {
            name: settings.kafka.events_topic.as_str().into(),
            default_partitions: settings.kafka.default_partitions,
        };
        let mut listeners = self.pipeline_wakes();
        listeners.push(Arc::clone(&self.wake_others));
        execute::start(
            settings.database.url.clone(),
            topic,
            settings.commands.clone(),
            Notifiers::new(listeners),
            self.pressure.clone(),
            self.commands.clone(),
        )
    }

    /// Without a lane commands would wait for ever: its death ends the service.
    fn spawn_lanes(&self, lanes: Vec<Lane>, shutdown: &CancellationToken) {
        for lane in lanes {
            let lane = self.commands.spawn(lane.run());
            let (status, shutdown) = (self.status.clone(), shutdown.clone());
            self.commands.spawn(async move {
                if lane.await.is_err() {
                    tracing::error!("a lane died: the service stops");
                    status.update(|pipeline| pipeline.dead_tasks.push("lane"));
                    shutdown.cancel();
                }
            });
        }
    }

    /// Whom a commit wakes, here or in another instance.
    fn pipeline_wakes(&self) -> Vec<Arc<Notify>> {
        let mut wakes = self.wake_projectors.clone();
        wakes.extend([&self.wake_publisher, &self.wake_second].map(Arc::clone));
        wakes
    }

    fn spawn_signals(&self, settings: &Settings) {
        let (instance, wakes) = (Arc::clone(&self.instance), self.pipeline_wakes());
        let url = settings.database.url.clone();
        let listen = signals::listen(url, instance, wakes, self.quit.clone());
        self.supervise_in(&self.last, &self.quit, "listener", listen);
        let (pool, instance) = (self.pool.clone(), Arc::clone(&self.instance));
        let tell = signals::tell(pool, instance, Arc::clone(&self.wake_others), self.stop.clone());
        self.supervise("signals", tell);
    }

    fn spawn_pipeline(&self, settings: &Settings) {
        let breaker = Breaker::new(&settings.kafka.breaker);
        let enabled = settings.kafka.enabled;
        let kafka = enabled.then(|| Connection::behind(&settings.kafka, Arc::clone(&breaker)));
        if kafka.is_some() {
            let (status, stop) = (self.status.clone(), self.stop.clone());
            let watch = watch::watch(settings.kafka.clone(), Arc::clone(&breaker), status, stop);
            self.supervise("kafka watch", watch);
            let parts = Arc::new(identity::Parts {
                settings: settings.kafka.clone(),
                pool: self.pool.clone(),
                tenant: TenantId::default_tenant(),
                status: self.status.clone(),
            });
            let settled = CancellationToken::new();
            let (sides, stop) = (settled.clone(), self.stop.clone());
            self.supervise("topic watch", async move {
                // Another cluster's topic of the same name is not one that was made anew.
                stop.run_until_cancelled(sides.cancelled()).await;
                identity::watch(parts, stop).await;
            });
            let (parts, stop) = (self.publisher_parts(settings, breaker), self.stop.clone());
            self.spawn_second(settings, &settled);
            self.supervise("publisher", async move {
                moving::settle(&parts.pool, &parts.kafka, &stop).await;
                settled.cancel();
                if let Some(partitions) = frozen_partitions(&parts.pool, &parts.kafka, &stop).await
                {
                    Publisher::new(Parts { partitions, ..parts }).run(stop).await;
                }
            });
        }
        let letters = DeadLetters::new(dead_letters::Parts {
            pool: self.pool.clone(),
            tenant: TenantId::default_tenant(),
            kafka: kafka.clone().map(|kafka| (kafka, settings.kafka.clone())),
            codec: settings.producer.compression,
            max_request_bytes: settings.producer.max_request_bytes,
        });
        self.supervise("dead letters", letters.run(self.stop.clone()));
        if kafka.is_some() {
            let republisher = Republisher {
                pool: self.pool.clone(),
                tenant: TenantId::default_tenant(),
                topic: settings.kafka.events_topic.clone(),
                asked: Arc::clone(&self.wake_republisher),
                publisher: Arc::clone(&self.wake_publisher),
            };
            self.supervise("republisher", republisher.run(self.stop.clone()));
        }
        if let (Some(kafka), true) = (&kafka, settings.consumer.feed_kafka) {
            self.spawn_mirrors(settings, kafka);
        }
        let tenant = TenantId::default_tenant();
        let retention = Retention::new(self.pool.clone(), tenant, settings.retention.clone());
        self.supervise("retention", retention.run(self.stop.clone()));
        for (kind, commits) in Kind::ALL.into_iter().zip(&self.wake_projectors) {
            let projector = Projector::new(Wiring {
                kind,
                tenant: TenantId::default_tenant(),
                topic: settings.kafka.events_topic.clone(),
                consumer: settings.consumer.clone(),
                kafka: kafka.clone().map(|kafka| open_partition(kafka, &settings.kafka)),
                pool: self.pool.clone(),
                commits: Arc::clone(commits),
                status: self.status.clone(),
                pressure: self.pressure.clone(),
                instance: Arc::clone(&self.instance),
            });
            let stop = self.stop.clone();
            self.supervise(kind.name(), projector.run(stop));
        }
    }

    /// The projectors as the groups that Kafka's own tools show.
    fn spawn_mirrors(&self, settings: &Settings, kafka: &Arc<Connection>) {
        for (kind, role) in Kind::ALL.into_iter().zip(group_mirror::ROLES) {
            let mirror = GroupMirror::new(group_mirror::Parts {
                projector: kind.name(),
                role,
                group: format!("{}{}", settings.consumer.group_prefix, kind.name()),
                tenant: TenantId::default_tenant().as_str().to_owned(),
                topic: settings.kafka.events_topic.clone(),
                kafka: settings.kafka.clone(),
                connection: Arc::clone(kafka),
                pool: self.pool.clone(),
                instance: Arc::clone(&self.instance),
                status: self.status.clone(),
            });
            self.supervise(role, mirror.run(self.stop.clone()));
        }
    }

    /// What the admin routes may set in motion.
    fn repairs(&self, settings: &Settings) -> Repairs {
        Repairs {
            database: settings.database.clone(),
            events_topic: settings.kafka.events_topic.clone(),
            topics: topics::Wiring {
                pool: self.pool.clone(),
                kafka: settings.kafka.clone(),
                codec: settings.producer.compression,
            },
            publisher: Arc::clone(&self.wake_publisher),
            republisher: Arc::clone(&self.wake_republisher),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }

    fn publisher_parts(&self, settings: &Settings, breaker: Arc<Breaker>) -> Parts {
        Parts {
            pool: self.pool.clone(),
            tenant: TenantId::default_tenant().as_str().to_owned(),
            partitions: settings.kafka.default_partitions,
            kafka: settings.kafka.clone(),
            producer: settings.producer.clone(),
            outbox: settings.outbox.clone(),
            status: self.status.clone(),
            instance: Arc::clone(&self.instance),
            breaker,
            wake: Arc::clone(&self.wake_publisher),
            pressure: self.pressure.clone(),
        }
    }

    fn supervise(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.supervise_in(&self.tasks, &self.stop, name, task);
    }

    /// A background task that ends before it was told to, by `stop`, makes the service unhealthy.
    fn supervise_in(
        &self,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = tasks.spawn(task);
        let (status, stop) = (self.status.clone(), stop.clone());
        tasks.spawn(async move {
            let ended = task.await;
            if !stop.is_cancelled() {
                tracing::error!(task = name, panicked = ended.is_err(), "background task ended");
                status.update(|pipeline| pipeline.dead_tasks.push(name));
            }
        });
    }

    fn spawn_metrics(&self, metrics: PrometheusHandle, queue: Queue) {
        let (status, stop) = (self.status.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let mut tick = tokio::time::interval(METRICS_TICK);
            let mut published = VecDeque::from([0]);
            while stop.run_until_cancelled(tick.tick()).await.is_some() {
                metrics.run_upkeep();
                let queued = u32::try_from(queue.waiting()).unwrap_or(u32::MAX);
                metrics::gauge!("command_queue_depth").set(f64::from(queued));
                status.update(|pipeline| {
                    let publisher = &mut pipeline.publisher;
                    published.push_back(publisher.published);
                    if published.len() > MINUTE_TICKS {
                        published.pop_front();
                    }
                    let before = published.front().copied().unwrap_or(0);
                    publisher.published_last_minute = publisher.published - before;
                });
            }
        });
    }

    /// The HTTP server is done and with it every executor: the rest follows in order.
    async fn stop(self) -> anyhow::Result<()> {
        self.commands.close();
        if tokio::time::timeout(SETTLE, self.commands.wait()).await.is_err() {
            tracing::warn!("commands still unsettled at the end: their keys will tell");
        }
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "background tasks cut off: they go on where they were at the next start"
            );
        }
        self.quit.cancel();
        // Sessions of a silent server cannot say goodbye: they are not waited for.
        let _ = tokio::time::timeout(CLOSE, self.pool.close()).await;
        let dead = self.status.snapshot().dead_tasks;
        anyhow::ensure!(!dead.contains(&"lane"), "a lane died; the log has the cause");
        tracing::info!("stopped");
        Ok(())
    }
}

/// Readers of the events topic, a connection each.
fn open_partition(connection: Arc<Connection>, settings: &KafkaSettings) -> OpenPartition {
    let topic = settings.events_topic.clone();
    Arc::new(move |partition| Fetcher::new(Arc::clone(&connection), &topic, partition))
}

/// The partition count that the database has frozen for the topic, as soon as it can be asked;
/// none when the service stops first.
async fn frozen_partitions(
    pool: &store::Pool,
    kafka: &KafkaSettings,
    stop: &CancellationToken,
) -> Option<i32> {
    while !stop.is_cancelled() {
        let tenant = TenantId::default_tenant();
        let (topic, default) = (&kafka.events_topic, kafka.default_partitions);
        let asked = async {
            let mut connection = store::acquire(pool).await?;
            store::topics::partitions_frozen(&mut connection, &tenant, topic, default).await
        };
        match asked.await {
            Ok(partitions) => return Some(partitions),
            Err(error) => tracing::debug!(%error, "publisher waits for the database"),
        }
        stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
    }
    None
}
