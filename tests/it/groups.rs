//! The projectors as consumer groups: the official tools list and describe them, and resets are
//! honoured while the service runs. One that falls between a look and a commit is overwritten, which its
//! operator sees in the group: repeated, it is honoured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wallex::config::{Overrides, load_from};
use wallex::kafka::admin::Admin;

use crate::support::app::{App, Setup};
use crate::support::checker;
use crate::support::load::{Load, Plan};
use crate::support::servers::kafka_tool_said;
use crate::support::{eventually, servers, topic};
use nix::sys::signal::Signal;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

/// Runs the official tool for groups.
pub fn tool(arguments: &[&str]) -> String {
    kafka_tool_said(GROUPS, arguments)
}

fn described(app: &App, group: &str) -> BTreeMap<i32, [i64; 3]> {
    described_of(group, &app.topic)
}

/// Partition → current offset, log end and lag, as `--describe` prints them.
pub fn described_of(group: &str, topic: &str) -> BTreeMap<i32, [i64; 3]> {
    let said = tool(&["--describe", "--group", group]);
    let rows = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() >= 6 && row[0] == group && row[1] == topic)
        .map(|row| {
            let number = |at: usize| row[at].parse().unwrap_or(-1);
            (row[2].parse().unwrap(), [number(3), number(4), number(5)])
        })
        .collect()
}

