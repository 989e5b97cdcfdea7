//! The committed offsets of a consumer group: read, written, and watched as they are written by
//! anybody. Knows nothing of what the group reads.
//!
//! The broker keeps them as records of `__consumer_offsets`. Reading that topic shows every write in
//! its order, those included that were overwritten a moment later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use krafka::admin::{
    AlterConsumerGroupOffsetsOptions, ListConsumerGroupOffsetsOptions, TopicPartition,
};
use tokio::time::sleep;

use super::admin::Admin;
use super::connect::Connection;
use super::error::{Class, Error};
use super::fetch::{FetchError, Fetcher};

/// Where the broker keeps the offsets of all groups.
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const FETCH_BYTES: i32 = 256 * 1024;
/// The topic was made a moment ago, and not every broker knows it yet.
const HIDDEN_TRIES: u32 = 5;
const HIDDEN_PAUSE: Duration = Duration::from_millis(500);

/// What was written of a group's offsets.
#[derive(Debug, Default)]
pub struct Committed {
    /// The partitions whose offset the broker has taken.
    pub partitions: Vec<i32>,
    /// Why it did not take the others.
    pub refused: Option<Error>,
}

impl Admin {
    /// The offsets that the group has on the topic, by partition.
    pub async fn group_offsets(
        &self,
        group: &str,
        topic: &str,
    ) -> Result<BTreeMap<i32, i64>, Error> {
        let options = ListConsumerGroupOffsetsOptions::default();
        let call = self.client.list_consumer_group_offsets(group, options);
        let mut offsets = BTreeMap::new();
        for (at, answer) in self.bounded("read the group's offsets", call).await? {
            let found = answer.map_err(|error| Error::from_krafka(&error))?;
            if let (true, Some(offset)) = (at.topic == topic, found.offset) {
                offsets.insert(at.partition, offset);
            }
        }
        Ok(offsets)
    }

    /// Writes offsets of a group without members. An error: they may have been written, or may yet be.
    pub async fn commit_offsets(
        &self,
        group: &str,
        topic: &str,
        offsets: &[(i32, i64)],
    ) -> Result<Committed, Error> {
        let offsets = offsets
            .iter()
            .map(|(partition, offset)| (TopicPartition::new(topic, *partition), *offset));
        let options = AlterConsumerGroupOffsetsOptions::default();
        let call = self.client.alter_consumer_group_offsets(group, offsets, options);
        let mut committed = Committed::default();
        for (at, answer) in self.bounded("write the group's offsets", call).await? {
            match answer {
                Ok(()) => committed.partitions.push(at.partition),
                Err(error) => {
                    let error = Error::from_krafka(&error);
                    // The broker's own no is certain; of anything else nobody knows.
                    if error.is_outage() {
                        return Err(error);
                    }
                    committed.refused = Some(error);
                }
            }
        }
        Ok(committed)
    }
}

/// Reads what is written of one group's offsets on one topic, from when it was opened.
#[derive(Debug)]
pub struct OffsetsWatch {
    fetcher: Fetcher,
    group: String,
    topic: String,
    position: i64,
}

impl OffsetsWatch {
    /// Fails with [`Class::Topic`] where the user may not read the topic.
    pub async fn open(
        admin: &Admin,
        connection: Arc<Connection>,
        group: &str,
        topic: &str,
    ) -> Result<Self, Error> {
        // Asking for a group's offsets makes the topic, on a new cluster.
        admin.group_offsets(group, topic).await?;
        let mut partitions = admin.partitions(OFFSETS_TOPIC).await?;
        for _ in 0..HIDDEN_TRIES {
            if partitions.is_none() {
                sleep(HIDDEN_PAUSE).await;
                partitions = admin.partitions(OFFSETS_TOPIC).await?;
            }
        }
        // A broker may hide what the user may not see.
        let hidden = || Error::new(Class::Topic, format!("{OFFSETS_TOPIC} is not shown"));
        let partitions = partitions.ok_or_else(hidden)?;
        let home = home_of(group, partitions);
        let mut fetcher = Fetcher::new(connection, OFFSETS_TOPIC, home);
        let position = fetcher.latest().await?;
        Ok(Self { fetcher, group: group.to_owned(), topic: topic.to_owned(), position })
    }

