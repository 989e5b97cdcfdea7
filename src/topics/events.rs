//! The topic of the events and the books: over how many partitions wallets are hashed, which topic it
//! is, and whose. What is there is asked before anything is frozen; where the two do not fit, it is said
//! by name what to do.

use std::sync::Arc;

use uuid::Uuid;

use super::{Topics, TopicsError, Wiring};
use crate::envelope::DEPLOYMENT;
use crate::kafka::topics::{Topic, TopicSpec};
use crate::kafka::{Connection, last_records};
use crate::store;
use crate::store::topics::{self as known, Identity};
use crate::wallet::TenantId;

/// Why the topic of the events is not one for these books, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Misfit {
    #[error(
        "the topic {topic} has {has} partitions, and wallets are hashed over {needs} by now: give it \
         {needs}, which moves nothing (kafka-topics --alter --topic {topic} --partitions {needs}), or set \
         KAFKA_EVENTS_TOPIC to another"
    )]
    TooFew { topic: String, has: i32, needs: i32 },
    #[error(
        "the topic {topic} holds events of another deployment ({other}; these books are {own}): every \
         deployment needs its own KAFKA_EVENTS_TOPIC, KAFKA_DLQ_TOPIC, KAFKA_COMMANDS_TOPIC, \
         KAFKA_COMMAND_RESULTS_TOPIC and CONSUMER_GROUP_ID; where the other is no more, delete the topic"
    )]
    Others { topic: String, other: Uuid, own: Uuid },
}

/// What this process has seen of the topic so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KnownTopic {
    id: Option<Uuid>,
    /// It was not there when looked for last.
    absent: bool,
}

/// What a look at the topic came to.
#[derive(Debug, Default)]
pub struct Tended {
    /// Topics that were made.
    pub created: Vec<String>,
    /// The topic was deleted and recreated since it was noted last.
    pub recreated: Option<String>,
    /// It had fewer partitions than it needs, and has them now.
    pub completed: Option<String>,
    /// What an operator has to do.
    pub problem: Option<String>,
}

impl Topics {
    /// At the start: refuses a topic that has too few partitions for what is hashed already, and to books
    /// that are new to the topic one that holds another deployment's events. Nothing is noted then. One
    /// that is not there is made, before any client asks for it.
    pub async fn admit(&self) -> Result<Result<KnownTopic, Misfit>, TopicsError> {
        let topic = self.wiring.kafka.events_topic.as_str();
        let frozen = known::frozen(&self.wiring.pool, &shared(), topic).await?;
        let Some(found) = self.found().await? else {
            self.freeze_events(None).await?;
            // A user who may not make it still starts: its first use reports what is missing.
            for topic in self.make_own().await.unwrap_or_default() {
                tracing::info!(topic, "topic created");
            }
            return Ok(Ok(KnownTopic { id: None, absent: true }));
        };
        let is_known = frozen.is_some_and(|(_, id)| id == Some(found.id));
        if !is_known && let Some(misfit) = self.others(&found).await? {
            return Ok(Err(misfit));
        }
        let needs = self.freeze_events(Some(&found)).await?;
        let (has, set) = (count(&found), self.wiring.kafka.default_partitions);
        if frozen.is_none() && needs != set {
            tracing::warn!(
                "the topic {topic} was there with {has} partitions: wallets are hashed over {needs}, \
                 whatever DEFAULT_PARTITIONS={set} says; for another count set KAFKA_EVENTS_TOPIC to a \
                 topic that has it, before the first event"
            );
        }
        if has < needs {
            return Ok(Err(Misfit::TooFew { topic: topic.to_owned(), has, needs }));
        }
        Ok(Ok(KnownTopic { id: Some(found.id), absent: false }))
    }

    /// The count that wallets are hashed over: what is frozen, else what the topic has, else the setting.
    pub async fn hashed_over(&self) -> Result<i32, TopicsError> {
        let topic = &self.wiring.kafka.events_topic;
        if let Some((count, _)) = known::frozen(&self.wiring.pool, &shared(), topic).await? {
            return Ok(count);
        }
        let found = self.found().await?;
        self.freeze_events(found.as_ref()).await
    }

