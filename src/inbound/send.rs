//! What follows from a chunk, into its topics: results, retries, dead letters. Each partition gets its
//! records in order, and again until the broker has taken them: twice is possible, never not at all.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::batch::{Fate, Handled};
use super::record::{self, LEFT_OUT, Origin};
use super::{Shared, Topic};
use crate::envelope::partition_of;
use crate::kafka::{Copied, ProduceError};

const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Records by partition of one topic.
type Batches = BTreeMap<i32, Vec<Copied>>;

/// None: told to stop; the chunk will be read again.
pub(super) async fn send(
    shared: &Shared,
    stage: usize,
    partition: i32,
    handled: &[Handled<'_>],
    stop: &CancellationToken,
) -> Option<()> {
    let now = super::now();
    let next = shared.stages.get(stage + 1).map(|next| &next.topic);
    let topic = shared.stages.get(stage).map_or("", |stage| &stage.topic.name);
    let origin = Origin { topic, partition, stage };
    let (mut results, mut retries, mut letters) = <(Batches, Batches, Batches)>::default();
    for one in handled {
        if let Some(result) = record::result(one, next.is_none(), now) {
            add(&mut results, &shared.results, partition, result);
        }
        if let Some(failed) = record::failed(one, &origin, now) {
            match (&one.fate, next) {
                (Fate::Undecided(_), Some(next)) => add(&mut retries, next, partition, failed),
                _ => add(&mut letters, &shared.dead_letters, partition, failed),
            }
        }
    }
    let retries = next.map(|next| (next, retries));
    let all = [(&shared.results, results), (&shared.dead_letters, letters)];
    let all = all.into_iter().chain(retries).flat_map(|(topic, batches)| {
        batches.into_iter().map(|(to, records)| deliver(shared, topic, to, records, stop))
    });
    join_all(all).await.into_iter().collect()
}

/// By its key, else by where it was.
fn add(batches: &mut Batches, topic: &Topic, partition: i32, record: Copied) {
    let count = topic.partitions().max(1);
    let to = record.key.as_ref().map_or(partition % count, |key| partition_of(key, count));
    batches.entry(to).or_default().push(record);
}

/// Sends records to one partition until all are there.
async fn deliver(
    shared: &Shared,
    topic: &Topic,
    partition: i32,
    records: Vec<Copied>,
    stop: &CancellationToken,
) -> Option<()> {
    let mut queue = requests(records, shared.parts.producer.max_request_bytes);
    let mut pause = PAUSE;
    while let Some(mut records) = queue.pop_front() {
        match topic.producer.produce(partition, records.clone()).await {
            Ok(_) => {
                pause = PAUSE;
                continue;
            }
            Err(ProduceError::Refused { records: true, .. }) if records.len() > 1 => {
                // Which of them is at fault shows when each goes alone.
                for record in records.into_iter().rev() {
                    queue.push_front(vec![record]);
                }
                continue;
            }
            Err(ProduceError::Refused { records: true, cause })
                if std::ptr::eq(topic, &shared.dead_letters)
                    && records.iter().all(|r| !r.headers.contains_key(LEFT_OUT)) =>
            {
                tracing::warn!(topic = topic.name, %cause, "dead letter without its value");
                records = records.iter().map(record::stripped).collect();
            }
            Err(error) => {
                let error = format!("{}, partition {partition}: {error}", topic.name);
                tracing::warn!("{error}");
                shared.report_error(&error);
                stop.run_until_cancelled(sleep(pause)).await?;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        queue.push_front(records);
    }
    Some(())
}

/// Cut into requests of `max_bytes`; one larger record goes alone.
fn requests(records: Vec<Copied>, max_bytes: usize) -> VecDeque<Vec<Copied>> {
    let mut requests: VecDeque<Vec<Copied>> = VecDeque::new();
    let mut bytes = 0;
    for record in records {
        let headers: usize = record.headers.iter().map(|(n, v)| n.len() + v.len()).sum();
        let parts = [&record.key, &record.value].into_iter().flatten();
        let size = headers + parts.map(Vec::len).sum::<usize>();
        match requests.back_mut() {
            Some(request) if bytes + size <= max_bytes => request.push(record),
            _ => {
                bytes = 0;
                requests.push_back(vec![record]);
            }
        }
        bytes += size;
    }
    requests
}
