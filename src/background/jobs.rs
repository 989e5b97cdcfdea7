//! Runs work that is due: each job by one instance at a time, until it is done.
//!
//! | what happens | what follows |
//! |---|---|
//! | it is done | its row goes, in the transaction that did it where the handler says so |
//! | it fails | it is due again after a pause that doubles, up to a bound |
//! | its instance dies | the attempt counts, and it is due again once its time is over |
//! | too many attempts | it is set aside: health and metrics show it, an operator has it tried again |
//!
//! At least once: a handler whose effect must not happen twice finishes the job in the transaction of
//! the effect ([`Done::Committed`]).

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::task::Task;
use crate::backoff;
use crate::status::{Problem, Status};
use crate::store::{self, Pool, jobs};

pub use crate::store::jobs::Job;

/// Between two looks, unless woken.
const EVERY: Duration = Duration::from_secs(1);
/// Between two counts for the gauges.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Jobs of one instance that run at once, at most.
const RUNNING_MAX: usize = 16;
/// An instance that is given longer than a job may take cannot lose it while it lives.
const CLAIM_SLACK: Duration = Duration::from_secs(10);

/// What one kind of job does.
pub trait Handler: Send + Sync {
    fn kind(&self) -> &'static str;

    /// Does it once. An error is for operators to read.
    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Done, String>>;

    /// One attempt may take this long.
    fn time_max(&self) -> Duration {
        Duration::from_secs(50)
    }

    /// After so many attempts a job is set aside.
    fn attempts_max(&self) -> i32 {
        12
    }

    /// The first pause after a failure, and the longest.
    fn pauses(&self) -> (Duration, Duration) {
        (Duration::from_secs(1), Duration::from_secs(3600))
    }
}

/// How a job ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is done, and is forgotten.
    Finished,
    /// The handler has called [`jobs::finish`] or [`jobs::postpone`] in its own transaction.
    Committed,
    /// It is due again after this time.
    Again(Duration),
}

/// What the runner is made of.
#[derive(Clone)]
pub struct Parts {
    pub pool: Pool,
    /// The name of this instance.
    pub owner: String,
    pub status: Status,
    pub handlers: Vec<Arc<dyn Handler>>,
    /// Fired when a job was added here.
    pub added: Arc<Notify>,
}

/// Runs the jobs of all kinds that have a handler.
pub struct Jobs {
    parts: Parts,
    kinds: Vec<&'static str>,
    /// How long a claim lasts, by kind the longest.
    claim: Duration,
    /// Each attempt is a task of its own: none waits for a claim, nor a claim for what it has in hand.
    running: TaskTracker,
    room: Arc<Semaphore>,
    /// Fired when one has ended.
    ended: Arc<Notify>,
    count_due: Instant,
}

impl Jobs {
    pub fn new(parts: Parts) -> Self {
        let kinds = parts.handlers.iter().map(|handler| handler.kind()).collect();
        let times = parts.handlers.iter().map(|handler| handler.time_max());
        let claim = times.max().unwrap_or_default() + CLAIM_SLACK;
        Self {
            parts,
            kinds,
            claim,
            running: TaskTracker::new(),
            room: Arc::new(Semaphore::new(RUNNING_MAX)),
            ended: Arc::default(),
            count_due: Instant::now(),
        }
    }

    /// Claims as many as there is room for, and begins them. Whether there may be more.
    async fn claim(&self) -> store::Result<bool> {
        let room = self.room.available_permits();
        if room == 0 {
            return Ok(false);
        }
        let Parts { pool, owner, .. } = &self.parts;
        let claiming = jobs::claim(pool, owner, &self.kinds, room, self.claim);
        let claimed = store::bounded(store::SILENT, claiming).await?;
        let more = claimed.len() == room;
        for job in claimed {
            let handler = self.parts.handlers.iter().find(|handler| handler.kind() == job.kind);
            let place = Arc::clone(&self.room).try_acquire_owned();
            let (Some(handler), Ok(place)) = (handler, place) else { continue };
            let (pool, handler) = (pool.clone(), Arc::clone(handler));
            let ended = Arc::clone(&self.ended);
            self.running.spawn(async move {
                attempt(pool, handler, job).await;
                drop(place);
                ended.notify_one();
            });
        }
        Ok(more)
    }

