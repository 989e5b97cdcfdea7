//! A topic deleted and recreated: nothing that is derived loses anything, and it is said.

use std::collections::BTreeSet;
use std::time::Duration;

use super::wire::{self, PARTITIONS, PATIENCE, client, produce, record, wallets_in};
use crate::support::app::{App, Setup};
use crate::support::load::{Load, Plan};
use crate::support::{checker, eventually, topic};

async fn delete(name: &str) {
    let client = client().await;
    client.controller_client().unwrap().delete_topic(name, 30_000).await.unwrap();
}

async fn is_there(name: &str) -> bool {
    client().await.list_topics().await.unwrap().iter().any(|topic| topic.name == name)
}

async fn topic_id(app: &App) -> Option<uuid::Uuid> {
    sqlx::query_scalar("select topic_id from topics").fetch_one(&app.pool).await.unwrap()
}

/// Ledger and read model say what the events say: two hashes over all of it.
async fn hashes(app: &App) -> (String, String) {
    let sql = "select \
         (select md5(coalesce(string_agg(wallet_id || ':' || event_id || ':' || amount::numeric \
             || ':' || balance, ';' order by event_id), '')) from (select wallet_id, event_id, \
             (payload ->> 'changeAmount')::numeric(28,8) as amount, \
             (payload ->> 'newBalance')::numeric(28,8) as balance \
             from events where event_type <> 'WalletCreated') e), \
         (select md5(coalesce(string_agg(wallet_id || ':' || event_id || ':' || amount || ':' \
             || balance_after, ';' order by event_id), '')) from ledger_entries where leg = 0)";
    sqlx::query_as(sql).fetch_one(&app.pool).await.unwrap()
}

async fn assert_whole(app: &App) {
    app.drain().await;
    topic::assert_projected(app).await;
    app.assert_reconciled();
    let (events, ledger) = hashes(app).await;
    assert_eq!(events, ledger);
}

/// The projectors have read the topic to its end, whatever their places were.
async fn read_to_the_end(app: &App) {
    eventually("every partition read to its end", PATIENCE, async || {
        let stats = app.get("/health/kafka/stats").await.json();
        let done = ["ledger-projector", "read-model-projector"].iter().all(|group| {
            let partitions = stats["groups"][app.group(group)]["partitions"].as_array();
            partitions.is_some_and(|all| {
                all.len() == PARTITIONS as usize && all.iter().all(|p| p["lag"] == 0)
            })
        });
        done.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_under_load_loses_nothing_that_is_derived() {
    let app = Setup::shared().start().await;
    let load = Load::start(&[&app.base], Plan::default()).await;
    load.advance(200).await;
    let before = eventually("the topic's id", PATIENCE, async || topic_id(&app).await).await;
    delete(&app.topic).await;
    load.advance(200).await;
    eventually("the service has recreated it", PATIENCE, async || {
        is_there(&app.topic).await.then_some(())
    })
    .await;
    load.advance(300).await;
    eventually("the other topic is noticed", PATIENCE, async || {
        topic_id(&app).await.filter(|id| *id != before)
    })
    .await;
    load.advance(100).await;
    let journal = load.settle().await;
    checker::assert_events(&app.pool, &journal.lines()).await;
    assert_whole(&app).await;
    assert!(app.log_text().contains("was recreated"), "it is reported");
    read_to_the_end(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_while_nobody_looked_is_read_from_its_beginning() {
    // Only the topic may say what is new: nothing may hide what it is not read for.
    let mut app = Setup::shared().with("PROJECTOR_FEEDS", "kafka").start().await;
    let wallets = wallets_in(4, "w", 3);
    for wallet in &wallets {
        app.open(wallet, "10.00").await;
        let path = format!("/wallets/{wallet}/credit");
        assert_eq!(app.post(&path, serde_json::json!({"amount": "1.00"})).await.status, 201);
    }
    app.drain().await;
    let key = Some(wallets[0].as_bytes());
    let poison = produce(&app.topic, 4, vec![record(key, Some(b"of the old topic"))]).await;
    wire::kept(&app, 1).await;
    eventually("the topic's id", PATIENCE, async || topic_id(&app).await).await;
    tokio::task::block_in_place(|| app.stop());

    // Everything that was published is gone; three events are to be sent yet; and other records
    // have taken the offsets that were used before, and more.
    delete(&app.topic).await;
    eventually("it is gone", PATIENCE, async || (!is_there(&app.topic).await).then_some(())).await;
    let client = client().await;
    let controller = client.controller_client().unwrap();
    eventually("it is recreated", PATIENCE, async || {
        controller.create_topic(&app.topic, PARTITIONS, 1, 30_000).await.ok()
    })
    .await;
    let pending = "update outbox_batches set processed_at = null, published = false \
                   where id in (select max(id) from outbox group by aggregate_id) returning id";
    let pending: Vec<i64> = sqlx::query_scalar(pending).fetch_all(&app.pool).await.unwrap();
    assert_eq!(pending.len(), 3);
    let foreign = poison + 20;
    let records = |n: i64| record(Some(b"x"), Some(format!("of the new topic {n}").as_bytes()));
    eventually("its leaders are there", PATIENCE, async || {
        let reader = client.partition_client(
            &app.topic,
            4,
            rskafka::client::partition::UnknownTopicHandling::Error,
        );
        reader.await.ok().map(drop)
    })
    .await;
    produce(&app.topic, 4, (0..foreign).map(records).collect()).await;

    app.spawn();
    app.ready().await;
    for wallet in &wallets {
        let path = format!("/wallets/{wallet}/credit");
        assert_eq!(app.post(&path, serde_json::json!({"amount": "1.00"})).await.status, 201);
    }
    assert_whole(&app).await;
    // All of the new topic was read, at the offsets of the old one too: where there was a dead
    // letter before, there are two now.
    wire::kept(&app, foreign + 1).await;
    let twice: i64 = sqlx::query_scalar("select count(*) from dead_letters where \"offset\" = $1")
        .bind(poison)
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(twice, 2);
    assert!(app.log_text().contains("was recreated"), "it is reported");
    read_to_the_end(&app).await;
    // The publisher took none of the foreign records for its own.
    let found: BTreeSet<(String, i64)> = wire::read(&app.topic)
        .await
        .into_iter()
        .filter_map(|(_, _, record)| {
            let value: serde_json::Value = serde_json::from_slice(&record.value?).ok()?;
            let wallet = value["aggregateId"].as_str()?.to_owned();
            Some((wallet, value["aggregateVersion"].as_i64()?))
        })
        .collect();
    let wanted: BTreeSet<(String, i64)> =
        wallets.iter().flat_map(|wallet| [(wallet.clone(), 3), (wallet.clone(), 4)]).collect();
    assert_eq!(found, wanted, "what waited and what came since");
    tokio::time::timeout(Duration::from_secs(30), async { app.assert_reconciled() }).await.unwrap();
}
