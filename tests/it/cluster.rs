//! A cluster of three brokers under load, three replicas of which two must be in sync: a leader is
//! killed, all partitions are moved, a broker is gone for good. No command notices, no event is
//! lost, the order stays, and how long the events stood still is printed.
//!
//! Three to five minutes on two cores: `scripts/test --full` runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::block_in_place;
use wallex::cli::dev::broker::Broker;

use crate::faults::{close, failures};
use crate::support::app::{App, Setup};
use crate::support::journal::slowest;
use crate::support::load::{Load, Plan};
use crate::support::{eventually, servers, topic};

const PATIENCE: Duration = Duration::from_secs(90);
const PARTITIONS: usize = 10;
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "three more brokers, three to five minutes: scripts/test --full"]
async fn a_leader_killed_all_partitions_moved_and_a_broker_gone_for_good_lose_nothing() {
    let mut nodes = block_in_place(servers::own_cluster);
    let brokers: Vec<&str> = nodes.iter().map(|node| node.bootstrap.as_str()).collect();
    let app = Setup::on(servers::postgres(), Some(&nodes[0]))
        .with("KAFKA_BROKERS", brokers.join(","))
        .with("DEFAULT_REPLICATION_FACTOR", 3)
        .start()
        .await;
    // Less than two cores and three brokers can take: what waits, waits for a broker.
    let think = Duration::from_millis(150);
    let load = Load::start(&[&app.base], Plan { think, ..Plan::default() }).await;
    load.advance(200).await;
    await_replicas(&app, &[1, 2, 3], 0).await;
    let mut steps = Vec::new();

    for _ in 0..3 {
        let (dead, step) = kill_the_leader(&app, &nodes).await;
        steps.push(step);
        await_replicas(&app, &others(dead), PARTITIONS).await;
        load.advance(500).await;
        steps.push(Step::begin(&app, format!("broker {dead} started again")).await);
        block_in_place(|| node(&mut nodes, dead).restart()).unwrap();
        await_replicas(&app, &[1, 2, 3], 0).await;
    }

    let before = leaders(&app, &nodes[0]);
    for assignment in moves(&before) {
        steps.push(Step::begin(&app, "all partitions moved".to_owned()).await);
        block_in_place(|| reassign(&app, &nodes[0], &assignment));
        load.advance(500).await;
    }
    await_replicas(&app, &[1, 2, 3], 0).await;
    let after = leaders(&app, &nodes[0]);
    assert!(before.iter().all(|(n, leader)| after[n] != *leader), "{before:?} {after:?}");

    let (dead, step) = kill_the_leader(&app, &nodes).await;
    steps.push(step);
    await_replicas(&app, &others(dead), PARTITIONS).await;
    for _ in 0..4 {
        load.advance(500).await;
    }

    let journal = load.settle().await;
    let ops = journal.lines();
    assert!(failures(&ops).is_empty(), "{:?}", failures(&ops));
    let slowest = slowest(&ops);
    let figures = close(&app, &journal).await;
    let living = node(&mut nodes, others(dead)[0]).bootstrap.clone();
    let topic = topic::assert_same(&living, &app).await;
    for (number, step) in steps.iter().enumerate() {
        step.print(&app, steps.get(number + 1)).await;
    }
    println!("{figures:?} {topic:?}, the slowest command took {slowest:?}");
    // An orderly shutdown of the last two would wait for each other.
    for id in others(dead) {
        node(&mut nodes, id).kill(Signal::SIGKILL).unwrap();
    }
}

fn node(nodes: &mut [Broker], id: i64) -> &mut Broker {
    &mut nodes[usize::try_from(id - 1).unwrap()]
}

fn others(dead: i64) -> Vec<i64> {
    (1..=3).filter(|id| *id != dead).collect()
}

/// Kills the broker that leads the most partitions, and waits until each partition publishes again.
async fn kill_the_leader(app: &App, nodes: &[Broker]) -> (i64, Step) {
    // What is written while the tool looks, and waits through the outage, belongs to it.
    let mut step = Step::begin(app, String::new()).await;
    let mut led: BTreeMap<i64, usize> = BTreeMap::new();
    for leader in leaders(app, &nodes[0]).into_values() {
        *led.entry(leader).or_default() += 1;
    }
    let (dead, count) = led.into_iter().max_by_key(|(_, count)| *count).unwrap();
    step.what = format!("broker {dead} killed, leader of {count} partitions");
    nodes[usize::try_from(dead - 1).unwrap()].kill(Signal::SIGKILL).unwrap();
    let killed = database_time(app).await;
    step.all_publish = Some(all_publish(app, killed).await);
    (dead, step)
}

/// Until the last of the partitions has published an event that was written after `since`.
async fn all_publish(app: &App, since: DateTime<Utc>) -> Duration {
    let asked = Instant::now();
    eventually("each partition publishes again", PATIENCE, async || {
        let publishing: i64 = sqlx::query_scalar(
            "select count(distinct partition) from outbox where created_at > $1 and published",
        )
        .bind(since)
        .fetch_one(&app.pool)
        .await
        .ok()?;
        (publishing == PARTITIONS as i64).then_some(())
    })
    .await;
    asked.elapsed()
}

