//! Reading the topic back after a doubt: which events does it hold that Postgres does not know to be
//! there? Only reads; its marks are written as those of a request are.

use std::time::Duration;

use super::source::Mark;
use crate::envelope::EnvelopeHead;
use crate::kafka::{self, FetchError, Fetcher};
use crate::store::outbox::Found;

const FETCH_BYTES: i32 = 4 * 1024 * 1024;
/// Events in memory at once: a topic read from its beginning is read in parts.
const FOUND_MAX: usize = 10_000;

/// One part of the topic, read.
#[derive(Debug)]
pub struct ReadBack {
    pub partition: i32,
    pub epoch: i64,
    /// All up to here is known now.
    pub last_offset: i64,
    pub found: Vec<Found>,
    /// The end was reached.
    pub complete: bool,
}

impl From<ReadBack> for Mark {
    fn from(read: ReadBack) -> Self {
        let ReadBack { partition, epoch, last_offset, found, complete: _ } = read;
        Self { partition, epoch, last_offset: Some(last_offset), found, ..Self::default() }
    }
}

/// Reads on from `last_offset`. None: never published before, so all that is there is not ours.
pub async fn read_back(
    fetcher: &mut Fetcher,
    partition: i32,
    epoch: i64,
    last_offset: Option<i64>,
) -> Result<ReadBack, kafka::Error> {
    let mut read = ReadBack { partition, epoch, last_offset: -1, found: vec![], complete: true };
    let Some(last_offset) = last_offset else {
        read.last_offset = fetcher.latest().await? - 1;
        return Ok(read);
    };
    let mut offset = last_offset + 1;
    loop {
        let (records, high_watermark) =
            match fetcher.fetch(offset, FETCH_BYTES, Duration::ZERO).await {
                Ok(fetched) => fetched,
                // Retention has passed by, or the topic was made again: what is there is all there is.
                Err(FetchError::OffsetOutOfRange(_)) => {
                    let earliest = fetcher.earliest().await?;
                    if earliest == offset {
                        break;
                    }
                    offset = earliest;
                    continue;
                }
                Err(FetchError::Kafka(error)) => return Err(error),
            };
        // Nothing below the watermark: a gap left by compaction or by a transaction's marker.
        offset = records.last().map_or(offset + 1, |record| record.offset + 1);
        read.found.extend(records.iter().filter_map(|record| found(record.value.as_deref()?)));
        if offset >= high_watermark {
            offset = high_watermark;
            break;
        }
        if read.found.len() >= FOUND_MAX {
            read.complete = false;
            break;
        }
    }
    read.last_offset = offset - 1;
    Ok(read)
}

/// The event that a record's value names; none: no record of the service's.
fn found(value: &[u8]) -> Option<Found> {
    let head: EnvelopeHead = serde_json::from_slice(value).ok()?;
    Some(Found {
        tenant_id: head.tenant_id,
        wallet_id: head.aggregate_id,
        version: head.aggregate_version,
        event_id: head.event_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_that_name_an_event_count_as_found() {
        let ours = br#"{"eventId":"00000000-0000-0000-0000-000000000000","tenantId":"default",
            "aggregateId":"w-1","aggregateVersion":3,"data":{}}"#;
        assert_eq!(found(ours).map(|event| event.version), Some(3));
        assert!(found(b"hello").is_none());
    }
}