    /// Now and then: makes what is gone, notes which topic it is, and completes one that a broker has made
    /// by itself, with a count of its own, where this process saw the topic of before go.
    pub async fn tend(&self, seen: &mut KnownTopic) -> Result<Tended, TopicsError> {
        let mut tended = Tended { created: self.make_own().await?, ..Tended::default() };
        let Some(mut found) = self.found().await? else {
            seen.absent = true;
            return Ok(tended);
        };
        let topic = self.wiring.kafka.events_topic.as_str();
        let needs = self.freeze_events(Some(&found)).await?;
        let is_new = seen.absent || seen.id.is_some_and(|id| id != found.id);
        if count(&found) < needs && is_new {
            let had = count(&found);
            let completing = self.admin.complete(&self.events_spec(needs)).await;
            match completing {
                Ok(()) => {
                    tended.completed = Some(format!(
                        "the topic {topic} came back with {had} partitions, made by a broker or a client: \
                         it has {needs} again, and its settings"
                    ));
                    found = self.found().await?.unwrap_or(found);
                }
                Err(error) if error.is_outage() => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "the events topic was not completed"),
            }
        }
        *seen = KnownTopic { id: Some(found.id), absent: false };
        if !found.id.is_nil() {
            tended.recreated = self.note(topic, found.id).await?;
        }
        let has = count(&found);
        if has < needs {
            let misfit = Misfit::TooFew { topic: topic.to_owned(), has, needs };
            tended.problem = Some(misfit.to_string());
        }
        Ok(tended)
    }

    /// The count that is frozen, else that of the topic that is there, frozen from now on.
    pub(super) async fn freeze_events(&self, found: Option<&Topic>) -> Result<i32, TopicsError> {
        let kafka = &self.wiring.kafka;
        let known = known::frozen(&self.wiring.pool, &shared(), &kafka.events_topic).await?;
        if let Some((count, _)) = known {
            return Ok(count);
        }
        let first = found.map_or(kafka.default_partitions, count);
        let mut connection = store::acquire(&self.wiring.pool).await?;
        Ok(known::hashed_over(&mut connection, &shared(), &kafka.events_topic, first).await?)
    }

    /// The topic of the events as it is; none: it is not there.
    pub(super) async fn found(&self) -> Result<Option<Topic>, TopicsError> {
        let topic = self.wiring.kafka.events_topic.as_str();
        Ok(self.admin.topics([topic]).await?.into_iter().next())
    }

    fn events_spec(&self, partitions: i32) -> TopicSpec {
        TopicSpec::events(&self.wiring.kafka, self.wiring.codec, partitions)
    }

    /// Makes the topic of the events, and those beside it, where they are not there.
    async fn make_own(&self) -> Result<Vec<String>, TopicsError> {
        let Wiring { kafka, codec, .. } = &self.wiring;
        let mut specs = TopicSpec::all_of_events(kafka, *codec, kafka.default_partitions);
        let there = self.admin.topics(specs.iter().map(|spec| spec.name.as_str())).await?;
        if there.len() == specs.len() {
            return Ok(Vec::new());
        }
        let found = there.iter().find(|topic| topic.name == kafka.events_topic);
        let partitions = self.freeze_events(found).await?;
        specs = TopicSpec::all_of_events(kafka, *codec, partitions);
        Ok(self.admin.ensure_topics(&specs).await?.created)
    }

    async fn note(&self, topic: &str, id: Uuid) -> Result<Option<String>, TopicsError> {
        let tenant = shared();
        let noting = known::identify(&self.wiring.pool, &tenant, topic, id);
        let noted = store::bounded(store::SILENT, noting).await?;
        let Identity::Changed { before } = noted else { return Ok(None) };
        Ok(Some(format!(
            "the topic {topic} was recreated (id {before}, now {id}): it is read from its beginning, and \
             what it lacks is read from events"
        )))
    }

    /// Books that are new to the topic must not write where other books do.
    async fn others(&self, found: &Topic) -> Result<Option<Misfit>, TopicsError> {
        let asking = async {
            let mut connection = store::acquire(&self.wiring.pool).await?;
            known::deployment(&mut connection).await
        };
        let Some(own) = asking.await? else { return Ok(None) };
        let connection: Arc<Connection> = Connection::new(&self.wiring.kafka);
        let last = last_records(&connection, &found.name, count(found)).await?;
        let mark = |headers: &std::collections::BTreeMap<String, Vec<u8>>| {
            Uuid::try_parse_ascii(headers.get(DEPLOYMENT)?).ok()
        };
        let other = last.iter().filter_map(|record| mark(&record.headers)).find(|id| *id != own);
        Ok(other.map(|other| Misfit::Others { topic: found.name.clone(), other, own }))
    }
}

fn shared() -> TenantId {
    TenantId::default_tenant()
}

fn count(topic: &Topic) -> i32 {
    i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}
