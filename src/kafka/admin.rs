//! Topics and cluster, through krafka, which nothing outside this file, `connect` and `offsets`
//! knows. Creates what is missing; of what exists drift is reported. Deletes, and gives partitions and
//! configurations, only to what its caller names.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use krafka::KrafkaError;
use krafka::admin::{
    AdminClient, ConfigOp, ConfigResource, CreatePartitionsOptions, CreateTopicsOptions,
    DeleteTopicsOptions, DescribeClusterOptions, DescribeConfigsOptions, DescribeTopicsOptions,
    IncrementalAlterConfigsOptions, ListOffsetsOptions, NewTopic, OffsetSpec, TopicDescription,
    TopicPartition,
};
use krafka::error::ErrorCode;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::breaker::Breaker;
use super::connect::{connect_krafka, count_failure};
use super::error::Error;
use super::topics::{Drift, PartitionState, Report, Topic, TopicSpec};
use crate::config::KafkaSettings;

/// A broker that takes no connection within this is out of reach.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);
/// krafka's own default is a minute for any call, whatever the request timeout says.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// A broker shows a new topic once it has heard of it.
const SHOWN_TRIES: u32 = 50;
const SHOWN_PAUSE: Duration = Duration::from_millis(100);

/// The cluster as one of its brokers describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub id: String,
    pub controller: i32,
    pub brokers: Vec<Broker>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub host: String,
    pub port: i32,
}

impl Broker {
    /// How long its advertised address takes to take a connection from here; none: it does not.
    pub async fn latency(&self) -> Option<Duration> {
        let begun = Instant::now();
        let port = u16::try_from(self.port).unwrap_or(0);
        let connecting = tokio::net::TcpStream::connect((self.host.as_str(), port));
        matches!(timeout(REACH_TIMEOUT, connecting).await, Ok(Ok(_))).then(|| begun.elapsed())
    }
}

/// Administers one cluster; recovers by itself when the cluster does.
#[derive(Debug)]
pub struct Admin {
    pub(super) client: AdminClient,
    wait: Duration,
    /// None: a probe's, or an operator's, who may ask at any time.
    breaker: Option<Arc<Breaker>>,
    /// Something was answered: the address that a broker gave for itself can be reached.
    answered: AtomicBool,
}

impl Admin {
    /// Whatever a breaker says: for probes and for what operators ask. All others go through
    /// [`Connection::admin`](super::Connection::admin).
    pub async fn connect(settings: &KafkaSettings) -> Result<Self, Error> {
        let wait = settings.connection_timeout;
        let kafka = timeout(wait, connect_krafka(settings))
            .await
            .unwrap_or_else(|_| Err(Error::connecting(&settings.brokers, wait)))
            .inspect_err(count_failure)?;
        Ok(Self::of(&kafka, settings.request_timeout.min(CALL_TIMEOUT_MAX)))
    }

    /// Over a client that is connected; no call takes longer than `wait`.
    pub(super) fn of(kafka: &krafka::Kafka, wait: Duration) -> Self {
        let client = kafka.admin().default_api_timeout(wait);
        Self { client, wait, breaker: None, answered: AtomicBool::new(false) }
    }

    /// From now on nothing is asked while `breaker` is open.
    pub(super) fn with_breaker(self, breaker: &Arc<Breaker>) -> Self {
        Self { breaker: Some(Arc::clone(breaker)), ..self }
    }

    /// Creates those of `specs` that are missing and compares the others.
    pub async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Report, Error> {
        let mut report = Report::default();
        let mut missing = Vec::new();
        for (spec, found) in specs.iter().zip(self.compare(specs).await?) {
            match found {
                Some((_, drift)) => report.drift.extend(drift),
                None => missing.push(spec),
            }
        }
        if !missing.is_empty() {
            report.created = self.create(&missing).await?;
            self.await_shown(&missing).await;
            self.await_leaders(&missing).await;
        }
        Ok(report)
    }

    /// Each of `specs` as it is, and how it differs; none: there is no such topic.
    pub async fn compare(
        &self,
        specs: &[TopicSpec],
    ) -> Result<Vec<Option<(Topic, Vec<Drift>)>>, Error> {
        let mut described = self.described(specs.iter().map(|spec| spec.name.as_str())).await?;
        let there: Vec<&TopicSpec> = specs
            .iter()
            .filter(|spec| matches!(described.get(&spec.name), Some(Some(_))))
            .collect();
        let configs = self.configs(&there).await?;
        let mut compared = Vec::new();
        for spec in specs {
            compared.push(described.remove(&spec.name).flatten().map(|described| {
                let drift = drift(spec, &described, configs.get(&spec.name));
                (topic(described), drift)
            }));
        }
        Ok(compared)
    }

