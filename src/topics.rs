//! The topics for the operator of the service: what is there and what should be, tenants' own topics and
//! those that a file declares, how many partitions to begin with. Creates and deletes; never changes a
//! topic that exists, but for the topic of the events where that went and a broker made it again by itself.
//!
//! The count that a topic's keys are hashed over is kept in Postgres. More partitions at the broker
//! change nothing: a wallet's events stay where they are.

mod declared;
mod events;
pub mod sizing;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

use crate::config::{Cleanup, Codec, KafkaSettings, OWN_TOPICS, OwnTopic, Settings, is_topic_part};
use crate::kafka::admin::Admin;
use crate::kafka::topics::{Drift, PartitionState, Topic, TopicSpec};
use crate::kafka::{self, Connection};
use crate::schemas::{self, Channel, ChannelTopic};
use crate::status::COMMANDS;
use crate::store::topics::{self as known, Known};
use crate::store::{self, Pool};
use crate::wallet::TenantId;

pub use crate::kafka::topics::KeyStrategy;
pub use events::{KnownTopic, Misfit, Tended};

/// What the topics are made from.
#[derive(Debug, Clone)]
pub struct Wiring {
    pub pool: Pool,
    pub kafka: KafkaSettings,
    pub codec: Codec,
}

/// The topics of one cluster.
#[derive(Debug)]
pub struct Topics {
    wiring: Wiring,
    admin: Admin,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    #[error("KAFKA_ENABLED=false: there are no topics")]
    Disabled,
    #[error(
        "{0:?} cannot be a tenant's part of a topic: use 1 to 100 of a-z A-Z 0-9 . _ -, not ending in -dlq, not default"
    )]
    Tenant(String),
    #[error("{0} is the service's own, and stays; a tenant's own go with delete-tenant")]
    Own(String),
    #[error("Kafka: {0}")]
    Kafka(#[from] kafka::Error),
    #[error("Postgres: {0}")]
    Store(#[from] store::Error),
}

/// A topic as it is and as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TopicState)]
pub struct View {
    pub name: String,
    /// The tenant that it is for; null: all tenants share it.
    #[schema(required)]
    pub tenant: Option<String>,
    pub exists: bool,
    /// `KAFKA_TOPICS_FILE` declares it; the service does not use it.
    pub declared: bool,
    /// What its records are keyed by.
    pub key: &'static str,
    /// How many partitions its keys are hashed over; null: what the broker has.
    #[schema(required)]
    pub hashed_over: Option<i32>,
    /// As the service would create it.
    pub configs: BTreeMap<&'static str, String>,
    #[schema(minimum = 0)]
    pub under_replicated: usize,
    /// Partitions without a leader.
    #[schema(minimum = 0)]
    pub offline: usize,
    pub drift: Vec<Drift>,
    pub partitions: Vec<PartitionState>,
}

/// What was made, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ensured {
    pub created: Vec<String>,
    /// Differences of topics that were there; they are not corrected.
    pub drift: Vec<Drift>,
    /// What should be looked at.
    pub warnings: Vec<String>,
    pub dry_run: bool,
}

/// What was deleted, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    pub deleted: Vec<String>,
    /// What should be looked at.
    pub warnings: Vec<String>,
    pub dry_run: bool,
}

struct Wanted {
    tenant: Option<String>,
    declared: bool,
    hashed_over: Option<i32>,
    spec: TopicSpec,
}

/// The topics of the AsyncAPI document and of the registry's subjects, as these settings have them.
pub fn channels(settings: &Settings) -> schemas::Topics {
    let (kafka, codec) = (&settings.kafka, settings.producer.compression);
    let topic = |own: &OwnTopic| {
        let spec = TopicSpec::own(own, kafka, codec);
        let topic = ChannelTopic {
            name: spec.name,
            partitions: spec.partitions,
            replicas: spec.replication_factor,
            configs: spec.configs,
        };
        Some((own.channel?, topic))
    };
    schemas::Topics {
        by_channel: OWN_TOPICS.iter().filter_map(topic).collect(),
        commands_group: format!("{}{COMMANDS}", settings.consumer.group_prefix),
    }
}

impl Topics {
    pub async fn open(wiring: &Wiring) -> Result<Self, TopicsError> {
        if !wiring.kafka.enabled {
            return Err(TopicsError::Disabled);
        }
        let admin = Admin::connect(&wiring.kafka).await?;
        Ok(Self { wiring: wiring.clone(), admin })
    }

    /// Behind the breaker of the connection: for what no operator has asked for.
    pub async fn open_behind(
        wiring: &Wiring,
        connection: &Connection,
    ) -> Result<Self, TopicsError> {
        let admin = connection.admin().await?;
        Ok(Self { wiring: wiring.clone(), admin })
    }

