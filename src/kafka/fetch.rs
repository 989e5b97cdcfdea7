//! Placeholder for the fetcher of the Kafka room: a log in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

#[derive(Debug, Clone)]
pub struct Fetched {
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, Vec<u8>>,
    pub timestamp: DateTime<Utc>,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("offset {0} is not in the topic")]
    OffsetOutOfRange(i64),
    #[error("{0}")]
    Other(String),
}

pub type Log = Arc<Mutex<Vec<Fetched>>>;

#[derive(Debug)]
pub struct Fetcher(pub Log);

impl Fetcher {
    fn log(&self) -> Vec<Fetched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub async fn fetch(
        &mut self,
        offset: i64,
        _max_bytes: i32,
        max_wait: Duration,
    ) -> Result<(Vec<Fetched>, i64), FetchError> {
        let (earliest, latest) = (self.earliest().await?, self.latest().await?);
        if offset < earliest || offset > latest {
            return Err(FetchError::OffsetOutOfRange(offset));
        }
        let found: Vec<Fetched> = self.log().into_iter().filter(|r| r.offset >= offset).collect();
        if found.is_empty() {
            tokio::time::sleep(max_wait).await;
        }
        Ok((found, latest))
    }

    pub async fn earliest(&mut self) -> Result<i64, FetchError> {
        Ok(self.log().first().map_or(0, |r| r.offset))
    }

    pub async fn latest(&mut self) -> Result<i64, FetchError> {
        Ok(self.log().last().map_or(0, |r| r.offset + 1))
    }
}
