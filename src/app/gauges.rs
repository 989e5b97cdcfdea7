//! What is measured by the clock: gauges refreshed, old histogram samples folded, the last minute's
//! publications counted.

use std::collections::VecDeque;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;

use crate::background::task::{Never, Task};
use crate::execute::Queue;
use crate::status::Status;

const EVERY: Duration = Duration::from_secs(5);
/// Samples that span a minute.
const MINUTE_SAMPLES: usize = 13;

pub(super) struct Gauges {
    metrics: PrometheusHandle,
    queue: Queue,
    status: Status,
    /// Events published by the moment of each sample.
    published: VecDeque<u64>,
}

impl Gauges {
    pub fn new(metrics: PrometheusHandle, queue: Queue, status: Status) -> Self {
        Self { metrics, queue, status, published: VecDeque::from([0]) }
    }
}

impl Task for Gauges {
    const NAME: &'static str = "gauges";
    type Error = Never;

    async fn round(&mut self) -> Result<Duration, Never> {
        self.metrics.run_upkeep();
        let queued = u32::try_from(self.queue.waiting()).unwrap_or(u32::MAX);
        metrics::gauge!("command_queue_depth").set(f64::from(queued));
        let published = &mut self.published;
        self.status.update(|pipeline| {
            let publisher = &mut pipeline.publisher;
            published.push_back(publisher.published);
            if published.len() > MINUTE_SAMPLES {
                published.pop_front();
            }
            let before = published.front().copied().unwrap_or(0);
            publisher.published_last_minute = publisher.published - before;
        });
        Ok(EVERY)
    }
}
