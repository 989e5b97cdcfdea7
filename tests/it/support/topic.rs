//! The topic read back from its first offset, and held against the tables: what was published is
//! what happened, in order per wallet, and the projections are what was published.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use rskafka::client::ClientBuilder;
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use serde_json::Value;

use super::app::App;

/// A record as a stranger reads it.
#[derive(Debug)]
struct Read {
    partition: i32,
    key: String,
    value: Value,
}

/// What the topic holds.
#[derive(Debug)]
pub struct Topic {
    pub records: usize,
    pub duplicates: usize,
}

/// Fails where topic, events, ledger and read model are not the same.
pub async fn assert_same(bootstrap: &str, app: &App) -> Topic {
    let read = read_back(bootstrap, &app.topic).await;
    let rows: Vec<(String, String, i64, String, String)> = sqlx::query_as(
        "select event_id::text, wallet_id, version, event_type, payload::text from events",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let events: HashMap<String, (String, i64, String, Value)> = rows
        .into_iter()
        .map(|(id, wallet, version, kind, payload)| {
            (id, (wallet, version, kind, serde_json::from_str(&payload).unwrap()))
        })
        .collect();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let mut homes: BTreeMap<String, i32> = BTreeMap::new();
    for record in &read {
        let value = &record.value;
        let id = value["eventId"].as_str().unwrap().to_owned();
        let (wallet, version, kind, payload) =
            events.get(&id).unwrap_or_else(|| panic!("no such event: {record:?}"));
        assert_eq!(value["aggregateId"], **wallet, "{record:?}");
        assert_eq!(record.key, *wallet, "{record:?}");
        assert_eq!(value["aggregateVersion"], *version, "{record:?}");
        assert_eq!(value["eventType"], **kind, "{record:?}");
        assert_eq!(value["data"], *payload, "{record:?}");
        let home = homes.entry(wallet.clone()).or_insert(record.partition);
        assert_eq!(*home, record.partition, "{wallet} lies in two partitions");
        if seen.insert(id) {
            let last = last.entry(wallet.clone()).or_insert(0);
            assert_eq!(*version, *last + 1, "{wallet} is out of order in the topic");
            *last = *version;
        }
    }
    let missing = events.keys().filter(|id| !seen.contains(*id)).count();
    assert_eq!(missing, 0, "of {} events never reached the topic", events.len());
    assert_projected(app).await;
    Topic { records: read.len(), duplicates: read.len() - seen.len() }
}

/// The ledger has the two legs of every event that moves money, the read model every wallet as it
/// is, the outbox nothing that waits.
pub async fn assert_projected(app: &App) {
    let (wrong_entries, wrong_wallets, waiting): (i64, i64, i64) = sqlx::query_as(
        "select \
         (select count(*) from (select event_id, amount from events, \
              lateral (select (payload ->> 'changeAmount')::numeric as amount) a \
              where event_type <> 'WalletCreated') e \
          full join (select event_id, count(*) as legs, min(amount) as low, max(amount) as high, \
                 count(distinct side) as sides from ledger_entries group by event_id) l \
              using (event_id) \
          where l.legs is distinct from 2 or l.low is distinct from e.amount \
             or l.high is distinct from e.amount or l.sides is distinct from 2), \
         (select count(*) from wallets w full join wallets_read_model r using (tenant_id, id) \
          where (w.balance, w.version, w.owner_id) is distinct from \
                (r.balance, r.version, r.owner_id)), \
         (select count(*) from outbox where processed_at is null)",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!((wrong_entries, wrong_wallets, waiting), (0, 0, 0), "entries, wallets, backlog");
}

async fn read_back(bootstrap: &str, topic: &str) -> Vec<Read> {
    let client = ClientBuilder::new(vec![bootstrap.to_owned()]).build().await.unwrap();
    let topics = client.list_topics().await.unwrap();
    let found = topics.into_iter().find(|found| found.name == topic).expect("the topic is there");
    let mut read = Vec::new();
    for partition in found.partitions {
        let handling = UnknownTopicHandling::Retry;
        let reader = client.partition_client(topic, partition, handling).await.unwrap();
        let end = reader.get_offset(OffsetAt::Latest).await.unwrap();
        let mut offset = reader.get_offset(OffsetAt::Earliest).await.unwrap();
        assert_eq!(offset, 0, "nothing has gone from the topic");
        while offset < end {
            let fetch = reader.fetch_records(offset, 1..4_000_000, 1_000);
            let fetched = tokio::time::timeout(Duration::from_secs(30), fetch).await;
            let (records, _) = fetched.expect("the broker answers").unwrap();
            for record in records {
                offset = record.offset + 1;
                let key = String::from_utf8(record.record.key.unwrap_or_default()).unwrap();
                let value = record.record.value.unwrap_or_default();
                let value = serde_json::from_slice(&value).unwrap();
                read.push(Read { partition, key, value });
            }
        }
    }
    read
}

/// The versions of each wallet in a topic, as they stand in it.
pub async fn versions(bootstrap: &str, topic: &str) -> BTreeMap<String, Vec<i64>> {
    let mut versions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in read_back(bootstrap, topic).await {
        let version = record.value["aggregateVersion"].as_i64().unwrap();
        versions.entry(record.key).or_default().push(version);
    }
    versions
}