    /// What was written since the last call: partition and offset, in the order in which they count;
    /// none: the offset was deleted, alone or with its group. Waits up to `wait` where nothing was.
    pub async fn next(&mut self, wait: Duration) -> Result<Vec<(i32, Option<i64>)>, Error> {
        let (records, end) = match self.fetcher.fetch(self.position, FETCH_BYTES, wait).await {
            Ok(fetched) => fetched,
            Err(FetchError::Kafka(error)) => return Err(error),
            // Whoever opens it again compares what is there with what should be.
            Err(gone @ FetchError::OffsetOutOfRange(_)) => {
                return Err(Error::new(Class::Refused, format!("{OFFSETS_TOPIC}: {gone}")));
            }
        };
        let hidden = records.is_empty() && end > self.position;
        let mut written = Vec::new();
        for record in records.iter().filter(|record| record.offset >= self.position) {
            let found = decode(record.key.as_deref(), record.value.as_deref());
            if let Some((group, topic, partition, offset)) = found
                && (group, topic) == (self.group.as_bytes(), self.topic.as_bytes())
            {
                written.push((partition, offset));
            }
        }
        if let Some(last) = records.last() {
            self.position = self.position.max(last.offset + 1);
        }
        if hidden {
            // Marks of other groups' transactions answer a fetch at once, for ever.
            sleep(wait).await;
        }
        Ok(written)
    }
}

/// The partition of `__consumer_offsets` that has a group: Java's `hashCode` of its name.
fn home_of(group: &str, partitions: i32) -> i32 {
    let hash = group
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

/// Group, topic, partition and offset of a committed offset, without one where it was deleted.
type Written<'a> = (&'a [u8], &'a [u8], i32, Option<i64>);

/// None: another kind of record.
fn decode<'a>(key: Option<&'a [u8]>, value: Option<&[u8]>) -> Option<Written<'a>> {
    let (version, rest) = key?.split_first_chunk::<2>()?;
    if !matches!(i16::from_be_bytes(*version), 0 | 1) {
        return None;
    }
    let (group, rest) = string(rest)?;
    let (topic, rest) = string(rest)?;
    let partition = i32::from_be_bytes(*rest.first_chunk()?);
    let Some(value) = value else { return Some((group, topic, partition, None)) };
    // Behind the value's version.
    let offset = i64::from_be_bytes(*value.get(2..)?.first_chunk()?);
    Some((group, topic, partition, Some(offset)))
}

fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_lies_where_the_broker_puts_it() {
        assert_eq!(home_of("a", 50), 97 % 50);
        assert_eq!(home_of("ab", 50), (97 * 31 + 98) % 50);
        // The one string hash without an absolute value.
        assert_eq!(home_of("polygenelubricants", 50), 0);
    }

    #[test]
    fn an_offset_is_read_and_everything_else_is_passed_over() {
        let mut key = vec![0, 1, 0, 2];
        key.extend(b"g1");
        key.extend([0, 1]);
        key.extend(b"t");
        key.extend(7_i32.to_be_bytes());
        let mut value = vec![0, 3];
        value.extend(42_i64.to_be_bytes());
        value.extend([0, 0, 0, 0]);
        let found = decode(Some(&key), Some(&value));
        assert_eq!(found, Some((&b"g1"[..], &b"t"[..], 7, Some(42))));
        let deleted = decode(Some(&key), None);
        assert_eq!(deleted, Some((&b"g1"[..], &b"t"[..], 7, None)));
        assert_eq!(decode(None, Some(&value)), None);
        let mut group = key.clone();
        group[1] = 2;
        assert_eq!(decode(Some(&group), Some(&value)), None, "what the broker notes of a group");
        for cut in 0..key.len() {
            assert_eq!(decode(Some(&key[..cut]), Some(&value)), None, "cut at {cut}");
            assert_eq!(decode(Some(&key[..cut]), None), None, "cut at {cut}");
        }
    }
}
