//! Reads the last records of a topic: whose they are says whose topic it is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use super::connect::Connection;
use super::error::Error;
use super::fetch::{FetchError, Fetched, Fetcher};

/// Partitions that are asked at once.
const AT_ONCE: usize = 16;
const BYTES: i32 = 64 * 1024;

/// The last record of each of the topic's partitions, where there is one.
pub async fn last_records(
    connection: &Arc<Connection>,
    topic: &str,
    partitions: i32,
) -> Result<Vec<Fetched>, Error> {
    let asked = (0..partitions).map(|number| last(Arc::clone(connection), topic, number));
    let answers: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    let found: Result<Vec<Option<Fetched>>, Error> = answers.into_iter().collect();
    Ok(found?.into_iter().flatten().collect())
}

async fn last(
    connection: Arc<Connection>,
    topic: &str,
    partition: i32,
) -> Result<Option<Fetched>, Error> {
    let mut fetcher = Fetcher::new(connection, topic, partition);
    let end = fetcher.latest().await?;
    if end == 0 {
        return Ok(None);
    }
    match fetcher.fetch(end - 1, BYTES, Duration::ZERO).await {
        Ok((records, _)) => Ok(records.into_iter().next_back()),
        // Retention took it between the two questions.
        Err(FetchError::OffsetOutOfRange(_)) => Ok(None),
        Err(FetchError::Kafka(error)) => Err(error),
    }
}
