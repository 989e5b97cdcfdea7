//! The dead letters' way out: each goes to the topic of the dead letters, and back to the topic it
//! came from when an operator asks for that.
//!
//! What is to be done stands in Postgres alone, so that a request outlives the process that made it, and any
//! instance can go on. At least once: a record may be sent twice around a crash, and consumers drop
//! it by its original coordinates. Without Kafka this room only counts.

mod record;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::background::task::Task;
use crate::config::{Codec, KafkaSettings};
use crate::envelope::partition_of;
use crate::kafka::topics::TopicSpec;
use crate::kafka::{self, Connection, Copied, ProduceError, Producer};
use crate::store::dead_letters::delivery::{self, Due};
use crate::store::{self, Pool};

/// Between two looks while there is nothing to do.
const EVERY: Duration = Duration::from_secs(1);
/// Between two counts for the gauges.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// At the end, claims are given back within this time, else they run out.
const GOODBYE: Duration = Duration::from_secs(2);

/// What `app` wires the room with.
#[derive(Debug)]
pub struct Parts {
    pub pool: Pool,
    /// None with `KAFKA_ENABLED=false`.
    pub kafka: Option<(Arc<Connection>, KafkaSettings)>,
    pub codec: Codec,
    /// Bytes of one request, at most; one larger record goes alone.
    pub max_request_bytes: usize,
}

/// Sends what is due, and counts what is open.
#[derive(Debug)]
pub struct DeadLetters {
    pool: Pool,
    owner: String,
    max_bytes: i64,
    kafka: Option<Sender>,
    count_due: Instant,
}

/// What sending needs.
#[derive(Debug)]
struct Sender {
    connection: Arc<Connection>,
    settings: KafkaSettings,
    codec: Codec,
    producers: HashMap<String, Producer>,
    /// Of the topic of the dead letters, once it is known to be there.
    partitions: Option<i32>,
}

/// Why a round ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
}

/// Where a letter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    Back,
}

impl DeadLetters {
    pub fn new(parts: Parts) -> Self {
        let codec = parts.codec;
        let sender = |(connection, settings)| Sender {
            connection,
            settings,
            codec,
            producers: HashMap::new(),
            partitions: None,
        };
        Self {
            pool: parts.pool,
            owner: Uuid::now_v7().to_string(),
            max_bytes: i64::try_from(parts.max_request_bytes).unwrap_or(i64::MAX),
            kafka: parts.kafka.map(sender),
            count_due: Instant::now(),
        }
    }

    /// Sends what fits into one request; returns the number of rows looked at.
    async fn send_due(&mut self) -> Result<usize, Failure> {
        if Instant::now() >= self.count_due {
            self.count_due = Instant::now() + COUNT_EVERY;
            self.count().await?;
        }
        let Some(sender) = &mut self.kafka else { return Ok(0) };
        let claim = delivery::claim(&self.pool, &self.owner, self.max_bytes);
        let due = store::bounded(store::SILENT, claim).await?;
        let mut groups: BTreeMap<(&str, i32), Vec<&Due>> = BTreeMap::new();
        let unpublished = due.iter().filter(|due| due.published_at.is_none());
        let dlq = sender.settings.dlq_topic.clone();
        for letter in unpublished {
            let partition = sender.partition(letter).await?;
            groups.entry((&dlq, partition)).or_default().push(letter);
        }
        let mut first = None;
        for ((topic, partition), letters) in groups {
            first = later(first, self.send(Way::Out, topic, partition, &letters).await)?;
        }
        let mut groups: BTreeMap<(&str, i32), Vec<&Due>> = BTreeMap::new();
        for letter in due.iter().filter(|due| due.replay_requested_at.is_some()) {
            groups.entry((&letter.topic, letter.partition)).or_default().push(letter);
        }
        for ((topic, partition), letters) in groups {
            first = later(first, self.send(Way::Back, topic, partition, &letters).await)?;
        }
        first.map_or(Ok(due.len()), Err)
    }

    /// Sends letters to one partition; record by record where the broker refuses them together.
    async fn send(
        &mut self,
        way: Way,
        topic: &str,
        partition: i32,
        letters: &[&Due],
    ) -> Result<(), Failure> {
        let Some(sender) = &mut self.kafka else { return Ok(()) };
        let record = |due: &&Due| match way {
            Way::Out => record::outward(due),
            Way::Back => record::replay(due),
        };
        let records = letters.iter().map(record).collect();
        match sender.produce(topic, partition, records).await {
            Ok(()) => return self.sent(way, letters).await,
            Err(error) if is_final(way, &error) => {}
            Err(error) => return Err(error.cause().clone().into()),
        }
        for letter in letters {
            let Some(sender) = &mut self.kafka else { return Ok(()) };
            let produced = match way {
                Way::Out => sender.produce_fitting(topic, partition, letter).await,
                Way::Back => sender.produce(topic, partition, vec![record(letter)]).await,
            };
            match produced {
                Ok(()) => self.sent(way, &[letter]).await?,
                Err(error) if is_final(way, &error) => {
                    let cause = format!("{topic}, partition {partition}: {}", error.cause());
                    tracing::error!(id = letter.id, cause, "dead letter refused");
                    let refusing = delivery::refused(&self.pool, letter, &cause);
                    store::bounded(store::SILENT, refusing).await?;
                }
                Err(error) => return Err(error.cause().clone().into()),
            }
        }
        Ok(())
    }

