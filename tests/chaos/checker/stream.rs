//! The topic held against the events, over all the lives it had in a run.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use super::super::journal::{Line, Record};
use super::{Event, Figures, Findings, by_id};

pub fn check(
    lines: &[Line],
    last: Vec<Record>,
    events: &[Event],
    figures: &mut Figures,
    findings: &mut Findings,
) {
    let events = by_id(events);
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut versions: BTreeMap<String, i64> = BTreeMap::new();
    let mut homes: BTreeMap<String, i32> = BTreeMap::new();
    for record in lives(lines, last) {
        figures.records += 1;
        let value: Value =
            serde_json::from_slice(record.value.as_deref().unwrap_or_default()).unwrap_or_default();
        let id = value["eventId"].as_str().unwrap_or_default().to_owned();
        let Some(event) = events.get(id.as_str()) else {
            findings.red("topic-is-events", format!("no such event: {value}"));
            continue;
        };
        if !says(&record, &value, event) {
            findings.red("topic-is-events", format!("{value} is {event:?}"));
        }
        let home = *homes.entry(event.wallet.clone()).or_insert(record.partition);
        if home != record.partition {
            let what = format!("{} in {home} and {}", event.wallet, record.partition);
            findings.red("one-partition-per-wallet", what);
        }
        if !seen.insert(id) {
            figures.duplicates += 1;
            continue;
        }
        let last = versions.entry(event.wallet.clone()).or_insert(0);
        if event.version != *last + 1 {
            let (wallet, version, offset) = (&event.wallet, event.version, record.offset);
            let what = format!("{wallet}: {version} after {last} (at {home}/{offset})");
            findings.red("first-occurrences-ascend", what);
        }
        *last = event.version.max(*last);
    }
    findings.examined("topic-is-events", events.len());
    findings.examined("one-partition-per-wallet", homes.len());
    findings.examined("first-occurrences-ascend", seen.len());
    for event in events.values().filter(|event| !seen.contains(&event.id)) {
        let what = format!("{} version {} never came", event.wallet, event.version);
        findings.red("topic-is-events", what);
    }
}

/// The service's own records of each life of the topic, first to last; the harness's are left out.
fn lives(lines: &[Line], last: Vec<Record>) -> Vec<Record> {
    let mut all = Vec::new();
    let mut injected: HashSet<(i32, i64)> = HashSet::new();
    for line in lines {
        match line {
            Line::Injected { partition, offset, .. } => {
                injected.insert((*partition, *offset));
            }
            Line::Recreated { records } => {
                let ours = |r: &&Record| !injected.contains(&(r.partition, r.offset));
                all.extend(records.iter().filter(ours).cloned());
                injected.clear();
            }
            _ => {}
        }
    }
    all.extend(last.into_iter().filter(|r| !injected.contains(&(r.partition, r.offset))));
    all
}

/// Whether a record is its event.
fn says(record: &Record, value: &Value, event: &Event) -> bool {
    record.key.as_deref() == Some(event.wallet.as_bytes())
        && value["aggregateId"] == event.wallet
        && value["aggregateVersion"] == event.version
        && value["eventType"] == event.kind
        && value["data"] == event.payload
}
