//! Reading one partition from any offset. Keeps no position: its reader does.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rskafka::client::error::{Error as RskafkaError, ProtocolError};
use rskafka::client::partition::OffsetAt;
use tokio::time::timeout;

use super::connect::{Connection, Leader};
use super::error::{Error, unwrapped};

/// A record as it lies in the topic.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, Vec<u8>>,
    pub timestamp: DateTime<Utc>,
}

/// Why nothing was fetched.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// Retention passed by, or the topic is another one than before.
    #[error("offset {0} is not in the topic")]
    OffsetOutOfRange(i64),
    #[error(transparent)]
    Kafka(#[from] Error),
}

/// A reader of one partition, connected when first used and again after each failure.
#[derive(Debug)]
pub struct Fetcher {
    connection: Arc<Connection>,
    topic: String,
    partition: i32,
    leader: Option<Leader>,
}

impl Fetcher {
    pub fn new(connection: Arc<Connection>, topic: &str, partition: i32) -> Self {
        Self { connection, topic: topic.to_owned(), partition, leader: None }
    }

    /// The records from `offset` on, about `max_bytes` of them but at least one, and the high
    /// watermark. Waits up to `max_wait` where there is none yet.
    pub async fn fetch(
        &mut self,
        offset: i64,
        max_bytes: i32,
        max_wait: Duration,
    ) -> Result<(Vec<Fetched>, i64), FetchError> {
        let leader = self.leader().await?;
        let millis = i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX);
        let fetching = leader.partition.fetch_records(offset, 1..max_bytes.max(2), millis);
        let (records, high_watermark) = match self.bounded(max_wait, fetching, &leader).await? {
            Ok(fetched) => fetched,
            Err(()) => return Err(FetchError::OffsetOutOfRange(offset)),
        };
        let records = records
            .into_iter()
            .map(|found| Fetched {
                offset: found.offset,
                key: found.record.key,
                value: found.record.value,
                headers: found.record.headers,
                timestamp: found.record.timestamp,
            })
            .collect();
        Ok((records, high_watermark))
    }

    /// The first offset that is still kept.
    pub async fn earliest(&mut self) -> Result<i64, Error> {
        self.offset(OffsetAt::Earliest).await
    }

    /// The offset that the next record will get.
    pub async fn latest(&mut self) -> Result<i64, Error> {
        self.offset(OffsetAt::Latest).await
    }

    async fn offset(&mut self, at: OffsetAt) -> Result<i64, Error> {
        let leader = self.leader().await?;
        let asking = leader.partition.get_offset(at);
        let answer = self.bounded(Duration::ZERO, asking, &leader).await?;
        answer.map_err(|()| Error::new(super::Class::Refused, "no such offset"))
    }

    /// Bounds a request and drops the connection after a failure. The inner error: out of range.
    async fn bounded<T>(
        &mut self,
        max_wait: Duration,
        request: impl Future<Output = Result<T, RskafkaError>>,
        leader: &Leader,
    ) -> Result<Result<T, ()>, Error> {
        let wait = max_wait.saturating_add(self.connection.request_timeout());
        let error = match timeout(wait, request).await {
            Ok(Ok(answer)) => {
                self.connection.breaker().tried(Ok(()));
                return Ok(Ok(answer));
            }
            Ok(Err(error)) if is_out_of_range(&error) => return Ok(Err(())),
            Ok(Err(error)) => Error::from_rskafka(&error),
            Err(_) => Error::timeout("fetch", wait),
        };
        self.leader = None;
        self.connection.discard_leader(leader, &error).await;
        Err(error)
    }

    async fn leader(&mut self) -> Result<Leader, Error> {
        if let Some(leader) = &self.leader {
            // A connection that broke would be made again.
            self.connection.breaker().allows()?;
            return Ok(leader.clone());
        }
        let leader = self.connection.leader(&self.topic, self.partition).await?;
        self.leader = Some(leader.clone());
        Ok(leader)
    }
}

fn is_out_of_range(error: &RskafkaError) -> bool {
    matches!(
        unwrapped(error),
        RskafkaError::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. }
    )
}
