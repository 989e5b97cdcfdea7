//! Wiring: who gets what, which tasks run, and in which order they stop. The only place that
//! spawns tasks which live as long as the service.
//!
//! Shutdown: not ready → no new connections, running requests and inbound commands finish → lanes
//! drain → unknown COMMITs settle → publisher and projectors finish what they have in hand and give
//! their partitions up → the listening session ends.

mod admission;
mod cutover;
mod database;
mod descriptors;
mod gauges;
mod identity;
mod inbound;
mod lanes;
mod pipeline;
mod schemas;
mod signals;
mod snapshots;
mod topic_health;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Settings;
use crate::execute::Queue;
use crate::http::{self, HttpState, Repairs};
use crate::instance::Instance;
use crate::pressure::Pressure;
use crate::recent::Recent;
use crate::status::Status;
use crate::store;
use crate::topics::{self, Seen};

pub use crate::http::{Caller, Callers, Scopes};

/// After the last request, COMMITs in doubt get this long to be settled.
const SETTLE: Duration = Duration::from_secs(20);
/// After the last command, publisher and projectors get this long to finish what they have in hand.
const GRACE: Duration = Duration::from_secs(10);
/// Idle sessions say goodbye to Postgres within this time.
const CLOSE: Duration = Duration::from_secs(2);

/// The OpenAPI document of the service, as it serves it.
pub fn openapi() -> bytes::Bytes {
    http::document()
}

/// The AsyncAPI document of the topics as these settings name them.
pub fn asyncapi(settings: &Settings) -> bytes::Bytes {
    let document = crate::schemas::document(&topics::channels(settings));
    // JSON of strings and numbers always serializes.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text.into()
}

/// Runs the service until `shutdown`. Returns an error when a part that it cannot do without died.
pub async fn run(
    settings: Settings,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    run_for(Callers::default(), settings, metrics, shutdown).await
}

/// The same where callers are told apart in another way.
pub async fn run_for(
    callers: Callers,
    settings: Settings,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = SocketAddr::new(settings.http.host, settings.http.port);
    let limits = http::Limits {
        connections: descriptors::connections(&settings),
        keep_alive: settings.http.keep_alive,
    };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: set PORT (or HOST) to a free one, or stop what uses it"
        )
    })?;
    if settings.kafka.enabled {
        admission::check(&settings.kafka).await?;
    }
    let background = Background::new(&settings)?;
    background.spawn_database(&settings, &shutdown).await?;
    let seen = match settings.kafka.enabled {
        true => admission::topic(&background.topics(&settings)).await?,
        false => Seen::default(),
    };
    background.spawn_schemas(&settings).await?;
    let (executor, lanes) = background.lanes(&settings);
    background.spawn_lanes(lanes, &shutdown)?;
    background.spawn_signals();
    if let (Some(kafka), true) =
        (background.spawn_pipeline(&settings, seen), settings.kafka.inbound.enabled)
    {
        background.spawn_inbound(&settings, &kafka, executor.clone(), &shutdown);
    }
    background.spawn_metrics(metrics.clone(), executor.queue());

    let state = HttpState::new(http::Parts {
        callers,
        executor,
        pools: background.pools.clone(),
        status: background.status.clone(),
        applied: Arc::clone(&background.applied),
        settings: settings.http.clone(),
        metrics,
        repairs: background.repairs(&settings),
        asyncapi: asyncapi(&settings),
    });
    tracing::info!(address = %listener.local_addr()?, "listening");
    let draining = background.status.clone();
    let stop = shutdown.clone();
    background.tasks.spawn(async move {
        stop.cancelled().await;
        draining.update(|pipeline| pipeline.draining = true);
    });
    http::serve(listener, http::router(state), limits, shutdown).await;
    background.stop().await
}

/// The tasks behind the HTTP server, and what they share.
struct Background {
    way: store::Way,
    pools: store::Pools,
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
    /// Fired whenever a projector here has applied something.
    applied: Arc<Notify>,
    pressure: Pressure,
    recent: Recent,
}

impl Background {
    fn new(settings: &Settings) -> anyhow::Result<Self> {
        let status = Status::default();
        let instance = Arc::new(Instance::new(settings.consumer.session_timeout));
        let way = store::Way::new(&settings.database.url);
        status.update(|pipeline| {
            pipeline.kafka_enabled = settings.kafka.enabled;
            pipeline.instance = instance.owner().to_owned();
            pipeline.group_prefix.clone_from(&settings.consumer.group_prefix);
        });
        Ok(Self {
            pools: store::Pools::new(&way, &settings.database)
                .context("DATABASE_URL: not a usable postgres:// URL")?,
            way,
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
            applied: Arc::default(),
            pressure: Pressure::default(),
            recent: Recent::default(),
        })
    }

    /// Whom a commit wakes, here or in another instance.
    fn pipeline_wakes(&self) -> Vec<Arc<Notify>> {
        let mut wakes = self.wake_projectors.clone();
        wakes.extend([&self.wake_publisher, &self.wake_second].map(Arc::clone));
        wakes
    }

    fn spawn_signals(&self) {
        let (instance, wakes) = (Arc::clone(&self.instance), self.pipeline_wakes());
        let listen = signals::listen(self.way.clone(), instance, wakes, self.quit.clone());
        self.supervise_in(&self.last, &self.quit, "listener", listen);
        let (pool, instance) = (self.pools.pipeline.clone(), Arc::clone(&self.instance));
        let tell = signals::tell(pool, instance, Arc::clone(&self.wake_others), self.stop.clone());
        self.supervise("signals", tell);
        self.supervise("snapshots", snapshots::watch(self.pools.health.clone(), self.stop.clone()));
    }

    /// Where the registry says that the schemas do not fit, the service must not start.
    async fn spawn_schemas(&self, settings: &Settings) -> anyhow::Result<()> {
        if let Some(schemas) = schemas::Schemas::new(settings, &self.status) {
            let registered = schemas.at_start().await?;
            self.supervise("schemas", schemas.run(registered, self.stop.clone()));
        }
        Ok(())
    }

    /// What the admin routes may set in motion.
    fn repairs(&self, settings: &Settings) -> Repairs {
        Repairs {
            database: settings.database.clone(),
            events_topic: settings.kafka.events_topic.clone(),
            topics: self.topics(settings),
            publisher: Arc::clone(&self.wake_publisher),
            republisher: Arc::clone(&self.wake_republisher),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }

    fn topics(&self, settings: &Settings) -> topics::Wiring {
        topics::Wiring {
            pool: self.pools.upkeep.clone(),
            kafka: settings.kafka.clone(),
            codec: settings.producer.compression,
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
        self.tasks.spawn(gauges::refresh(metrics, queue, status, stop));
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
        let _ = tokio::time::timeout(CLOSE, self.pools.close()).await;
        let dead = self.status.snapshot().dead_tasks;
        anyhow::ensure!(!dead.contains(&"lane"), "a lane died; the log has the cause");
        anyhow::ensure!(!dead.contains(&database::TASK), "DATABASE_URL: {}", store::SHARED);
        tracing::info!("stopped");
        Ok(())
    }
}