    async fn count(&self) -> store::Result<()> {
        let counting = jobs::counts(&self.parts.pool, &self.kinds);
        let counts = store::bounded(store::SILENT, counting).await?;
        let counts: BTreeMap<_, _> = counts.iter().map(|of| (of.kind.as_str(), of)).collect();
        let mut dead = Vec::new();
        for kind in &self.kinds {
            let of = counts.get(kind);
            let due = of.map_or(0, |of| u32::try_from(of.due).unwrap_or(u32::MAX));
            metrics::gauge!("jobs_due", "kind" => *kind).set(due);
            dead.extend(of.filter(|of| of.dead > 0).map(|of| format!("{} of {kind}", of.dead)));
        }
        self.parts.status.update(|pipeline| match dead.is_empty() {
            true => drop(pipeline.problems.remove(&Problem::Jobs)),
            false => {
                let text = format!("jobs failed too often and were set aside: {}", dead.join(", "));
                pipeline.problems.insert(Problem::Jobs, text);
            }
        });
        Ok(())
    }
}

impl Task for Jobs {
    const NAME: &'static str = "jobs";
    type Error = store::Error;

    async fn round(&mut self) -> store::Result<Duration> {
        if Instant::now() >= self.count_due {
            self.count_due = Instant::now() + COUNT_EVERY;
            self.count().await?;
        }
        Ok(if self.claim().await? { Duration::ZERO } else { EVERY })
    }

    async fn woken(&mut self) {
        tokio::select! {
            () = self.ended.notified() => {}
            () = self.parts.added.notified() => {}
        }
    }

    /// What runs by then is finished.
    async fn end(&mut self) {
        self.running.close();
        self.running.wait().await;
    }
}

/// One attempt, and a note of what came of it. Where that cannot be written, the job is due again once
/// its time is over.
async fn attempt(pool: Pool, handler: Arc<dyn Handler>, job: Job) {
    let outcome = match job.attempts > handler.attempts_max() {
        // Each attempt is counted before it is made: the last ones ended with their process.
        true => Err("its attempts ended without a word".to_owned()),
        false => outcome(&*handler, &job).await,
    };
    let noting = async {
        let mut connection = store::acquire(&pool).await?;
        match &outcome {
            Ok(Done::Committed) => Ok(true),
            Ok(Done::Finished) => jobs::finish(&mut connection, &job).await,
            Ok(Done::Again(wait)) => {
                jobs::postpone(&mut connection, &job, *wait, job.payload.as_deref()).await
            }
            Err(error) => jobs::fail(&mut connection, &job, error, pause(&*handler, &job)).await,
        }
    };
    let Job { kind, key, attempts, .. } = &job;
    match store::bounded(store::SILENT, noting).await {
        Ok(true) => {}
        Ok(false) => tracing::warn!(kind, key, "a job was another instance's by the time it ended"),
        Err(error) => tracing::warn!(kind, key, %error, "what came of a job is not noted"),
    }
    if let Err(error) = outcome {
        let outcome = if pause(&*handler, &job).is_some() { "again" } else { "dead" };
        metrics::counter!("jobs_failed_total", "kind" => handler.kind(), "outcome" => outcome)
            .increment(1);
        match outcome {
            "dead" => tracing::error!(kind, key, attempts, error, "job set aside"),
            _ => tracing::warn!(kind, key, attempts, error, "job failed, and is tried again"),
        }
    }
}

async fn outcome(handler: &dyn Handler, job: &Job) -> Result<Done, String> {
    let limit = handler.time_max();
    // One job that panics is a failure of that job, not the end of all.
    let running = AssertUnwindSafe(handler.run(job)).catch_unwind();
    match timeout(limit, running).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err("it panicked".to_owned()),
        Err(_) => Err(format!("it took longer than {limit:?}")),
    }
}

/// How long to wait after this attempt failed; none: it was the last.
fn pause(handler: &dyn Handler, job: &Job) -> Option<Duration> {
    let (first, longest) = handler.pauses();
    let failures = u32::try_from(job.attempts).unwrap_or(1);
    (job.attempts < handler.attempts_max()).then(|| backoff::after(failures, first, longest))
}
