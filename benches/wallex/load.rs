//! Load on the service: closed loops, where each connection waits for its answer, and an open
//! loop, where operations are due at a fixed rate whether or not earlier ones are answered.
//!
//! All connections live on one thread: it must cost less than what it measures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::request::Request;
use crate::wire::Wire;

/// What a load came to.
#[derive(Debug, Clone)]
pub struct Tally {
    pub answered: u64,
    /// Answers that were neither 200 nor 201.
    pub errors: u64,
    /// The status of the last of them.
    pub last_error: u16,
    pub elapsed: Duration,
    /// Microseconds.
    pub latency: Histogram<u64>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        Ok(Self { answered: 0, errors: 0, last_error: 0, elapsed: Duration::ZERO, latency })
    }

    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    fn record(&mut self, status: u16, took: Duration) {
        match status {
            200 | 201 => {
                self.answered += 1;
                self.latency.saturating_record(took.as_micros() as u64);
            }
            _ => (self.errors, self.last_error) = (self.errors + 1, status),
        }
    }
}

/// When the next operation of a connection is due.
#[derive(Clone)]
enum Pace {
    /// At once.
    Closed,
    /// At its place in a schedule that all connections share.
    Open { every: Duration, taken: Arc<AtomicU64> },
}

/// Each of `connections` sends its next request as soon as it has the last answer.
pub async fn closed(
    port: u16,
    connections: usize,
    request: &Request,
    time: Duration,
) -> anyhow::Result<Tally> {
    run(port, connections, request, time, Pace::Closed).await
}

/// `rate` operations a second; latency counts from the moment an operation was due.
pub async fn open(
    port: u16,
    connections: usize,
    request: &Request,
    time: Duration,
    rate: f64,
) -> anyhow::Result<Tally> {
    let every = Duration::from_secs_f64(1.0 / rate.max(1.0));
    run(port, connections, request, time, Pace::Open { every, taken: Arc::default() }).await
}

async fn run(
    port: u16,
    connections: usize,
    request: &Request,
    time: Duration,
    pace: Pace,
) -> anyhow::Result<Tally> {
    let tally = Arc::new(Mutex::new(Tally::new()?));
    let mut wires = Vec::new();
    for _ in 0..connections {
        wires.push(Wire::open(port).await?);
    }
    let begin = Instant::now();
    let mut workers = JoinSet::new();
    for (wire, number) in wires.into_iter().zip(0..) {
        let request = request.clone().seeded(number);
        workers.spawn(work(wire, request, pace.clone(), begin, begin + time, Arc::clone(&tally)));
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let mut tally = tally.lock().map_err(|_| anyhow::anyhow!("a worker panicked"))?.clone();
    tally.elapsed = begin.elapsed();
    Ok(tally)
}

async fn work(
    mut wire: Wire,
    mut request: Request,
    pace: Pace,
    begin: Instant,
    end: Instant,
    tally: Arc<Mutex<Tally>>,
) -> anyhow::Result<()> {
    loop {
        let due = match &pace {
            Pace::Closed => Instant::now(),
            Pace::Open { every, taken } => {
                let place = taken.fetch_add(1, Ordering::Relaxed);
                // A place behind the end is not waited for: the load ends with the last answer.
                let due = begin + every.mul_f64(place as f64);
                tokio::time::sleep_until(due.min(end).into()).await;
                due
            }
        };
        if due >= end {
            return Ok(());
        }
        let status = wire.call(request.next()).await?;
        let took = due.elapsed();
        if let Ok(mut tally) = tally.lock() {
            tally.record(status, took);
        }
    }
}
