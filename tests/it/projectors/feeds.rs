//! Both feeds: every event in effect once, whatever the feed loses, repeats, garbles or delays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio_util::sync::CancellationToken;
use wallex::kafka::{Connection, Fetched, SharedTopic};
use wallex::projector::apply::apply;
use wallex::projector::chunk::{Chunk, Feed};
use wallex::projector::{OpenPartition, Projection};

use crate::dead_letters::wire;
use crate::support::app::Setup;
use crate::support::servers;

use super::books::{
    Books, Follower, PARTITIONS, TOPIC, Topic, catch_up, create, credit, id, partition,
    some_history, transfer,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_is_settled_without_kafka_once_both_projections_have_applied() {
    let mut books = Books::open().await;
    let events = books.write(&some_history()).await;
    let mut ledger = books.projector(Projection::LEDGER, 500, None);
    let outcome = catch_up(&mut ledger).await;
    assert_eq!((outcome.applied, outcome.duplicates, outcome.healed), (events, 0, 0));
    assert_eq!(books.count("select count(*) from outbox where processed_at is not null").await, 0);
    assert_eq!(books.project(Projection::READ_MODEL).await.applied, events);
    catch_up(&mut ledger).await;
    let open = "select count(*) from outbox where processed_at is null or published";
    assert_eq!(books.count(open).await, 0);
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_commit_is_met_later_and_holds_nothing_up() {
    let mut books = Books::open().await;
    books.write(&[create("a", "USD", Some("5")), create("b", "USD", Some("5"))]).await;
    let mut ledger = books.projector(Projection::LEDGER, 2, None);
    assert_eq!(catch_up(&mut ledger).await.applied, 4);
    let mut late = books.pool.clone().begin().await.unwrap();
    books.write_in(&mut late, &[credit("a", "1")]).await;
    for _ in 0..9 {
        books.write(&[credit("b", "1")]).await;
    }
    assert_eq!(catch_up(&mut ledger).await.applied, 9);
    late.commit().await.unwrap();
    assert_eq!(catch_up(&mut ledger).await.applied, 1);
    books.project(Projection::READ_MODEL).await;
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_records_change_nothing_and_lost_ones_are_read_from_events() {
    let mut books = Books::open().await;
    let topic = Topic::new();
    let events = books.write(&some_history()).await;
    books.publish(&topic);
    assert_eq!(books.follow(Projection::LEDGER, &topic, 500).await.applied, events);
    assert_eq!(books.follow(Projection::READ_MODEL, &topic, 3).await.applied, events);
    books.assert_clean().await;
    topic.repeat();
    let again = books.follow(Projection::LEDGER, &topic, 500).await;
    assert_eq!((again.applied, again.duplicates), (0, events));
    books.write(&[credit("w3", "1"), credit("w3", "2")]).await;
    books.unpublished.clear();
    books.write(&[credit("w3", "3")]).await;
    books.publish(&topic);
    let gap = books.follow(Projection::LEDGER, &topic, 500).await;
    assert_eq!((gap.applied, gap.healed, gap.duplicates), (3, 2, 0));
    books.follow(Projection::READ_MODEL, &topic, 500).await;
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_feeds_move_their_places_of_one_partition_in_one_round() {
    let mut books = Books::open().await;
    let topic = Topic::new();
    books.write(&[create("w", "USD", Some("5"))]).await;
    let here = partition(&id("w"));
    books.publish(&topic);
    let follower = Follower::open(books.pool.clone(), Projection::LEDGER, topic.clone(), 500).await;
    let records = topic.read(here, 0, 500).into_iter().map(Arc::new).collect::<Vec<_>>();
    let next = i64::try_from(records.len()).unwrap();
    let fetched = Chunk::of_records(here, 0, records);
    let walked = Chunk {
        feed: Feed::Postgres,
        partition: here,
        expected: 0,
        next: 7,
        records: Vec::new(),
        dead: Vec::new(),
        server: None,
        foreign: None,
    };
    let mut connection = books.pool.acquire().await.unwrap();
    let outcome = apply(&mut connection, &follower.job, &mut [fetched, walked]).await.unwrap();
    assert!(outcome.stale.is_empty() && outcome.applied > 0, "{outcome:?}");
    let places: (i64, i64) = sqlx::query_as(
        "select next_offset, feed_xid::text::bigint from projector_checkpoints \
         where projector = $1 and partition = $2",
    )
    .bind(Projection::LEDGER.name())
    .bind(here)
    .fetch_one(&books.pool)
    .await
    .unwrap();
    assert_eq!(places, (next, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_of_ours_becomes_a_dead_letter_and_the_partition_goes_on() {
    let mut books = Books::open().await;
    let topic = Topic::new();
    books.write(&[create("w", "USD", Some("5"))]).await;
    let here = partition(&id("w"));
    let real = books.unpublished.last().unwrap().1.clone();
    books.publish(&topic);
    let garbage = |value: Option<&[u8]>| Fetched {
        offset: 0,
        key: Some(vec![0xff]),
        value: value.map(<[u8]>::to_vec),
        headers: BTreeMap::from([("h".to_owned(), b"a\0b\xff".to_vec())]),
        timestamp: Utc::now(),
    };
    topic.push(here, garbage(Some(b"{")));
    topic.push(here, garbage(Some(b"\xff\xfe\0")));
    topic.push(here, garbage(None));
    topic.push((here + 1) % PARTITIONS, real.clone());
    let text = String::from_utf8(real.value.clone().unwrap()).unwrap();
    let unknown = text.replace("\"aggregateVersion\":2", "\"aggregateVersion\":900");
    topic.push(here, Fetched { value: Some(unknown.into_bytes()), ..real });
    books.write(&[credit("w", "3")]).await;
    books.publish(&topic);
    let outcome = books.follow(Projection::LEDGER, &topic, 500).await;
    assert_eq!((outcome.applied, outcome.healed, outcome.dead_letters), (3, 0, 5));
    let classes: Vec<(String, i64)> =
        sqlx::query_as("select error_class, count(*) from dead_letters group by 1 order by 1")
            .fetch_all(&books.pool)
            .await
            .unwrap();
    let classes: Vec<_> = classes.iter().map(|(class, count)| (class.as_str(), *count)).collect();
    assert_eq!(
        classes,
        [("empty_value", 1), ("invalid_utf8", 1), ("undecodable", 1), ("unknown_event", 2)]
    );
    // Met again, they are the same dead letters.
    sqlx::query("update projector_checkpoints set next_offset = 0")
        .execute(&books.pool)
        .await
        .unwrap();
    let again = books.follow(Projection::LEDGER, &topic, 500).await;
    assert_eq!((again.applied, again.dead_letters, again.duplicates), (0, 0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_owners_of_the_same_partitions_have_one_effect() {
    let mut books = Books::open().await;
    let topic = Topic::new();
    books.write(&some_history()).await;
    books.publish(&topic);
    let token = CancellationToken::new();
    let mut tasks = Vec::new();
    for kind in Projection::ALL {
        tasks.push(tokio::spawn(books.projector(kind, 500, None).run(token.clone())));
        for _ in 0..2 {
            let (pool, topic, token) = (books.pool.clone(), topic.clone(), token.clone());
            tasks.push(tokio::spawn(async move {
                let mut follower = Follower::open(pool, kind, topic, 4).await;
                while !token.is_cancelled() {
                    if follower.step().await.is_none() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }));
        }
    }
    for round in 0..30 {
        let command = |i: usize| match (i + round) % 3 {
            0 => transfer(&format!("w{i}"), &format!("w{}", (i + 1) % 20), "0.10"),
            _ => credit(&format!("w{i}"), "0.01"),
        };
        books.write(&(0..20).map(command).collect::<Vec<_>>()).await;
        books.publish(&topic);
    }
    let begun = Instant::now();
    loop {
        let report = books.report().await;
        assert!(report.is_clean(), "{report:#?}");
        if report.lag.iter().all(|lag| lag.events == 0) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", report.lag);
    }
    token.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    books.assert_clean().await;
    assert_eq!(books.count("select count(*) from parked_wallets").await, 0);
    assert_eq!(books.count("select count(*) from dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_whose_event_cannot_be_applied_is_parked_and_the_others_flow() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    for sql in [
        "update events set payload = '{\"nonsense\":1}' where wallet_id = 'w1' and version = 3",
        // Only a check of the table finds this one.
        "update events set payload = jsonb_set(payload::jsonb, '{changeAmount}', '\"0\"')::json \
         where wallet_id = 'w2' and version = 4",
        "delete from events where wallet_id = 'w4' and version = 2",
    ] {
        sqlx::query(sql).execute(&books.pool).await.unwrap();
    }
    let mut ledger = books.projector(Projection::LEDGER, 500, None);
    catch_up(&mut ledger).await;
    books.project(Projection::READ_MODEL).await;
    let parked = books.report().await.parked;
    let found: Vec<_> = parked
        .iter()
        .map(|parked| (parked.projector.as_str(), parked.wallet_id.as_str(), parked.version))
        .collect();
    let (ledger_name, model_name) = (Projection::LEDGER.name(), Projection::READ_MODEL.name());
    let expected = [
        (ledger_name, "w1", 3),
        (ledger_name, "w2", 4),
        (ledger_name, "w4", 2),
        (model_name, "w1", 3),
        (model_name, "w4", 2),
    ];
    assert_eq!(found, expected);
    assert!(parked.iter().all(|parked| !parked.cause.is_empty() && parked.events > 0));
    let versions: Vec<i64> = sqlx::query_scalar(
        "select version from projected_versions where projector = $1 \
         and wallet_id in ('w1', 'w2', 'w3', 'w4') order by wallet_id",
    )
    .bind(ledger_name)
    .fetch_all(&books.pool)
    .await
    .unwrap();
    assert_eq!(versions, [2, 3, 5, 1]);
    books.write(&[credit("w5", "1"), credit("w1", "1")]).await;
    assert_eq!(catch_up(&mut ledger).await.applied, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_longer_than_a_transaction_is_healed_in_several() {
    let mut books = Books::open().await;
    let topic = Topic::new();
    let mut commands = vec![create("big", "USD", None)];
    commands.extend((0..7000).map(|_| credit("big", "0.01")));
    for batch in commands.chunks(1000) {
        books.write(batch).await;
    }
    books.unpublished.clear();
    books.write(&[credit("big", "1")]).await;
    books.publish(&topic);
    let outcome = books.follow(Projection::LEDGER, &topic, 500).await;
    assert_eq!((outcome.applied, outcome.healed, outcome.duplicates), (7002, 7001, 0));
    books.project(Projection::READ_MODEL).await;
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_at_one_place_share_one_answer_and_others_have_their_own() {
    let app = Setup::shared().start().await;
    app.open("w", "10.00").await;
    app.drain().await;
    let (mut settings, _) =
        wallex::config::load_from(&std::collections::HashMap::new(), &BTreeMap::new()).unwrap();
    settings.kafka.brokers = vec![servers::kafka().bootstrap.clone()];
    let topic = SharedTopic::new(Connection::new(&settings.kafka), &app.topic);
    let send = || wire::produce(&app.topic, 0, vec![wire::record(None, Some(b"{"))]);
    let before = send().await;
    let wait = Duration::from_secs(20);
    let (one, two, behind) = (topic.reader(0), topic.reader(0), topic.reader(0));
    // Both wait for a record that is yet to come.
    let waiting =
        async { tokio::join!(one.fetch(before + 1, 1, wait), two.fetch(before + 1, 1, wait)) };
    let ((first, second), sent) = tokio::join!(waiting, send());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((sent, first.records[0].offset), (before + 1, before + 1));
    assert!(Arc::ptr_eq(&first.records[0], &second.records[0]), "two requests");
    let again = behind.fetch(before + 1, 1, wait).await.unwrap();
    assert!(Arc::ptr_eq(&first.records[0], &again.records[0]), "it was there already");
    let from_before = behind.fetch(before, 1, wait).await.unwrap();
    assert_eq!(from_before.records[0].offset, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_takes_over_two_seconds_after_kafka_fell_silent() {
    let mut books = Books::open().await;
    let (mut settings, _) =
        wallex::config::load_from(&std::collections::HashMap::new(), &BTreeMap::new()).unwrap();
    settings.kafka.brokers = vec!["127.0.0.1:1".to_owned()];
    let connection = Connection::new(&settings.kafka);
    let topic = SharedTopic::new(connection, TOPIC);
    let silent: OpenPartition = Arc::new(move |partition| topic.reader(partition));
    books.write(&some_history()).await;
    let mut ledger = books.projector(Projection::LEDGER, 500, Some(silent));
    assert_eq!(ledger.step().await.unwrap().outcome.applied, 0, "young events are Kafka's");
    let token = CancellationToken::new();
    let task = tokio::spawn(ledger.run(token.clone()));
    let begun = Instant::now();
    while books.report().await.lag.iter().any(|l| l.projector == "ledger-projector" && l.events > 0)
    {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    // Only a publisher may mark them while there is one.
    assert_eq!(books.count("select count(*) from outbox where processed_at is not null").await, 0);
    token.cancel();
    task.await.unwrap();
}