    /// Deletes topics with all that is in them; those that are not there are passed over.
    pub async fn delete_topics(&self, names: &[String]) -> Result<(), Error> {
        let call = self.client.delete_topics(names, DeleteTopicsOptions::default());
        for answer in self.bounded("delete topics", call).await?.into_values() {
            match answer {
                Ok(()) => {}
                Err(KrafkaError::Broker { code: ErrorCode::UnknownTopicOrPartition, .. }) => {}
                Err(error) => return Err(Error::from_krafka(&error)),
            }
        }
        Ok(())
    }

    /// Gives a topic that has fewer partitions than `spec` the rest, and its configurations: what a broker
    /// made by itself becomes what it should be. Records that are there stay where they are.
    pub async fn complete(&self, spec: &TopicSpec) -> Result<(), Error> {
        let totals = [(spec.name.as_str(), spec.partitions)];
        let call = self.client.create_partitions(totals, CreatePartitionsOptions::default());
        for answer in self.bounded("create partitions", call).await?.into_values() {
            match answer {
                Ok(()) => {}
                // Another instance was quicker.
                Err(KrafkaError::Broker { code: ErrorCode::InvalidPartitions, .. }) => {}
                Err(error) => return Err(Error::from_krafka(&error)),
            }
        }
        let set = |(name, value): &(&str, String)| ConfigOp::set(*name, value.as_str());
        let changes =
            (ConfigResource::topic(spec.name.as_str()), spec.configs.iter().map(set).collect());
        let options = IncrementalAlterConfigsOptions::default();
        let call = self.client.incremental_alter_configs([changes], options);
        for answer in self.bounded("alter configs", call).await?.into_values() {
            answer.map_err(|error| Error::from_krafka(&error))?;
        }
        self.await_shown(&[spec]).await;
        self.await_leaders(&[spec]).await;
        Ok(())
    }

    /// The cluster's id and brokers.
    pub async fn describe(&self) -> Result<Cluster, Error> {
        let options = DescribeClusterOptions::default();
        let answer =
            self.bounded("describe cluster", self.client.describe_cluster(options)).await?;
        let brokers = answer.brokers.into_iter();
        Ok(Cluster {
            id: answer.cluster_id,
            controller: answer.controller_id,
            brokers: brokers
                .map(|broker| Broker { id: broker.id, host: broker.host, port: broker.port })
                .collect(),
        })
    }