async fn resets(app: &App) -> Vec<(String, i32, i64, i64, bool)> {
    sqlx::query_as(
        "select projector, partition, from_offset, to_offset, honoured \
         from consumer_resets order by id",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap()
}

async fn checkpoints(app: &App, projector: &str) -> Vec<i64> {
    sqlx::query_scalar(
        "select next_offset from projector_checkpoints where projector = $1 order by partition",
    )
    .bind(projector)
    .fetch_all(&app.pool)
    .await
    .unwrap()
}

/// A second client of the group, as the reset tool is one.
async fn stranger() -> Admin {
    let brokers = servers::kafka().bootstrap.clone();
    let variables = [("KAFKA_BROKERS".to_owned(), brokers)].into();
    let (settings, _) = load_from(&variables, &Overrides::new()).unwrap();
    Admin::connect(&settings.kafka).await.unwrap()
}

/// Kafka has the places of Postgres.
async fn mirrored(app: &App, admin: &Admin, projector: &str) {
    let group = app.group(projector);
    eventually("the group's offsets are the projector's places", PATIENCE, async || {
        let offsets = admin.group_offsets(&group, &app.topic).await.ok()?;
        let offsets: Vec<i64> = offsets.into_values().collect();
        let places = checkpoints(app, projector).await;
        (!places.is_empty() && offsets == places).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_tools_show_the_groups_and_reset_them() {
    let app = Setup::shared().start().await;
    for number in 0..30 {
        app.open(&format!("w-{number}"), "1.00").await;
    }
    app.drain().await;
    let admin = stranger().await;
    let listed = tool(&["--list"]);
    for projector in ["ledger-projector", "read-model-projector"] {
        let group = app.group(projector);
        mirrored(&app, &admin, projector).await;
        assert!(listed.lines().any(|line| line == group), "{group}: {listed}");
        let rows = described(&app, &group);
        assert_eq!(rows.len(), 10, "{rows:?}");
        assert!(rows.values().all(|[current, end, lag]| current == end && *lag == 0), "{rows:?}");
        assert_eq!(rows.values().map(|[current, _, _]| current).sum::<i64>(), 60);
    }

    // Everything once more, by the tool, while the service runs.
    let ledger = app.group("ledger-projector");
    let duplicates = async || {
        let stats = app.get("/health/kafka/stats").await.json();
        stats["groups"][&ledger]["duplicates"].as_i64().unwrap()
    };
    let reset = ["--reset-offsets", "--group", &ledger, "--topic", &app.topic, "--execute"];
    let before = duplicates().await;
    let begun = Instant::now();
    tool(&[&reset[..], &["--to-earliest"]].concat());
    let said = begun.elapsed();
    eventually("all 60 records are read again", PATIENCE, async || {
        (duplicates().await >= before + 60).then_some(())
    })
    .await;
    println!("the tool took {said:?}, all was read again after {:?}", begun.elapsed());
    mirrored(&app, &admin, "ledger-projector").await;
    assert_eq!(checkpoints(&app, "ledger-projector").await.iter().sum::<i64>(), 60);

    // To a time, and one partition to an offset.
    let partition = (0..).zip(checkpoints(&app, "ledger-projector").await);
    let (partition, end): (i32, i64) = partition.max_by_key(|(_, end)| *end).unwrap();
    let before = resets(&app).await.len();
    let read_before = duplicates().await;
    tool(&[&reset[..], &["--to-datetime", "2020-01-01T00:00:00.000"]].concat());
    // An offset is honoured where the projector has been: it must be past it again.
    eventually("all is read once more", PATIENCE, async || {
        (duplicates().await >= read_before + 60).then_some(())
    })
    .await;
    mirrored(&app, &admin, "ledger-projector").await;
    let one = format!("{}:{partition}", app.topic);
    let arguments = ["--reset-offsets", "--group", &ledger, "--topic", &one, "--execute"];
    tool(&[&arguments[..], &["--to-offset", "1"]].concat());
    eventually("the offset is honoured", PATIENCE, async || {
        let met = resets(&app).await;
        let last = met.last().unwrap();
        (met.len() == before + 11 && last.1 == partition && last.3 == 1).then_some(())
    })
    .await;
    mirrored(&app, &admin, "ledger-projector").await;

    // The tool lets nobody beyond the end; another client may try.
    admin.commit_offsets(&ledger, &app.topic, &[(partition, end + 7)]).await.unwrap();
    eventually("it is refused", PATIENCE, async || {
        let last = resets(&app).await.pop().unwrap();
        (!last.4 && last.3 == end + 7).then_some(())
    })
    .await;
    mirrored(&app, &admin, "ledger-projector").await;
    let stats = app.get("/health/kafka/stats").await.json();
    let group = &stats["groups"][&ledger];
    assert!(group["lastError"].as_str().unwrap().contains("is refused"), "{group}");
    assert_eq!((group["resets"].as_i64(), group["resetsRefused"].as_i64()), (Some(21), Some(1)));
    assert_eq!(group["offsets"]["watched"], true, "{group}");
    let metrics = app.get("/metrics").await.text;
    let counted = |outcome: &str, count: u32| {
        let line = format!("consumer_resets_total{{group=\"{ledger}\",outcome=\"{outcome}\"}}");
        let found = metrics.lines().find_map(|found| found.strip_prefix(&line));
        assert_eq!(found.map(str::trim), Some(count.to_string().as_str()), "{line}\n{metrics}");
    };
    counted("honoured", 21);
    counted("refused", 1);
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_a_stopped_service_is_honoured_at_its_start_and_a_stop_is_none() {
    let mut app = Setup::shared().start().await;
    app.open("w", "1.00").await;
    app.drain().await;
    let admin = stranger().await;
    mirrored(&app, &admin, "read-model-projector").await;
    for _ in 0..2 {
        assert!(tokio::task::block_in_place(|| app.stop()).success());
        app.spawn();
        app.ready().await;
        app.post("/wallets/w/credit", serde_json::json!({"amount": "1.00"})).await;
        app.drain().await;
        app.restart().await;
    }
    mirrored(&app, &admin, "read-model-projector").await;
    assert_eq!(resets(&app).await, [], "neither a stop nor a kill is a reset");

    app.kill(Signal::SIGKILL);
    let group = app.group("read-model-projector");
    let partition = wallex::envelope::partition_of("w", 10);
    admin.commit_offsets(&group, &app.topic, &[(partition, 1)]).await.unwrap();
    app.spawn();
    app.ready().await;
    eventually("it is honoured", PATIENCE, async || {
        let met = resets(&app).await;
        (met == [("read-model-projector".to_owned(), partition, 4, 1, true)]).then_some(())
    })
    .await;
    eventually("the records are read again", PATIENCE, async || {
        let places = checkpoints(&app, "read-model-projector").await;
        (places.iter().sum::<i64>() == 4).then_some(())
    })
    .await;
    mirrored(&app, &admin, "read-model-projector").await;
    app.assert_reconciled();
}

/// An instance has noted a commit and died; the broker takes it only after those of its successor.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_after_later_ones_is_no_reset() {
    let mut app = Setup::shared().start().await;
    let credit = serde_json::json!({"amount": "1.00"});
    app.open("w", "1.00").await;
    app.drain().await;
    let (admin, group) = (stranger().await, app.group("ledger-projector"));
    let partition = wallex::envelope::partition_of("w", 10);
    let topic = app.topic.clone();
    let set = async |offset: i64| {
        admin.commit_offsets(&group, &topic, &[(partition, offset)]).await.unwrap();
    };
    mirrored(&app, &admin, "ledger-projector").await;
    app.post("/wallets/w/credit", credit.clone()).await;
    app.drain().await;
    mirrored(&app, &admin, "ledger-projector").await;
    app.kill(Signal::SIGKILL);
    // As if its last commit, of 3, were still on its way.
    set(2).await;
    app.spawn();
    app.ready().await;
    app.post("/wallets/w/credit", credit).await;
    app.drain().await;
    mirrored(&app, &admin, "ledger-projector").await;

    set(3).await;
    mirrored(&app, &admin, "ledger-projector").await;
    assert_eq!(resets(&app).await, [], "it is committed over");
    assert_eq!(checkpoints(&app, "ledger-projector").await.iter().sum::<i64>(), 4);

    // An offset that was never sent unanswered is a reset, as ever.
    set(1).await;
    eventually("it is honoured", PATIENCE, async || (resets(&app).await.len() == 1).then_some(()))
        .await;
    mirrored(&app, &admin, "ledger-projector").await;
    app.assert_reconciled();
}

/// Resets of both groups while two instances work under load, and one of them is killed.
#[tokio::test(flavor = "multi_thread")]
async fn every_reset_under_load_is_honoured_or_seen_to_be_overwritten() {
    const ROUNDS: usize = 5;
    let first = Setup::shared().start().await;
    let mut second = Some(first.second_instance().await);
    let plan = Plan { workers: 12, think: Duration::from_millis(5), ..Plan::default() };
    let load = Load::start(&[&first.base], plan).await;
    load.advance(300).await;
    let admin = stranger().await;
    let projectors = ["ledger-projector", "read-model-projector"];
    for projector in projectors {
        mirrored_somewhat(&first, &admin, projector).await;
    }
    let mut wanted: Vec<Asked> = Vec::new();
    let mut repeated = 0;
    for round in 0..ROUNDS {
        let mut asked = Vec::new();
        for number in 0..20 {
            if round == ROUNDS / 2 && number == 10 {
                drop(second.take());
            }
            let (projector, partition) = (projectors[number % 2], (number / 2) as i32);
            let place = checkpoints(&first, projector).await[partition as usize];
            // Within the last records: all that was read again is read within a moment.
            let offset = (place - 1 - (number % 5) as i64).max(0);
            asked.push((projector.to_owned(), partition, offset));
            set(&first, &admin, asked.last().unwrap()).await;
            load.advance(2).await;
        }
        wanted.extend(asked.clone());
        for reset in &asked {
            let times = wanted.iter().filter(|wanted| *wanted == reset).count();
            repeated += honoured(&first, &admin, reset, times).await;
        }
    }
    let journal = load.settle().await;
    let figures = checker::assert_events(&first.pool, &journal.lines()).await;
    first.drain().await;
    for projector in projectors {
        mirrored(&first, &admin, projector).await;
    }
    let all = resets(&first).await;
    assert!(all.iter().all(|reset| reset.4), "{all:?}");
    let mut found: Vec<Asked> = all
        .into_iter()
        .map(|(projector, partition, _, to, _)| (projector, partition, to))
        .collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "and nothing else is taken for one");
    assert!(repeated <= ROUNDS * 2, "{repeated} of {} were overwritten", wanted.len());
    let topic = topic::assert_same(&servers::kafka().bootstrap, &first).await;
    first.assert_reconciled();
    println!("{} honoured, {repeated} repeated; {figures:?} {topic:?}", wanted.len());
}

/// Projector, partition and offset.
type Asked = (String, i32, i64);

async fn set(app: &App, admin: &Admin, (projector, partition, offset): &Asked) {
    let offsets = [(*partition, *offset)];
    let done = admin.commit_offsets(&app.group(projector), &app.topic, &offsets).await.unwrap();
    assert_eq!(done.partitions, [*partition]);
}

/// Waits until the reset was honoured for so many times, and repeats it where it was overwritten, as its
/// operator would: how often.
async fn honoured(app: &App, admin: &Admin, reset: &Asked, times: usize) -> usize {
    let (projector, partition, offset) = reset;
    let mut repeated = 0;
    eventually("the reset is honoured", PATIENCE, async || {
        let offsets = admin.group_offsets(&app.group(projector), &app.topic).await.ok()?;
        // Looked at behind that: a reset is noted before anything overwrites it.
        let all = resets(app).await;
        let same = |found: &&(String, i32, i64, i64, bool)| {
            (&found.0, found.1, found.3) == (projector, *partition, *offset)
        };
        if all.iter().filter(same).count() >= times {
            return Some(());
        }
        if offsets.get(partition) != Some(offset) {
            set(app, admin, reset).await;
            repeated += 1;
        }
        None
    })
    .await;
    repeated
}

/// The group has an offset for each partition.
async fn mirrored_somewhat(app: &App, admin: &Admin, projector: &str) {
    let group = app.group(projector);
    eventually("the group has its offsets", PATIENCE, async || {
        let offsets = admin.group_offsets(&group, &app.topic).await.ok()?;
        (offsets.len() == 10).then_some(())
    })
    .await;
}
