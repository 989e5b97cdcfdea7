//! Wiring: what the service is made of ([`services`]), which tasks run ([`tasks`]), and in which order
//! they stop. The only place that spawns tasks which live as long as the service.
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
mod services;
mod signals;
mod snapshots;
mod summaries;
mod tasks;
mod topic_health;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Settings;
use crate::http::{self, HttpState, Repairs};
use crate::store;
use crate::topics::{self, KnownTopic};
use services::Services;
use tasks::Running;

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
    let services = Services::new(settings, shutdown.clone())?;
    database::check(&services.way).await?;
    database::fits(&services.pools.probe).await?;
    let seen = match services.kafka {
        Some(_) => admission::topic(&services.topics()).await?,
        None => KnownTopic::default(),
    };
    let schemas = schemas::at_start(&services).await?;
    let background = Background::new(services);
    let (executor, lanes) = background.lanes();
    background.spawn_lanes(lanes)?;
    let services = &background.services;
    background.start(schemas.map(|schemas| tasks::repeated(services, schemas)));
    background.start(tasks::all(services, seen, &executor, metrics.clone()));

    let state = HttpState::new(http::Parts {
        callers,
        executor,
        pools: services.pools.clone(),
        status: services.status.clone(),
        applied: Arc::clone(&services.wakes.applied),
        settings: services.settings.http.clone(),
        metrics,
        repairs: background.repairs(),
        asyncapi: asyncapi(&services.settings),
    });
    tracing::info!(address = %listener.local_addr()?, "listening");
    let (draining, stop) = (services.status.clone(), shutdown.clone());
    background.tasks.spawn(async move {
        stop.cancelled().await;
        draining.update(|pipeline| pipeline.draining = true);
    });
    http::serve(listener, http::router(state), limits, shutdown).await;
    background.stop().await
}

/// The tasks beside the HTTP server.
struct Background {
    services: Services,
    /// Everything that must end before the process does.
    tasks: TaskTracker,
    /// Lanes and their side work: they end when the last executor is gone.
    commands: TaskTracker,
    /// The listener shows the other instances that this one lives: nothing waits for its end.
    last: TaskTracker,
}

impl Background {
    fn new(services: Services) -> Self {
        let (tasks, commands, last) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());
        Self { services, tasks, commands, last }
    }

    /// What the admin routes may set in motion.
    fn repairs(&self) -> Repairs {
        let s = &self.services;
        Repairs {
            database: s.settings.database.clone(),
            events_topic: s.settings.kafka.events_topic.clone(),
            topics: s.topics(),
            publisher: Arc::clone(&s.wakes.publisher),
            republisher: Arc::clone(&s.wakes.republisher),
            tasks: self.tasks.clone(),
            stop: s.stop.clone(),
        }
    }

    /// Starts tasks. One that ends before it is stopped makes the service unhealthy.
    fn start(&self, tasks: impl IntoIterator<Item = Running>) {
        for Running { name, stop, is_last, work } in tasks {
            let tracker = if is_last { &self.last } else { &self.tasks };
            let (task, status) = (tracker.spawn(work), self.services.status.clone());
            tracker.spawn(async move {
                let ended = task.await;
                if !stop.is_cancelled() {
                    let panicked = ended.is_err();
                    tracing::error!(task = name, panicked, "background task ended");
                    status.update(|pipeline| pipeline.dead_tasks.push(name));
                }
            });
        }
    }

    /// The HTTP server is done and with it every executor: the rest follows in order.
    async fn stop(self) -> anyhow::Result<()> {
        let Services { pools, status, stop, quit, .. } = self.services;
        self.commands.close();
        if tokio::time::timeout(SETTLE, self.commands.wait()).await.is_err() {
            tracing::warn!("commands still unsettled at the end: their keys will tell");
        }
        stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "background tasks cut off: they go on where they were at the next start"
            );
        }
        quit.cancel();
        // Sessions of a silent server cannot say goodbye: they are not waited for.
        let _ = tokio::time::timeout(CLOSE, pools.close()).await;
        let dead = status.snapshot().dead_tasks;
        anyhow::ensure!(!dead.contains(&"lane"), "a lane died; the log has the cause");
        anyhow::ensure!(!dead.contains(&database::TASK), "DATABASE_URL: {}", store::SHARED);
        tracing::info!("stopped");
        Ok(())
    }
}
