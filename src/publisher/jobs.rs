//! The jobs: each a future that owns what it needs and ends in a [`Done`]. They touch Kafka or
//! Postgres; what follows from their outcome is decided in `finish`.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::Parts;
use super::read_back::{self, ReadBack};
use super::send::{self, Form, Sent};
use crate::kafka::topics::{Report, TopicSpec};
use crate::kafka::{self, Connection, Fetcher, Producer};
use crate::store::leases::{self, Leased, Member, Standing};
use crate::store::outbox::{self, Backlog, Mark, OutboxRow, Refusal};
use crate::store::{self, Pool};

pub type Job = BoxFuture<'static, Done>;

/// How a job ended.
pub enum Done {
    Prepared(Result<Report, kafka::Error>),
    Leased { begun: Instant, result: store::Result<Standing> },
    ReadBack { partition: i32, result: Result<ReadBack, kafka::Error> },
    Claimed { asked: Vec<i32>, limit: i64, rows: store::Result<Vec<OutboxRow>> },
    Sent(Sent),
    Settled { settlement: Settlement, result: store::Result<Settled> },
    Measured(store::Result<Backlog>),
}

/// Confirmed by Kafka, to be written to Postgres.
#[derive(Debug, Default)]
pub struct Settlement {
    pub sent: Vec<Sent>,
    pub read: Vec<ReadBack>,
}

/// What Postgres said to a settlement.
#[derive(Debug, Default)]
pub struct Settled {
    /// Partitions whose lease is another's by now; their rows were left as they are.
    pub lost: Vec<i32>,
    /// Rows that the topic held already.
    pub found: u64,
}

/// What all jobs share.
pub struct Shared {
    pool: Pool,
    leased: Leased,
    /// Set once the partitions have their rows.
    opened: OnceCell<()>,
    parts: Settings,
    connection: Arc<Connection>,
    producer: Producer,
}

struct Settings {
    specs: Vec<TopicSpec>,
    form: Form,
}

impl Shared {
    pub fn new(parts: Parts) -> Self {
        let topic = parts.kafka.events_topic.clone();
        let codec = parts.producer.compression;
        let connection = Connection::behind(&parts.kafka, parts.breaker);
        Self {
            pool: parts.pool,
            opened: OnceCell::new(),
            producer: Producer::new(Arc::clone(&connection), &topic, codec),
            connection,
            leased: Leased {
                tenant: parts.tenant,
                role: leases::PUBLISHER,
                topic,
                partitions: parts.partitions,
            },
            parts: Settings {
                specs: vec![
                    TopicSpec::events(&parts.kafka, codec, parts.partitions),
                    TopicSpec::dead_letters(&parts.kafka, codec),
                ],
                form: Form {
                    max_bytes: parts.producer.max_request_bytes,
                    cloud_events: parts.producer.cloud_events,
                    deployment: parts.deployment,
                },
            },
        }
    }

    /// Creates the topics where they are missing.
    pub fn prepare(self: &Arc<Self>) -> Job {
        let shared = Arc::clone(self);
        Box::pin(async move { Done::Prepared(shared.ensure_topics().await) })
    }

    async fn ensure_topics(&self) -> Result<Report, kafka::Error> {
        let admin = self.connection.admin().await?;
        let result = admin.ensure_topics(&self.parts.specs).await;
        self.connection.breaker().tried(result.as_ref().map(drop));
        result
    }

    /// Gives up `given`, renews the rest and takes what is free.
    pub fn lease(self: &Arc<Self>, given: Vec<i32>, member: Member) -> Job {
        let shared = Arc::clone(self);
        Box::pin(async move {
            // Before the statement is sent: the lease stands at least as long as counted from here.
            let begun = Instant::now();
            let leasing = shared.lease_now(&given, &member);
            Done::Leased { begun, result: store::bounded(member.lease, leasing).await }
        })
    }

