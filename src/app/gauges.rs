//! What is measured by the clock: gauges refreshed, old histogram samples folded, the last minute's
//! publications counted.

use std::collections::VecDeque;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::execute::Queue;
use crate::status::Status;

const TICK: Duration = Duration::from_secs(5);
/// Samples that span a minute.
const MINUTE_TICKS: usize = 13;

/// Runs until told to stop.
pub(super) async fn refresh(
    metrics: PrometheusHandle,
    queue: Queue,
    status: Status,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(TICK);
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
}
