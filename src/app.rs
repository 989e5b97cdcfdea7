//! Wiring: who gets what, which tasks run, and in which order they stop. The only place that
//! spawns tasks which live as long as the service.
//!
//! Shutdown: not ready → no new connections, running requests finish → lanes drain → unknown
//! COMMITs settle → publisher and projectors finish what they have in hand.

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
use crate::execute::{self, EventsTopic, Executor, Lane, Notifiers, Queue};
use crate::http::{self, HttpState};
use crate::projector::{LEDGER_PROJECTOR, Projector, READ_MODEL_PROJECTOR};
use crate::publisher::Publisher;
use crate::status::Status;
use crate::store;

/// After the last request, background work gets this long to finish what it has in hand.
const GRACE: Duration = Duration::from_secs(20);
/// How often gauges are refreshed and old histogram samples folded.
const METRICS_TICK: Duration = Duration::from_secs(5);

/// Runs the service until `shutdown`. Returns an error when a part that it cannot do without died.
pub async fn run(
    settings: Settings,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = SocketAddr::new(settings.http.host, settings.http.port);
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: set PORT (or HOST) to a free one, or stop what uses it")
    })?;
    let background = Background::new(&settings)?;
    let (executor, lanes) = background.lanes(&settings);
    background.spawn_lanes(lanes, &shutdown);
    background.spawn_pipeline(&settings)?;
    background.spawn_metrics(metrics.clone(), executor.queue());

    let state = HttpState {
        executor,
        pool: background.pool.clone(),
        status: background.status.clone(),
        settings: settings.http.clone(),
        metrics,
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
    wake_publisher: Arc<Notify>,
    wake_projectors: Vec<Arc<Notify>>,
}

impl Background {
    fn new(settings: &Settings) -> anyhow::Result<Self> {
        let status = Status::default();
        status.update(|pipeline| pipeline.kafka_enabled = settings.kafka.enabled);
        Ok(Self {
            pool: store::connect_pool(&settings.database)
                .context("DATABASE_URL: not a usable postgres:// URL")?,
            status,
            tasks: TaskTracker::new(),
            commands: TaskTracker::new(),
            stop: CancellationToken::new(),
            wake_publisher: Arc::default(),
            wake_projectors: vec![Arc::default(), Arc::default()],
        })
    }

    fn lanes(&self, settings: &Settings) -> (Executor, Vec<Lane>) {
        let topic = EventsTopic {
            name: settings.kafka.events_topic.as_str().into(),
            default_partitions: settings.kafka.default_partitions,
        };
        let mut listeners = self.wake_projectors.clone();
        listeners.push(Arc::clone(&self.wake_publisher));
        execute::start(
            settings.database.url.clone(),
            topic,
            settings.commands.clone(),
            Notifiers::new(listeners),
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

    fn spawn_pipeline(&self, settings: &Settings) -> anyhow::Result<()> {
        if settings.kafka.enabled {
            let publisher = Publisher::new(
                self.pool.clone(),
                &settings.kafka,
                &settings.producer,
                &settings.outbox,
                Arc::clone(&self.wake_publisher),
                self.status.clone(),
            );
            let stop = self.stop.clone();
            self.supervise("publisher", async move { publisher.run(stop).await });
        }
        let names = [LEDGER_PROJECTOR, READ_MODEL_PROJECTOR];
        for (name, wake) in names.into_iter().zip(&self.wake_projectors) {
            let projector = Projector::new(
                name,
                self.pool.clone(),
                &settings.kafka,
                &settings.consumer,
                Arc::clone(wake),
                self.status.clone(),
            );
            let stop = self.stop.clone();
            self.supervise(name, async move { projector.run(stop).await });
        }
        Ok(())
    }

    /// A background task that ends before it was told to makes the service unhealthy.
    fn supervise(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(task);
        let (status, stop) = (self.status.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let ended = task.await;
            if !stop.is_cancelled() {
                tracing::error!(task = name, panicked = ended.is_err(), "background task ended");
                status.update(|pipeline| pipeline.dead_tasks.push(name));
            }
        });
    }

    fn spawn_metrics(&self, metrics: PrometheusHandle, queue: Queue) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let mut tick = tokio::time::interval(METRICS_TICK);
            while stop.run_until_cancelled(tick.tick()).await.is_some() {
                metrics.run_upkeep();
                let queued = u32::try_from(queue.waiting()).unwrap_or(u32::MAX);
                metrics::gauge!("command_queue_depth").set(f64::from(queued));
            }
        });
    }

    /// The HTTP server is done and with it every executor: the rest follows in order.
    async fn stop(self) -> anyhow::Result<()> {
        self.commands.close();
        if tokio::time::timeout(GRACE, self.commands.wait()).await.is_err() {
            tracing::warn!("commands still unsettled at the end: their keys will tell");
        }
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("background tasks cut off: they go on where they were at the next start");
        }
        self.pool.close().await;
        let dead = self.status.snapshot().dead_tasks;
        anyhow::ensure!(!dead.contains(&"lane"), "a lane died; the log has the cause");
        tracing::info!("stopped");
        Ok(())
    }
}