    async fn lease_now(&self, given: &[i32], member: &Member) -> store::Result<Standing> {
        let mut connection = store::acquire(&self.pool).await?;
        self.opened.get_or_try_init(|| leases::open(&mut connection, &self.leased)).await?;
        if !given.is_empty() {
            leases::release(&mut connection, &self.leased, &member.owner, given).await?;
        }
        leases::renew(&mut connection, &self.leased, member).await
    }

    pub async fn leave(&self, owner: &str) -> store::Result<()> {
        let mut connection = store::acquire(&self.pool).await?;
        leases::leave(&mut connection, &self.leased, owner).await
    }

    pub fn read_back(self: &Arc<Self>, number: i32, epoch: i64, last_offset: Option<i64>) -> Job {
        let shared = Arc::clone(self);
        Box::pin(async move {
            let connection = Arc::clone(&shared.connection);
            let mut fetcher = Fetcher::new(connection, &shared.leased.topic, number);
            let result = read_back::read_back(&mut fetcher, number, epoch, last_offset).await;
            Done::ReadBack { partition: number, result }
        })
    }

    pub fn claim(self: &Arc<Self>, asked: Vec<i32>, limit: i64) -> Job {
        let shared = Arc::clone(self);
        Box::pin(async move {
            let claiming = outbox::claim(&shared.pool, &shared.leased.topic, &asked, limit);
            let rows = store::bounded(store::SILENT, claiming).await;
            Done::Claimed { asked, limit, rows }
        })
    }

    /// `more`: the claim left rows behind. `until`: the lease stands so long.
    pub fn send(
        self: &Arc<Self>,
        number: i32,
        epoch: i64,
        rows: Vec<OutboxRow>,
        more: bool,
        until: Instant,
    ) -> Job {
        let shared = Arc::clone(self);
        Box::pin(async move {
            let mut sent = Sent::new(number, epoch, more);
            #[cfg(feature = "seeded-bugs")]
            crate::seeded::mark_first(&shared.pool, &shared.leased, number, epoch, &rows).await;
            send::send(&shared.producer, &mut sent, &rows, shared.parts.form, until).await;
            Done::Sent(sent)
        })
    }

    pub fn settle(self: &Arc<Self>, settlement: Settlement) -> Job {
        let shared = Arc::clone(self);
        Box::pin(async move {
            let result = store::bounded(store::SILENT, shared.write(&settlement)).await;
            Done::Settled { settlement, result }
        })
    }

    pub fn measure(self: &Arc<Self>) -> Job {
        let shared = Arc::clone(self);
        Box::pin(async move {
            let measuring = outbox::backlog(&shared.pool, store::SILENT);
            Done::Measured(store::bounded(store::SILENT, measuring).await)
        })
    }

    /// May be repeated after an error: what is written already stays as it is.
    async fn write(&self, settlement: &Settlement) -> store::Result<Settled> {
        let mut settled = Settled::default();
        let mut marks: Vec<Mark> = settlement.sent.iter().filter_map(Sent::mark).collect();
        let mut found = Vec::new();
        for read in &settlement.read {
            let rows = match read.found.as_slice() {
                [] => Vec::new(),
                events => {
                    let topic = &self.leased.topic;
                    outbox::waiting(&self.pool, topic, read.partition, events).await?
                }
            };
            found.push((read.partition, rows.len()));
            marks.push(read.mark(rows));
        }
        if !marks.is_empty() {
            let standing = outbox::mark(&self.pool, &self.leased, &marks).await?;
            let numbers = marks.iter().map(|mark| mark.partition);
            settled.lost.extend(numbers.filter(|number| !standing.contains(number)));
            found.retain(|(partition, _)| standing.contains(partition));
        }
        settled.found = found.iter().map(|(_, rows)| u64::try_from(*rows).unwrap_or(0)).sum();
        let refusals: Vec<Refusal> =
            settlement.sent.iter().flat_map(|sent| sent.refusals.iter().cloned()).collect();
        if !refusals.is_empty() {
            outbox::record_failures(&self.pool, &refusals).await?;
        }
        Ok(settled)
    }
}

impl Settlement {
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.read.is_empty()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("leased", &self.leased).finish_non_exhaustive()
    }
}
