//! What follows from a chunk, into its topics: results, retries, dead letters. Each partition gets its
//! records in order, and again until the broker has taken them: twice is possible, never not at all.
//! What is larger than its topic takes goes there shorter, and says so: a partition waits for what may
//! pass, not for that.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::batch::{Fate, Handled};
use super::record::{self, Origin};
use super::shorter::shorter;
use super::{Shared, Topic};
use crate::backoff::Backoff;
use crate::envelope::partition_of;
use crate::kafka::{Copied, ProduceError};

const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Records by partition of one topic, each with its place in the chunk.
type Batches = BTreeMap<i32, Vec<(usize, Copied)>>;

/// The same record for a topic that does not take it as it is. None: it cannot be made smaller.
type Lighter = fn(&Copied) -> Option<Copied>;

/// None: the task is being stopped; the chunk will be read again.
pub(super) async fn send(
    shared: &Shared,
    stage: usize,
    partition: i32,
    handled: &mut [Handled<'_>],
    stop: &CancellationToken,
) -> Option<()> {
    let now = super::now();
    let next = shared.stages.get(stage + 1).map(|next| &next.topic);
    let topic = shared.stages.get(stage).map_or("", |stage| &stage.topic.name);
    let origin = Origin { topic, partition, stage };
    let mut retries = Batches::default();
    for (at, one) in handled.iter_mut().enumerate() {
        let is_undecided = matches!(one.fate, Fate::Undecided { .. });
        one.is_set_aside = is_undecided && next.is_none();
        if let (true, Some(next)) = (is_undecided, next)
            && let Some(failed) = record::failed(one, &origin, now)
        {
            add(&mut retries, next, partition, (at, failed));
        }
    }
    if let Some(next) = next {
        // One that cannot wait there has been tried for the last time.
        for at in deliver_all(shared, next, partition, retries, |_| None, stop).await? {
            if let Some(one) = handled.get_mut(at) {
                one.is_set_aside = true;
            }
        }
    }
    let (mut results, mut letters) = <(Batches, Batches)>::default();
    for (at, one) in handled.iter().enumerate() {
        if let Some(result) = record::result(one, now) {
            add(&mut results, &shared.results, partition, (at, result));
        }
        let is_letter = one.is_set_aside || matches!(one.fate, Fate::Invalid(_));
        if let Some(failed) = record::failed(one, &origin, now).filter(|_| is_letter) {
            add(&mut letters, &shared.dead_letters, partition, (at, failed));
        }
    }
    let results = deliver_all(shared, &shared.results, partition, results, shorter, stop);
    let letters =
        deliver_all(shared, &shared.dead_letters, partition, letters, record::lighter_letter, stop);
    let (results, letters) = futures_util::future::join(results, letters).await;
    for (topic, left) in [(&shared.results, results?), (&shared.dead_letters, letters?)] {
        for one in left.into_iter().filter_map(|at| handled.get(at)) {
            let (offset, id) = (one.record.offset, one.id.as_deref().unwrap_or("none"));
            let error = format!(
                "{}: takes not even the shortest record about {}, partition {partition}, offset \
                 {offset}, commandId {id}: raise its max.message.bytes",
                topic.name, origin.topic
            );
            tracing::error!("{error}");
            shared.report_error(&error);
        }
    }
    Some(())
}

/// By its key, else by where it was.
fn add(batches: &mut Batches, topic: &Topic, partition: i32, (at, record): (usize, Copied)) {
    let count = topic.partitions().max(1);
    let to = record.key.as_ref().map_or(partition % count, |key| partition_of(key, count));
    batches.entry(to).or_default().push((at, record));
}

/// Sends records to their partitions of one topic; the places of those that are too large for it,
/// however light. None: the task is being stopped.
async fn deliver_all(
    shared: &Shared,
    topic: &Topic,
    from: i32,
    mut batches: Batches,
    lighter: Lighter,
    stop: &CancellationToken,
) -> Option<Vec<usize>> {
    let mut left = Vec::new();
    while !batches.is_empty() {
        let deliver = |(to, records)| deliver(shared, topic, to, records, lighter, stop);
        for one in join_all(std::mem::take(&mut batches).into_iter().map(deliver)).await {
            let Left { too_large, homeless } = one?;
            left.extend(too_large);
            // The topic was recreated with fewer partitions: they go to those that there are.
            homeless.into_iter().for_each(|record| add(&mut batches, topic, from, record));
        }
    }
    Some(left)
}

/// What was not sent.
#[derive(Default)]
struct Left {
    too_large: Vec<usize>,
    /// There is no such partition any longer.
    homeless: Vec<(usize, Copied)>,
}

/// Sends records to one partition until all are there, or the partition is no more.
async fn deliver(
    shared: &Shared,
    topic: &Topic,
    partition: i32,
    records: Vec<(usize, Copied)>,
    lighter: Lighter,
    stop: &CancellationToken,
) -> Option<Left> {
    let mut queue = requests(records, shared.parts.producer.max_request_bytes);
    let mut left = Left::default();
    let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
    while let Some(records) = queue.pop_front() {
        if partition >= topic.partitions().max(1) {
            left.homeless = records.into_iter().chain(queue.into_iter().flatten()).collect();
            return Some(left);
        }
        let sent: Vec<Copied> = records.iter().map(|(_, record)| record.clone()).collect();
        let error = match topic.producer.produce(partition, sent).await {
            Ok(_) => {
                backoff.reset();
                continue;
            }
            Err(error) => error,
        };
        match records.as_slice() {
            [(at, record)] if error.is_too_large() => match lighter(record) {
                Some(lighter) => {
                    tracing::warn!(topic = topic.name, %error, "a record goes without a part of it");
                    queue.push_front(vec![(*at, lighter)]);
                }
                None => left.too_large.push(*at),
            },
            [_, _, ..] if matches!(error, ProduceError::Refused { records: true, .. }) => {
                // Which of them is at fault shows when each goes alone.
                for record in records.into_iter().rev() {
                    queue.push_front(vec![record]);
                }
            }
            _ => {
                let error = format!("{}, partition {partition}: {error}", topic.name);
                tracing::warn!("{error}");
                shared.report_error(&error);
                stop.run_until_cancelled(sleep(backoff.fail())).await?;
                queue.push_front(records);
            }
        }
    }
    Some(left)
}

/// Cut into requests of `max_bytes`; one larger record goes alone.
fn requests(records: Vec<(usize, Copied)>, max_bytes: usize) -> VecDeque<Vec<(usize, Copied)>> {
    let mut requests: VecDeque<Vec<(usize, Copied)>> = VecDeque::new();
    let mut bytes = 0;
    for (at, record) in records {
        let headers: usize = record.headers.iter().map(|(n, v)| n.len() + v.len()).sum();
        let parts = [&record.key, &record.value].into_iter().flatten();
        let size = headers + parts.map(Vec::len).sum::<usize>();
        match requests.back_mut() {
            Some(request) if bytes + size <= max_bytes => request.push((at, record)),
            _ => {
                bytes = 0;
                requests.push_back(vec![(at, record)]);
            }
        }
        bytes += size;
    }
    requests
}
