//! Several instances over one database: they share the partitions fairly, take over from one that
//! stops, dies or freezes, and one that wakes up changes nothing that is another's by now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::support::app::{App, Setup};
use crate::support::checker::{self, Figures};
use crate::support::load::{Load, Plan};
use crate::support::{eventually, servers, topic};
use nix::sys::signal::Signal;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
const ROLES: [&str; 3] = ["ledger-projector", "publisher", "read-model-projector"];

/// By role: how many partitions each owner of a standing lease has.
async fn shares(app: &App) -> BTreeMap<String, BTreeMap<String, i64>> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select role, owner, count(*) from partition_leases \
         where expires_at > clock_timestamp() group by role, owner",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let mut shares: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for (role, owner, count) in rows {
        shares.entry(role).or_default().insert(owner, count);
    }
    shares
}

/// Waits until in each role the partitions lie with owners as `sizes` says, ascending.
async fn shared_as(app: &App, roles: &[&str], sizes: &[i64]) -> Duration {
    let begun = Instant::now();
    eventually(&format!("partitions shared {sizes:?}"), PATIENCE, async || {
        let shares = shares(app).await;
        let fair = |role: &&str| {
            let mut found: Vec<i64> = shares.get(*role)?.values().copied().collect();
            found.sort_unstable();
            (found == sizes).then_some(())
        };
        roles.iter().all(|role| fair(role).is_some()).then_some(())
    })
    .await;
    begun.elapsed()
}

async fn name(app: &App) -> String {
    app.get("/health/kafka/stats").await.json()["instance"].as_str().unwrap().to_owned()
}