/// Something done to the cluster, and how long events stood still for it.
#[derive(Debug)]
struct Step {
    what: String,
    begun: DateTime<Utc>,
    /// After a kill: until the last of the partitions published an event written since.
    all_publish: Option<Duration>,
}

impl Step {
    async fn begin(app: &App, what: String) -> Self {
        Self { what, begun: database_time(app).await, all_publish: None }
    }

    /// Once all is published: how long the events waited that were written until the next step.
    async fn print(&self, app: &App, next: Option<&Step>) {
        let (longest, stalled): (f64, i64) = sqlx::query_as(
            "select coalesce(max(waited), 0)::float8, \
                    count(distinct partition) filter (where waited > 1) \
             from (select partition, extract(epoch from processed_at - created_at) as waited \
                   from outbox \
                   where created_at >= $1 and created_at < coalesce($2, 'infinity')) as rows",
        )
        .bind(self.begun)
        .bind(next.map(|next| next.begun))
        .fetch_one(&app.pool)
        .await
        .unwrap();
        print!("{}: longest wait {longest:.1} s, more than 1 s in {stalled} of ", self.what);
        print!("{PARTITIONS} partitions");
        match self.all_publish {
            Some(time) => println!(", all publish again after {:.1} s", time.as_secs_f64()),
            None => println!(),
        }
    }
}

async fn database_time(app: &App) -> DateTime<Utc> {
    sqlx::query_scalar("select clock_timestamp()").fetch_one(&app.pool).await.unwrap()
}

/// Waits until the health page shows these brokers, and no other, in reach, and so many partitions
/// of the events' topic with too few replicas in sync, but none without a leader.
async fn await_replicas(app: &App, brokers: &[i64], under_replicated: usize) {
    let what = format!("brokers {brokers:?}, {under_replicated} under-replicated");
    eventually(&what, PATIENCE, async || {
        let answer = app.get("/health/kafka/stats").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let cluster = answer.json()["cluster"].clone();
        let reachable = cluster["brokers"].as_array()?.iter();
        let reachable = reachable.filter(|broker| broker["reachable"] == true);
        let reachable: BTreeSet<i64> = reachable.filter_map(|b| b["id"].as_i64()).collect();
        let topics = cluster["topics"].as_array()?;
        let topic = topics.iter().find(|found| found["name"] == *app.topic)?;
        let as_wanted = reachable == brokers.iter().copied().collect()
            && topic["partitions"] == PARTITIONS
            && topic["underReplicated"] == under_replicated
            && topic["offline"] == 0;
        as_wanted.then_some(())
    })
    .await;
}

/// The leader of each partition of the events' topic, as Kafka's own tool says.
fn leaders(app: &App, via: &Broker) -> BTreeMap<i64, i64> {
    let said = tool(via, TOPICS, &["--describe", "--topic", &app.topic]);
    let number = |line: &str, name: &str| -> Option<i64> {
        line.split_once(name)?.1.split_whitespace().next()?.parse().ok()
    };
    let pairs = said
        .lines()
        .filter_map(|line| Some((number(line, "\tPartition: ")?, number(line, "\tLeader: ")?)));
    let leaders: BTreeMap<i64, i64> = pairs.collect();
    assert_eq!(leaders.len(), PARTITIONS, "{said}");
    leaders
}

/// Two moves of every partition: off its leader, to the other two brokers; then onto all three, the
/// old leader being the last of them. Its copy is thrown away and made anew.
fn moves(leaders: &BTreeMap<i64, i64>) -> [Vec<(i64, Vec<i64>)>; 2] {
    let next = |leader: i64| (0..2).map(move |step| (leader + step) % 3 + 1);
    let off = leaders.iter().map(|(n, leader)| (*n, next(*leader).collect()));
    let back = leaders.iter().map(|(n, leader)| {
        let replicas = next(*leader).chain([*leader]);
        (*n, replicas.collect())
    });
    [off.collect(), back.collect()]
}

/// Moves the partitions with Kafka's own tool, and waits until it says that they are moved.
fn reassign(app: &App, via: &Broker, assignment: &[(i64, Vec<i64>)]) {
    let partitions: Vec<Value> = assignment
        .iter()
        .map(|(n, replicas)| json!({"topic": app.topic, "partition": n, "replicas": replicas}))
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = json!({"version": 1, "partitions": partitions}).to_string();
    std::fs::write(file.path(), text).unwrap();
    let file = file.path().display().to_string();
    tool(via, REASSIGN, &["--reassignment-json-file", &file, "--execute"]);
    let begun = Instant::now();
    loop {
        let said = tool(via, REASSIGN, &["--reassignment-json-file", &file, "--verify"]);
        let done = said.lines().filter(|line| line.ends_with(" is completed.")).count();
        if done == PARTITIONS {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not moved: {said}");
    }
}

fn tool(via: &Broker, class: &str, arguments: &[&str]) -> String {
    let output = block_in_place(|| servers::kafka_tool_on(via, class, arguments));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}