    /// Creates the topics that are missing: those of the service, of its tenants and of the file; with
    /// `all` also those that inbound commands and the audit would use.
    pub async fn ensure(&self, all: bool, dry_run: bool) -> Result<Ensured, TopicsError> {
        if !dry_run {
            self.hashed_over().await?;
        }
        let mut specs: Vec<TopicSpec> =
            self.wanted().await?.into_iter().map(|wanted| wanted.spec).collect();
        if all {
            // Where the file has one of them in a form of its own, that counts.
            let Wiring { kafka, codec, .. } = &self.wiring;
            let all = OWN_TOPICS.iter().map(|own| TopicSpec::own(own, kafka, *codec));
            let is_new = |other: &TopicSpec| specs.iter().all(|spec| spec.name != other.name);
            let others: Vec<TopicSpec> = all.filter(is_new).collect();
            specs.extend(others);
        }
        self.make(&specs, dry_run).await
    }

    /// The topics of the service, of its tenants and of the file.
    pub async fn list(&self) -> Result<Vec<View>, TopicsError> {
        let wanted = self.wanted().await?;
        let specs: Vec<TopicSpec> = wanted.iter().map(|wanted| wanted.spec.clone()).collect();
        let found = self.admin.compare(&specs).await?;
        Ok(wanted.into_iter().zip(found).map(|(wanted, found)| view(wanted, found)).collect())
    }

    /// One of them.
    pub async fn describe(&self, name: &str) -> Result<Option<View>, TopicsError> {
        Ok(self.list().await?.into_iter().find(|view| view.name == name))
    }

    /// Creates a tenant's own topics and remembers them. The same again changes nothing.
    pub async fn create_tenant(&self, tenant: &str, dry_run: bool) -> Result<Ensured, TopicsError> {
        let Wiring { kafka, codec, .. } = &self.wiring;
        let id = tenant_id(tenant)?;
        let [mut events, letters] =
            TopicSpec::of_tenant(kafka, *codec, tenant, kafka.default_partitions);
        if !dry_run {
            // What is there already has its count.
            let first = self.admin.partitions(&events.name).await?.unwrap_or(events.partitions);
            events.partitions = self.freeze(&id, &events.name, first).await?;
            let first = self.admin.partitions(&letters.name).await?.unwrap_or(letters.partitions);
            self.freeze(&id, &letters.name, first).await?;
        }
        let mut specs = vec![events, letters];
        specs.extend(declared::of_tenant(&kafka.declared, tenant));
        self.make(&specs, dry_run).await
    }

    /// Deletes a tenant's own topics with all that is in them. Postgres keeps the events.
    pub async fn delete_tenant(&self, tenant: &str, dry_run: bool) -> Result<Deleted, TopicsError> {
        let Wiring { kafka, codec, pool } = &self.wiring;
        let id = tenant_id(tenant)?;
        let own = TopicSpec::of_tenant(kafka, *codec, tenant, kafka.default_partitions);
        let specs = own.into_iter().chain(declared::of_tenant(&kafka.declared, tenant));
        let names: Vec<String> = specs.map(|spec| spec.name).collect();
        let deleted = self.remove(&names, dry_run).await?;
        if !dry_run {
            known::forget(pool, &id, &names).await?;
        }
        let sets = kafka.declared.iter().filter(|set| set.tenants.iter().any(|t| t == tenant));
        let warnings = sets.map(|set| comes_again(tenant, &set.name)).collect();
        Ok(Deleted { deleted, warnings, dry_run })
    }

    /// Deletes a topic that the file declares, with all that is in it; none: it declares no such one.
    pub async fn delete(&self, name: &str, dry_run: bool) -> Result<Option<Deleted>, TopicsError> {
        let wanted = self.wanted().await?;
        let Some(found) = wanted.into_iter().find(|wanted| wanted.spec.name == name) else {
            return Ok(None);
        };
        if !found.declared {
            return Err(TopicsError::Own(found.spec.name));
        }
        let deleted = self.remove(&[found.spec.name], dry_run).await?;
        let warnings = vec![comes_again(name, "topics")];
        Ok(Some(Deleted { deleted, warnings, dry_run }))
    }

    /// Deletes those that are there.
    async fn remove(&self, names: &[String], dry_run: bool) -> Result<Vec<String>, TopicsError> {
        let there = self.admin.topics(names.iter().map(String::as_str)).await?;
        let there: Vec<String> = there.into_iter().map(|topic| topic.name).collect();
        // A deletion that the client had to ask for twice says that nothing was there: what is gone
        // is what was there before.
        if !dry_run && !there.is_empty() {
            self.admin.delete_topics(&there).await?;
        }
        Ok(there)
    }