    async fn sent(&self, way: Way, letters: &[&Due]) -> Result<(), Failure> {
        let pool = &self.pool;
        match way {
            Way::Out => {
                store::bounded(store::SILENT, delivery::published(pool, letters)).await?;
            }
            Way::Back => {
                store::bounded(store::SILENT, delivery::replayed(pool, letters)).await?;
            }
        }
        for letter in letters {
            let Due { id, topic, partition, offset, error_class, .. } = letter;
            match way {
                Way::Out => {
                    tracing::warn!(id, topic, partition, offset, cause = error_class, "dead letter")
                }
                Way::Back => tracing::info!(id, topic, partition, "dead letter replayed"),
            }
        }
        let name = if way == Way::Out { "published" } else { "replayed" };
        let count = u64::try_from(letters.len()).unwrap_or(u64::MAX);
        metrics::counter!("dead_letters_sent_total", "way" => name).increment(count);
        Ok(())
    }

    async fn count(&self) -> Result<(), Failure> {
        let counting = store::dead_letters::counts(&self.pool);
        let counts = store::bounded(store::SILENT, counting).await?;
        for (name, count) in [("dead_letters_open", counts.open), ("parked_wallets", counts.parked)]
        {
            metrics::gauge!(name).set(u32::try_from(count).unwrap_or(u32::MAX));
        }
        Ok(())
    }
}

impl Task for DeadLetters {
    const NAME: &'static str = "dead letters";
    /// What is in flight then is sent again by the next instance that claims it.
    const MAY_BE_CUT: bool = true;
    type Error = Failure;

    async fn round(&mut self) -> Result<Duration, Failure> {
        let looked_at = self.send_due().await?;
        Ok(if looked_at == 0 { EVERY } else { Duration::ZERO })
    }

    async fn end(&mut self) {
        let release = delivery::release(&self.pool, &self.owner);
        if !matches!(timeout(GOODBYE, release).await, Ok(Ok(()))) {
            tracing::debug!("claims of dead letters were not given back; they run out");
        }
    }
}

/// One partition's trouble is not the others': the first error is returned at the end. Postgres's is.
fn later(first: Option<Failure>, sent: Result<(), Failure>) -> Result<Option<Failure>, Failure> {
    match sent {
        Err(error @ Failure::Store(_)) => Err(error),
        sent => Ok(first.or(sent.err())),
    }
}

/// Whether trying the same again by itself is of no use. The topic of the dead letters is made
/// where it is missing; a topic that a record came from is its owner's affair.
fn is_final(way: Way, error: &ProduceError) -> bool {
    match error {
        ProduceError::Refused { records: true, .. } => true,
        error => way == Way::Back && error.cause().class == kafka::Class::Topic,
    }
}

impl Sender {
    async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        records: Vec<Copied>,
    ) -> Result<(), ProduceError> {
        let producer = self
            .producers
            .entry(topic.to_owned())
            .or_insert_with(|| Producer::new(Arc::clone(&self.connection), topic, self.codec));
        let produced = producer.produce(partition, records).await;
        if produced.as_ref().is_err_and(|error| error.cause().class == kafka::Class::Topic) {
            self.partitions = None;
        }
        produced.map(drop)
    }

    /// A letter with as much of it as the topic takes.
    async fn produce_fitting(
        &mut self,
        topic: &str,
        partition: i32,
        letter: &Due,
    ) -> Result<(), ProduceError> {
        let mut record = record::outward(letter);
        loop {
            let Err(error) = self.produce(topic, partition, vec![record.clone()]).await else {
                return Ok(());
            };
            match record::lighter(letter, &record).filter(|_| error.is_too_large()) {
                Some(lighter) => record = lighter,
                None => return Err(error),
            }
            tracing::warn!(id = letter.id, %error, "dead letter without a part of it");
        }
    }

    /// Where a letter goes among the dead letters: by its key, else by where it was.
    async fn partition(&mut self, due: &Due) -> Result<i32, kafka::Error> {
        let partitions = match self.partitions {
            Some(partitions) => partitions,
            None => self.ensure_topic().await?,
        };
        Ok(match &due.key {
            Some(key) => partition_of(key, partitions),
            None => due.partition % partitions.max(1),
        })
    }

    async fn ensure_topic(&mut self) -> Result<i32, kafka::Error> {
        let spec = TopicSpec::dead_letters(&self.settings, self.codec);
        let admin = self.connection.admin().await?;
        let partitions = match admin.partitions(&spec.name).await? {
            Some(partitions) => partitions,
            None => {
                admin.ensure_topics(std::slice::from_ref(&spec)).await?;
                spec.partitions
            }
        };
        self.partitions = Some(partitions);
        Ok(partitions)
    }
}
