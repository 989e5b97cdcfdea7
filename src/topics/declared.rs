//! The topics that `KAFKA_TOPICS_FILE` declares, as they should be: pure.

use std::collections::BTreeSet;

use crate::config::{Cleanup, DeclaredTopic};
use crate::kafka::topics::TopicSpec;

/// All of them, for these tenants and those that the file names; whose each is.
pub(super) fn specs(
    declared: &[DeclaredTopic],
    tenants: &BTreeSet<String>,
) -> Vec<(Option<String>, TopicSpec)> {
    let mut specs: Vec<(Option<String>, TopicSpec)> = Vec::new();
    let single = declared.iter().filter(|topic| !topic.is_set());
    specs.extend(single.map(|topic| (None, spec(topic, topic.name.clone()))));
    for topic in declared.iter().filter(|topic| topic.is_set()) {
        let mut all: BTreeSet<&String> = tenants.iter().collect();
        all.extend(&topic.tenants);
        let of_set = |tenant: &String| (Some(tenant.clone()), spec(topic, topic.name_for(tenant)));
        specs.extend(all.into_iter().map(of_set));
    }
    // A tenant that came later may have the name of a single topic in it: the first one counts.
    let mut names = BTreeSet::new();
    specs.retain(|(_, spec)| names.insert(spec.name.clone()));
    specs
}

/// Those of one tenant.
pub(super) fn of_tenant(declared: &[DeclaredTopic], tenant: &str) -> Vec<TopicSpec> {
    let all = specs(declared, &BTreeSet::from([tenant.to_owned()])).into_iter();
    all.filter(|(owner, _)| owner.as_deref() == Some(tenant)).map(|(_, spec)| spec).collect()
}

/// Where the file declares what is rarely meant.
pub(super) fn warnings(declared: &[DeclaredTopic]) -> Vec<String> {
    let dropping =
        declared.iter().filter(|topic| topic.events && topic.cleanup == Cleanup::Compact);
    let warning = |topic: &DeclaredTopic| {
        format!(
            "{}: compact keeps only the last event of each key: use compact,delete, or delete for \
             whole histories; events = false where it holds none",
            topic.name
        )
    };
    dropping.map(warning).collect()
}

fn spec(topic: &DeclaredTopic, name: String) -> TopicSpec {
    // Its records are compressed as their producers do it.
    let mut configs = vec![
        ("retention.ms", topic.retention_ms.to_string()),
        ("max.message.bytes", topic.max_message_bytes.to_string()),
        ("cleanup.policy", topic.cleanup.as_str().to_owned()),
    ];
    if topic.replication_factor >= 3 {
        configs.push(("min.insync.replicas", "2".to_owned()));
    }
    let (partitions, key) = (topic.partitions, topic.key);
    TopicSpec { name, partitions, replication_factor: topic.replication_factor, configs, key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyStrategy;

    fn topic(name: &str, cleanup: Cleanup, events: bool) -> DeclaredTopic {
        DeclaredTopic {
            name: name.to_owned(),
            tenants: vec!["b".to_owned()],
            partitions: 3,
            replication_factor: 3,
            retention_ms: -1,
            cleanup,
            max_message_bytes: 1000,
            key: KeyStrategy::Tenant,
            events,
        }
    }

    #[test]
    fn a_set_has_a_topic_for_every_tenant_once() {
        let declared = [
            topic("audit.{tenant}", Cleanup::Delete, false),
            topic("one", Cleanup::Delete, false),
            topic("audit.a", Cleanup::Delete, false),
        ];
        let tenants = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let names: Vec<(Option<String>, String)> =
            specs(&declared, &tenants).into_iter().map(|(t, spec)| (t, spec.name)).collect();
        let owned = |tenant: &str, name: &str| (Some(tenant.to_owned()), name.to_owned());
        let one = (None, "one".to_owned());
        let named = (None, "audit.a".to_owned());
        assert_eq!(names, [one, named, owned("b", "audit.b")]);
        let [own] = of_tenant(&declared, "c").try_into().unwrap();
        assert_eq!(own.name, "audit.c");
        assert!(of_tenant(&declared, "a").is_empty(), "its name is that of a single topic");
        assert!(own.configs.contains(&("min.insync.replicas", "2".to_owned())));
        assert!(own.configs.contains(&("retention.ms", "-1".to_owned())));
    }

    #[test]
    fn compaction_of_events_is_warned_of() {
        let declared = [
            topic("a.events", Cleanup::Compact, true),
            topic("b.events", Cleanup::CompactDelete, true),
            topic("state", Cleanup::Compact, false),
        ];
        let [warning] = warnings(&declared).try_into().unwrap();
        assert!(warning.starts_with("a.events: compact"), "{warning}");
    }
}
