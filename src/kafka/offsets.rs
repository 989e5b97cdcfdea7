//! The committed offsets of a consumer group: read and written. Knows nothing of what the group reads.

use std::collections::BTreeMap;

use krafka::admin::{
    AlterConsumerGroupOffsetsOptions, ListConsumerGroupOffsetsOptions, TopicPartition,
};

use super::admin::Admin;
use super::error::Error;

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
                    // The broker's own refusal is certain; after anything else the offset may be there.
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