async fn owners(app: &App) -> BTreeSet<String> {
    shares(app).await.into_values().flat_map(BTreeMap::into_keys).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_the_partitions_and_take_over_from_one_that_stops() {
    let first = Setup::shared().start().await;
    let alone = shared_as(&first, &ROLES, &[10]).await;
    let mut second = first.second_instance().await;
    let joined = shared_as(&first, &ROLES, &[5, 5]).await;
    let third = first.second_instance().await;
    let joined_too = shared_as(&first, &ROLES, &[2, 4, 4]).await;

    // Each instance shows all partitions: its own with the topic's end, the others with their owner.
    let stats = eventually("all partitions with their owners", PATIENCE, async || {
        let stats = first.get("/health/kafka/stats").await.json();
        let partitions =
            stats["groups"][first.group("ledger-projector")]["partitions"].as_array().unwrap();
        assert_eq!(partitions.len(), 10, "{stats}");
        let shown = partitions.iter().all(|partition| {
            let own = partition["owner"] == stats["instance"];
            partition["owner"].is_string() && partition["logEnd"].is_null() != own
        });
        shown.then_some(stats)
    })
    .await;
    let group = &stats["groups"][first.group("ledger-projector")];
    assert!(group["rebalances"].as_i64().unwrap() >= 2, "{group}");
    assert_eq!(stats["status"], "healthy", "a partition that another has is no failure");

    let gone = name(&second).await;
    let begun = Instant::now();
    assert!(tokio::task::block_in_place(|| second.stop()).success());
    assert!(!owners(&first).await.contains(&gone), "a clean stop leaves nothing behind");
    let stopped = begun.elapsed();
    let left = shared_as(&first, &ROLES, &[5, 5]).await;
    println!(
        "alone {alone:?}, joined {joined:?}, a third {joined_too:?}; \
         stopped {stopped:?}, taken over {left:?}"
    );
    drop(third);
    let taken = shared_as(&first, &ROLES, &[10]).await;
    println!("killed: taken over after {taken:?}, not after the lease");
    let metrics = first.get("/metrics").await.text;
    assert!(metrics.contains("consumer_rebalances_total"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_killed_alone_is_replaced_at_once() {
    let mut app = Setup::shared().with("CONSUMER_SESSION_TIMEOUT_MS", 300_000).start().await;
    shared_as(&app, &ROLES, &[10]).await;
    eventually("its listening session is known", PATIENCE, async || {
        let unknown: i64 =
            sqlx::query_scalar("select count(*) from lease_members where session is null")
                .fetch_one(&app.pool)
                .await
                .unwrap();
        (unknown == 0).then_some(())
    })
    .await;
    let gone = name(&app).await;
    let begun = Instant::now();
    app.restart().await;
    let ready = begun.elapsed();
    eventually("the new one has all", PATIENCE, async || {
        let owners = owners(&app).await;
        (owners.len() == 1 && !owners.contains(&gone)).then_some(())
    })
    .await;
    shared_as(&app, &ROLES, &[10]).await;
    println!("ready after {ready:?}, owner of all after {:?}", begun.elapsed());
    assert!(begun.elapsed() < PATIENCE, "the lease of five minutes was not waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_committed_here_and_published_there_does_not_wait_for_a_poll() {
    // No poll helps within the test.
    let setup = Setup::shared().with("OUTBOX_POLL_INTERVAL_MS", 3_600_000);
    let first = setup.start().await;
    let second = first.second_instance().await;
    shared_as(&first, &ROLES, &[5, 5]).await;
    // Both know of each other, and both listen.
    let listening = async || {
        let listening: i64 =
            sqlx::query_scalar("select count(*) from lease_members where session is not null")
                .fetch_one(&first.pool)
                .await
                .unwrap();
        (listening == 12).then_some(())
    };
    eventually("both listen", PATIENCE, listening).await;
    let begun = Instant::now();
    for number in 0..40 {
        let app = if number % 2 == 0 { &first } else { &second };
        app.open(&format!("w-{number}"), "1.00").await;
    }
    first.drain().await;
    println!("40 wallets over both published and projected after {:?}", begun.elapsed());
    for app in [&first, &second] {
        println!("{}", app.get("/health/kafka/stats").await.json()["outbox"]);
    }
    topic::assert_same(&servers::kafka().bootstrap, &first).await;
}

/// Freezes one of two under load for longer than its lease, and wakes it up.
async fn freeze(first: &App, second: &mut App, roles: &[&str]) -> Figures {
    let plan = Plan { workers: 24, think: Duration::from_millis(5), ..Plan::default() };
    let load = Load::start(&[&first.base], plan).await;
    // Without Kafka it is the first command that makes the topic's partitions known.
    shared_as(first, roles, &[5, 5]).await;
    load.advance(200).await;
    let frozen = name(second).await;
    second.kill(Signal::SIGSTOP);
    let begun = Instant::now();
    let taken = shared_as(first, roles, &[10]).await;
    // All that is published from here on by another is the new owner's.
    load.advance(300).await;
    let epochs = epochs(first, &frozen).await;
    second.kill(Signal::SIGCONT);
    println!("taken over {taken:?} after the freeze, awake again after {:?}", begun.elapsed());
    shared_as(first, roles, &[5, 5]).await;
    load.advance(200).await;
    let journal = load.settle().await;
    let figures = checker::assert_events(&first.pool, &journal.lines()).await;
    first.drain().await;
    assert_eq!(epochs, 0, "the frozen instance has no lease while others do its work");
    let kafka = servers::kafka().bootstrap.clone();
    let topic = match roles.contains(&"publisher") {
        true => topic::assert_same(&kafka, first).await,
        false => Figures::default(),
    };
    topic::assert_projected(first).await;
    first.assert_reconciled();
    println!("{figures:?} {topic:?}");
    topic
}

/// How many standing leases `owner` has.
async fn epochs(app: &App, owner: &str) -> i64 {
    sqlx::query_scalar(
        "select count(*) from partition_leases where owner = $1 and expires_at > clock_timestamp()",
    )
    .bind(owner)
    .fetch_one(&app.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_instance_loses_its_partitions_and_changes_nothing_when_it_wakes() {
    let first = Setup::shared().with("CONSUMER_SESSION_TIMEOUT_MS", 3_000).start().await;
    let mut second = first.second_instance().await;
    let topic = freeze(&first, &mut second, &ROLES).await;
    assert!(topic.duplicates * 100 <= topic.records, "more than 1 % twice: {topic:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_the_projectors_share_and_take_over_all_the_same() {
    let first = Setup::without_kafka().with("CONSUMER_SESSION_TIMEOUT_MS", 3_000).start().await;
    let mut second = first.second_instance().await;
    freeze(&first, &mut second, &["ledger-projector", "read-model-projector"]).await;
}

/// What a publisher that lost its lease writes is refused, whatever it believes.
#[tokio::test(flavor = "multi_thread")]
async fn marks_of_a_former_owner_are_refused() {
    use wallex::store::leases::{self, Leased, Member};
    use wallex::store::outbox::Slot;
    use wallex::store::outbox::marks::{self, Mark};

    let app = Setup::without_kafka().with("PROJECTOR_FEEDS", "kafka").start().await;
    let leased = Leased {
        tenant: "default".to_owned(),
        role: leases::PUBLISHER,
        topic: app.topic.clone(),
        partitions: 4,
    };
    let member = |owner: &str| Member {
        owner: owner.to_owned(),
        session: None,
        lease: Duration::from_secs(60),
    };
    let mut connection = app.pool.acquire().await.unwrap();
    leases::open(&mut connection, &leased).await.unwrap();
    let first = leases::renew(&mut connection, &leased, &member("a")).await.unwrap();
    assert_eq!((first.others, first.share, first.leases.len()), (0, 4, 4));
    let again = leases::renew(&mut connection, &leased, &member("a")).await.unwrap();
    assert_eq!(again, first, "a renewal keeps epochs");

    // One that comes finds nothing free; its share is there once it is given up.
    let second = leases::renew(&mut connection, &leased, &member("b")).await.unwrap();
    assert_eq!((second.others, second.share, second.leases.len()), (1, 2, 0));
    leases::release(&mut connection, &leased, "a", &[1, 3]).await.unwrap();
    let second = leases::renew(&mut connection, &leased, &member("b")).await.unwrap();
    let taken: Vec<(i32, i64)> = second.leases.iter().map(|l| (l.partition, l.epoch)).collect();
    let before = |partition: usize| first.leases[partition].epoch;
    assert_eq!(taken, [(1, before(1) + 1), (3, before(3) + 1)]);

    app.open("w", "1.00").await;
    let slots: Vec<Slot> = sqlx::query_as(
        "select tenant_id, id, part, p as place, cardinality(versions) as events \
         from outbox_batches cross join lateral generate_series(1, cardinality(versions)::bigint) p",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let mark = |partition: i32, epoch: i64| Mark {
        partition,
        epoch,
        last_offset: 9,
        events: slots.clone(),
        refused: Vec::new(),
    };
    let stale = [mark(1, before(1)), mark(3, before(3))];
    assert!(marks::mark(&app.pool, &leased, &stale).await.unwrap().is_empty());
    let published = "select count(*) from outbox where published";
    let count: i64 = sqlx::query_scalar(published).fetch_one(&app.pool).await.unwrap();
    assert_eq!(count, 0, "rows of a former owner");
    let standing = [mark(0, before(0)), mark(1, before(1)), mark(3, before(3) + 1)];
    assert_eq!(marks::mark(&app.pool, &leased, &standing).await.unwrap(), [0, 3]);

    // A clean stop leaves all of it free.
    leases::leave(&mut connection, &leased, "a").await.unwrap();
    let all = leases::renew(&mut connection, &leased, &member("b")).await.unwrap();
    assert_eq!((all.others, all.leases.len()), (0, 4));
    assert_eq!(all.leases[0].last_offset, Some(9), "the place moves with the marks");
}