    async fn make(&self, specs: &[TopicSpec], dry_run: bool) -> Result<Ensured, TopicsError> {
        let report = if dry_run {
            let mut report = kafka::topics::Report::default();
            for (spec, found) in specs.iter().zip(self.admin.compare(specs).await?) {
                match found {
                    Some((_, drift)) => report.drift.extend(drift),
                    None => report.created.push(spec.name.clone()),
                }
            }
            report
        } else {
            self.admin.ensure_topics(specs).await?
        };
        let warnings = self.warnings();
        Ok(Ensured { created: report.created, drift: report.drift, warnings, dry_run })
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = declared::warnings(&self.wiring.kafka.declared);
        if self.wiring.kafka.cleanup == Cleanup::Compact {
            let text = "KAFKA_CLEANUP_POLICY=compact keeps only the last event of each wallet in \
                        the topic: use compact,delete, or delete for whole histories";
            warnings.insert(0, text.to_owned());
        }
        warnings
    }

    async fn freeze(&self, tenant: &TenantId, topic: &str, first: i32) -> store::Result<i32> {
        let mut connection = store::acquire(&self.wiring.pool).await?;
        known::partitions_frozen(&mut connection, tenant, topic, first).await
    }

    /// What should be there: the topics that the service uses, those of tenants that were made, and those
    /// of the file, for the same tenants.
    async fn wanted(&self) -> Result<Vec<Wanted>, TopicsError> {
        let Wiring { kafka, codec, pool } = &self.wiring;
        let known = known::known(pool).await?;
        let shared = TenantId::default_tenant();
        let is_events =
            |row: &&Known| row.tenant_id == shared.as_str() && row.name == kafka.events_topic;
        let hashed_over = known.iter().find(is_events).map(|row| row.partitions);
        let partitions = match hashed_over {
            Some(count) => count,
            // Of a topic that is there the count will be frozen as it is.
            None => {
                let there = self.admin.partitions(&kafka.events_topic).await?;
                there.unwrap_or(kafka.default_partitions)
            }
        };
        let own = kafka.own_topics().map(|own| {
            let mut spec = TopicSpec::own(own, kafka, *codec);
            let mut hashed = None;
            if own.channel == Some(Channel::Events) {
                (spec.partitions, hashed) = (partitions, hashed_over);
            }
            Wanted { tenant: None, declared: false, hashed_over: hashed, spec }
        });
        let mut wanted: Vec<Wanted> = own.collect();
        let mut tenants = BTreeSet::new();
        for row in known.into_iter().filter(|row| row.tenant_id != shared.as_str()) {
            tenants.insert(row.tenant_id.clone());
            let own = TopicSpec::of_tenant(kafka, *codec, &row.tenant_id, row.partitions);
            if let Some(spec) = own.into_iter().find(|spec| spec.name == row.name) {
                let (tenant, hashed_over) = (Some(row.tenant_id), Some(row.partitions));
                wanted.push(Wanted { tenant, declared: false, hashed_over, spec });
            }
        }
        let of_file = declared::specs(&kafka.declared, &tenants).into_iter();
        wanted.extend(of_file.map(|(tenant, spec)| Wanted {
            tenant,
            declared: true,
            hashed_over: None,
            spec,
        }));
        Ok(wanted)
    }
}

fn view(wanted: Wanted, found: Option<(Topic, Vec<Drift>)>) -> View {
    let Wanted { tenant, declared, hashed_over, spec } = wanted;
    let exists = found.is_some();
    let (under_replicated, offline) =
        found.as_ref().map_or((0, 0), |(topic, _)| (topic.under_replicated(), topic.offline()));
    let (partitions, drift) =
        found.map_or_else(Default::default, |(topic, drift)| (topic.partitions, drift));
    View {
        name: spec.name,
        tenant,
        exists,
        declared,
        key: spec.key.as_str(),
        hashed_over,
        configs: spec.configs.into_iter().collect(),
        under_replicated,
        offline,
        drift,
        partitions,
    }
}

/// What is deleted and still declared.
fn comes_again(what: &str, place: &str) -> String {
    format!("{what} still stands in KAFKA_TOPICS_FILE ({place}): `topics ensure` makes it again")
}

/// A tenant whose name can be part of a topic's.
fn tenant_id(tenant: &str) -> Result<TenantId, TopicsError> {
    if is_topic_part(tenant) {
        Ok(TenantId::stored(tenant))
    } else {
        Err(TopicsError::Tenant(tenant.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_cannot_have_the_name_of_another_ones_topic() {
        assert!(tenant_id("acme").is_ok());
        assert!(tenant_id("Acme_1.eu-west").is_ok());
        for wrong in ["", "default", "acme-dlq", "a b", "ä", "a/b", &"x".repeat(101)] {
            assert!(tenant_id(wrong).is_err(), "{wrong}");
        }
    }
}