    /// Those of `names` that are there, with the state of their partitions, by name.
    pub async fn topics<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Topic>, Error> {
        let described = self.described(names).await?.into_values().flatten();
        let mut topics: Vec<Topic> = described.map(topic).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// How many partitions a topic has; none: there is no such topic.
    pub async fn partitions(&self, topic: &str) -> Result<Option<i32>, Error> {
        let mut described = self.described([topic]).await?;
        Ok(described.remove(topic).flatten().map(|topic| count(topic.partitions.len())))
    }

    /// The id that the broker gave the topic; none: there is no such topic, or the broker is of a
    /// time before ids.
    pub async fn topic_id(&self, topic: &str) -> Result<Option<Uuid>, Error> {
        let mut described = self.described([topic]).await?;
        let id = described.remove(topic).flatten().map(|topic| Uuid::from_bytes(topic.topic_id));
        Ok(id.filter(|id| !id.is_nil()))
    }

    async fn described<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<HashMap<String, Option<TopicDescription>>, Error> {
        let options = DescribeTopicsOptions::default();
        let call = self.client.describe_topics(names, options);
        let answers = self.bounded("describe topics", call).await?;
        answers
            .into_iter()
            .map(|(name, answer)| match answer {
                Ok(topic) => Ok((name, Some(topic))),
                Err(KrafkaError::Broker { code: ErrorCode::UnknownTopicOrPartition, .. }) => {
                    Ok((name, None))
                }
                Err(error) => Err(Error::from_krafka(&error)),
            })
            .collect()
    }

    async fn create(&self, specs: &[&TopicSpec]) -> Result<Vec<String>, Error> {
        let mut topics = Vec::new();
        for spec in specs {
            let topic = NewTopic::new(&spec.name, spec.partitions, spec.replication_factor)
                .map_err(|error| Error::from_krafka(&error))?;
            let with = |topic: NewTopic, (name, value): &(&str, String)| {
                topic.with_config(*name, value.as_str())
            };
            topics.push(spec.configs.iter().fold(topic, with));
        }
        let call = self.client.create_topics(topics, CreateTopicsOptions::default());
        let mut created = Vec::new();
        for (name, answer) in self.bounded("create topics", call).await? {
            match answer {
                Ok(()) => created.push(name),
                // Another instance was quicker.
                Err(KrafkaError::Broker { code: ErrorCode::TopicAlreadyExists, .. }) => {}
                Err(error) => return Err(Error::from_krafka(&error)),
            }
        }
        created.sort();
        Ok(created)
    }

    /// A new topic is not shown by every broker at once. Who works with it finds out whether it is.
    async fn await_shown(&self, specs: &[&TopicSpec]) {
        for _ in 0..SHOWN_TRIES {
            let found = self.topics(specs.iter().map(|spec| spec.name.as_str())).await;
            let Ok(found) = found else { return };
            let shown = |spec: &&TopicSpec| {
                let wanted = usize::try_from(spec.partitions).unwrap_or(0);
                let topic = found.iter().find(|topic| topic.name == spec.name);
                topic.is_some_and(|t| t.partitions.len() >= wanted && t.offline() == 0)
            };
            if specs.iter().all(shown) {
                return;
            }
            tokio::time::sleep(SHOWN_PAUSE).await;
        }
    }

    /// A new topic's leaders refuse work for a moment. Asked for an offset, krafka asks again until
    /// they answer; whether they did is found out by the next request to them.
    async fn await_leaders(&self, specs: &[&TopicSpec]) {
        let partitions = specs.iter().flat_map(|spec| {
            let numbers = 0..spec.partitions;
            numbers.map(|n| (TopicPartition::new(spec.name.as_str(), n), OffsetSpec::Latest))
        });
        let call = self.client.list_offsets(partitions, ListOffsetsOptions::default());
        if let Err(error) = self.bounded("list offsets", call).await {
            tracing::debug!(%error, "leaders of new topics not awaited");
        }
    }

    /// What the broker has configured for topics that are there.
    async fn configs(&self, specs: &[&TopicSpec]) -> Result<HashMap<String, Configs>, Error> {
        if specs.is_empty() {
            return Ok(HashMap::new());
        }
        let resources = specs.iter().map(|spec| ConfigResource::topic(spec.name.as_str()));
        let call = self.client.describe_configs(resources, DescribeConfigsOptions::default());
        let answers = self.bounded("describe configs", call).await?;
        let mut configs = HashMap::new();
        for (resource, answer) in answers {
            let entries = answer.map_err(|error| Error::from_krafka(&error))?.into_iter();
            let pairs = entries.map(|entry| (entry.name, entry.value.unwrap_or_default()));
            configs.insert(resource.name, pairs.collect());
        }
        Ok(configs)
    }

    /// Makes the call where the breaker allows it. krafka connects again and again until the call's time is
    /// over: where the breaker opens meanwhile, that ends.
    pub(super) async fn bounded<T>(
        &self,
        what: &str,
        call: impl Future<Output = krafka::Result<T>>,
    ) -> Result<T, Error> {
        let Some(breaker) = &self.breaker else { return self.ask(what, call).await };
        breaker.allows()?;
        tokio::select! {
            answer = self.ask(what, call) => answer,
            refusal = breaker.opened() => Err(refusal),
        }
    }

    /// The call's own bound should do; this one holds if it does not.
    async fn ask<T>(
        &self,
        what: &str,
        call: impl Future<Output = krafka::Result<T>>,
    ) -> Result<T, Error> {
        let wait = self.wait.saturating_add(Duration::from_millis(500));
        let answer = match timeout(wait, call).await {
            Ok(answer) => answer.map_err(|error| Error::from_krafka(&error)),
            Err(_) => Err(Error::timeout(what, wait)),
        };
        match answer {
            Err(error) if error.is_outage() && !self.answered.load(Ordering::Relaxed) => {
                // A broker of the settings did let us in: what fails is where it sent us.
                Err(error.behind_advertised())
            }
            answer => {
                self.answered.store(true, Ordering::Relaxed);
                answer
            }
        }
    }
}

/// A topic's configurations, by name.
type Configs = HashMap<String, String>;

fn drift(spec: &TopicSpec, topic: &TopicDescription, actual: Option<&Configs>) -> Vec<Drift> {
    let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
    let shape = [
        ("partitions", spec.partitions.to_string(), topic.partitions.len().to_string()),
        ("replication.factor", spec.replication_factor.to_string(), replicas.to_string()),
    ];
    let configs = spec.configs.iter().map(|(name, wanted)| {
        let actual = actual.and_then(|actual| actual.get(*name)).cloned();
        (*name, wanted.clone(), actual.unwrap_or_default())
    });
    shape
        .into_iter()
        .chain(configs)
        .filter(|(_, wanted, actual)| wanted != actual)
        .map(|(what, wanted, actual)| Drift {
            topic: spec.name.clone(),
            what: what.to_owned(),
            wanted,
            actual,
        })
        .collect()
}

fn topic(described: TopicDescription) -> Topic {
    let partitions = described.partitions.into_iter().map(|partition| PartitionState {
        number: partition.partition,
        leader: partition.leader,
        replicas: partition.replicas,
        in_sync: partition.isr,
    });
    let id = Uuid::from_bytes(described.topic_id);
    Topic { name: described.name, id, partitions: partitions.collect() }
}

fn count(partitions: usize) -> i32 {
    i32::try_from(partitions).unwrap_or(i32::MAX)
}
