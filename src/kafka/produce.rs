//! Producing, a seam one function wide. One call is one request: sent once, never retried here,
//! since only the caller knows what the topic already holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SubsecRound, Utc};
use rskafka::client::error::{Error as RskafkaError, ProtocolError};
use rskafka::client::partition::Compression;
use rskafka::record::Record;
use tokio::time::timeout;

use super::connect::{Connection, Leader};
use super::error::{Class, Error, unwrapped};
use crate::config::Codec;

/// A record to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub headers: Vec<(&'static str, Vec<u8>)>,
    pub timestamp: DateTime<Utc>,
}

/// A record of another producer, to be sent as it was: any bytes, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, Vec<u8>>,
    pub timestamp: DateTime<Utc>,
}

/// Why a batch was not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// Nothing was sent.
    #[error("not sent: {0}")]
    Unsent(Error),
    /// Sent, and the answer is missing or says nothing: read the topic back before sending more.
    #[error("{0}")]
    Unknown(Error),
    /// The broker did not append it.
    #[error("refused: {cause}")]
    Refused {
        cause: Error,
        /// The records are at fault, not the partition or its leader: the same again fails again.
        records: bool,
        /// They are larger than the topic takes.
        too_large: bool,
    },
}

impl ProduceError {
    /// Whether smaller records would be taken.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused { too_large: true, .. })
    }

    pub fn cause(&self) -> &Error {
        match self {
            Self::Unsent(cause) | Self::Unknown(cause) | Self::Refused { cause, .. } => cause,
        }
    }
}

/// Sends to one topic. One request per partition at a time is the caller's duty.
#[derive(Debug)]
pub struct Producer {
    connection: Arc<Connection>,
    topic: String,
    compression: Compression,
    leaders: Mutex<HashMap<i32, Leader>>,
}

impl Producer {
    pub fn new(connection: Arc<Connection>, topic: &str, codec: Codec) -> Self {
        let compression = match codec {
            Codec::None => Compression::NoCompression,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        };
        Self { connection, topic: topic.to_owned(), compression, leaders: Mutex::default() }
    }

    /// Connects to the partition's leader, where that is not done yet.
    pub async fn connect(&self, partition: i32) -> Result<(), ProduceError> {
        self.leader(partition).await.map(drop).map_err(ProduceError::Unsent)
    }

    /// Appends `records` to `partition`, all of them or none; their offsets in order.
    pub async fn produce(
        &self,
        partition: i32,
        records: Vec<impl Into<Record>>,
    ) -> Result<Vec<i64>, ProduceError> {
        let leader = self.leader(partition).await.map_err(ProduceError::Unsent)?;
        let records = records.into_iter().map(Into::into).collect();
        let wait = self.connection.request_timeout();
        let error = match timeout(wait, leader.partition.produce(records, self.compression)).await {
            Ok(Ok(offsets)) => {
                self.connection.breaker().tried(Ok(()));
                return Ok(offsets);
            }
            Ok(Err(error)) => classify(&error),
            Err(_) => {
                let text = format!("produce: no answer within {} ms", wait.as_millis());
                ProduceError::Unknown(Error::new(Class::UnknownOutcome, text))
            }
        };
        if !matches!(error, ProduceError::Refused { records: true, .. }) {
            self.leaders().remove(&partition);
            self.connection.discard_leader(&leader, error.cause()).await;
        }
        Err(error)
    }

    async fn leader(&self, partition: i32) -> Result<Leader, Error> {
        let known = self.leaders().get(&partition).cloned();
        if let Some(leader) = known {
            // A connection that broke would be made again.
            self.connection.breaker().allows()?;
            return Ok(leader);
        }
        let leader = self.connection.leader(&self.topic, partition).await?;
        self.leaders().insert(partition, leader.clone());
        Ok(leader)
    }

    // Never held across an await; a panic cannot leave a map half changed.
    fn leaders(&self) -> MutexGuard<'_, HashMap<i32, Leader>> {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn classify(error: &RskafkaError) -> ProduceError {
    let cause = Error::from_rskafka(error);
    match unwrapped(error) {
        // rskafka connects again before it sends: this is that connection.
        RskafkaError::Connection(_) => ProduceError::Unsent(cause),
        RskafkaError::ServerError { protocol_error, .. } => match protocol_error {
            // Appended by the leader, or not: the answer does not say.
            ProtocolError::RequestTimedOut
            | ProtocolError::NotEnoughReplicasAfterAppend
            | ProtocolError::NetworkException
            | ProtocolError::KafkaStorageError
            | ProtocolError::UnknownServerError => unknown(&cause),
            // Larger than max.message.bytes, or than segment.bytes.
            ProtocolError::MessageTooLarge | ProtocolError::RecordListTooLarge => {
                ProduceError::Refused { cause, records: true, too_large: true }
            }
            ProtocolError::InvalidRecord
            | ProtocolError::InvalidTimestamp
            | ProtocolError::CorruptMessage
            | ProtocolError::UnsupportedForMessageFormat
            | ProtocolError::PolicyViolation => {
                ProduceError::Refused { cause, records: true, too_large: false }
            }
            _ => ProduceError::Refused { cause, records: false, too_large: false },
        },
        _ => unknown(&cause),
    }
}

fn unknown(cause: &Error) -> ProduceError {
    ProduceError::Unknown(Error::new(Class::UnknownOutcome, cause.message.clone()))
}

impl Outgoing {
    /// Bytes before compression, about.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, text)| name.len() + text.len()).sum();
        self.key.len() + self.value.len() + headers
    }
}

impl From<Outgoing> for Record {
    fn from(record: Outgoing) -> Self {
        Self {
            key: Some(record.key),
            value: Some(record.value),
            headers: record
                .headers
                .into_iter()
                .map(|(name, text)| (name.to_owned(), text))
                .collect(),
            // In a batch rskafka loses up to a millisecond of what is finer.
            timestamp: record.timestamp.trunc_subsecs(3),
        }
    }
}

impl From<Copied> for Record {
    fn from(record: Copied) -> Self {
        let Copied { key, value, headers, timestamp } = record;
        Self { key, value, headers, timestamp: timestamp.trunc_subsecs(3) }
    }
}
