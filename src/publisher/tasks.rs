//! The publisher's tasks: each a future that owns what it needs and ends in a [`Done`]. They touch Kafka
//! or Postgres; what follows from their outcome is decided in `finish`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::Deps;
use super::read_back::{self, ReadBack};
use super::send::{self, Form, Sent};
use super::source::{Batch, Mark, Marked, PrepareError, Prepared, Role, Source};
use crate::background::leases::Leases;
use crate::config::KafkaSettings;
use crate::kafka::admin::Admin;
use crate::kafka::{self, Breaker, BreakerState, Connection, Fetcher, Producer};
use crate::store;
use crate::store::leases::Leased;

pub type Task = BoxFuture<'static, Done>;

/// How a task ended.
pub enum Done {
    Prepared(Result<Prepared, PrepareError>),
    ReadBack { partition: i32, result: Result<ReadBack, kafka::Error> },
    Claimed { asked: Vec<i32>, result: store::Result<Vec<Batch>> },
    Sent(Sent),
    Marked { marks: Vec<Mark>, result: store::Result<Marked> },
    Measured(store::Result<()>),
}

/// What all tasks share.
pub struct Shared {
    leased: Leased,
    leases: Leases,
    source: Source,
    connection: Arc<Connection>,
    producer: Producer,
    form: Form,
    kafka: KafkaSettings,
    /// Nothing else asks after its cluster while the breaker is open.
    probes: bool,
}

impl Shared {
    pub fn new(deps: &Deps, leased: Leased, leases: Leases) -> Self {
        let topic = deps.kafka.events_topic.clone();
        let connection = Connection::with_breaker(&deps.kafka, Arc::clone(&deps.breaker));
        Self {
            producer: Producer::new(Arc::clone(&connection), &topic, deps.producer.compression),
            connection,
            source: Source::new(deps, &leased),
            leased,
            leases,
            form: Form {
                max_bytes: deps.producer.max_request_bytes,
                cloud_events: deps.producer.cloud_events,
                deployment: deps.deployment,
            },
            kafka: deps.kafka.clone(),
            probes: matches!(deps.role, Role::Dual { .. }),
        }
    }

    pub fn refusals_stop(&self) -> bool {
        self.source.refusals_stop()
    }

    /// Makes the topics where they are missing.
    pub fn prepare(self: &Arc<Self>) -> Task {
        let shared = Arc::clone(self);
        Box::pin(async move { Done::Prepared(shared.prepare_topics().await) })
    }

    async fn prepare_topics(&self) -> Result<Prepared, PrepareError> {
        let admin = self.connection.admin().await?;
        let result = self.source.prepare(&admin).await;
        if matches!(&result, Ok(prepared) if prepared.is_new) {
            self.leases.renew_now();
            self.leases.renew().await?;
        }
        match &result {
            Err(PrepareError::Kafka(error)) => self.connection.breaker().tried(Err(error)),
            _ => self.connection.breaker().tried(Ok(())),
        }
        result
    }

    pub fn read_back(self: &Arc<Self>, number: i32, epoch: i64, last_offset: Option<i64>) -> Task {
        let shared = Arc::clone(self);
        Box::pin(async move {
            let connection = Arc::clone(&shared.connection);
            let mut fetcher = Fetcher::new(connection, &shared.leased.topic, number);
            let result = read_back::read_back(&mut fetcher, number, epoch, last_offset).await;
            Done::ReadBack { partition: number, result }
        })
    }

    pub fn claim(self: &Arc<Self>, owned: BTreeSet<i32>, asked: Vec<i32>, limit: i64) -> Task {
        let shared = Arc::clone(self);
        Box::pin(async move {
            let claiming = shared.source.claim(&owned, &asked, limit);
            let result = store::bounded(store::SILENT, claiming).await;
            Done::Claimed { asked, result }
        })
    }

    /// `until`: the lease stands so long.
    pub fn send(self: &Arc<Self>, epoch: i64, batch: Batch, until: Instant) -> Task {
        let shared = Arc::clone(self);
        Box::pin(async move {
            Done::Sent(send::send(&shared.producer, epoch, batch, shared.form, until).await)
        })
    }

    pub fn mark(self: &Arc<Self>, marks: Vec<Mark>) -> Task {
        let shared = Arc::clone(self);
        Box::pin(async move {
            let result = store::bounded(store::SILENT, shared.source.mark(&marks)).await;
            Done::Marked { marks, result }
        })
    }

    pub fn measure(self: &Arc<Self>) -> Task {
        let shared = Arc::clone(self);
        Box::pin(async move {
            Done::Measured(store::bounded(store::SILENT, shared.source.measure()).await)
        })
    }

    /// Asks after the cluster whenever the breaker says that it is time to. Never ends.
    pub async fn probe(self: Arc<Self>) {
        let breaker: &Breaker = self.connection.breaker();
        let mut states = breaker.subscribe();
        loop {
            if !self.probes
                || states.wait_for(|state| *state != BreakerState::Closed).await.is_err()
            {
                return std::future::pending().await;
            }
            tokio::select! {
                () = sleep_until(breaker.probe_due()) => {
                    let asked = Admin::connect(&self.kafka).await.map(drop);
                    breaker.probed(asked.as_ref().copied());
                }
                _ = states.changed() => {}
            }
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("leased", &self.leased).finish_non_exhaustive()
    }
}
