//! Injecting each fault, healing it, and seeing the service serve again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::schedule::{Fault, Kind};
use crate::support::journal::{Answer, Line, Record, Verdict};
use crate::support::load::{Ask, Load};
use crate::support::proxy::Flow;
use crate::support::{records, within};
use crate::world::{TOPIC, World};

/// After a fault has healed, the service must serve again within this time.
const RECOVERY: Duration = Duration::from_secs(60);
/// Answers of COMMITs that each of these faults loses.
pub const LOST_AT_LEAST: usize = 10;
/// A projector that has records before it and does not move for so long stands.
const STANDS: Duration = Duration::from_secs(20);
const USURPER: &str = "chaos-usurper";

/// What injecting came to.
#[derive(Debug, Default)]
pub struct Injected {
    pub counts: BTreeMap<&'static str, usize>,
    /// From the healing of each fault to the next operation acknowledged by the instance that was
    /// hit, by kind.
    pub recoveries: BTreeMap<&'static str, Vec<Duration>>,
    /// From SIGKILL's restart to ready.
    pub restarts: Vec<Duration>,
    /// From appending poison until both projectors had passed it.
    pub passed: Vec<Duration>,
    pub lost_commits: usize,
    pub injected_records: usize,
    /// What did not recover.
    pub stuck: Vec<String>,
}

/// Injects faults one after the other.
pub async fn run(world: &mut World, load: &Arc<Load>, faults: &[Fault]) -> Injected {
    let mut injected = Injected::default();
    let begun = load.journal.now();
    for (number, fault) in faults.iter().enumerate() {
        tokio::time::sleep(fault.after).await;
        println!("{:>4} {:>7.1} s {fault}", number + 1, seconds(load.journal.now() - begun));
        inject(world, load, fault, &mut injected).await;
        *injected.counts.entry(fault.kind.name()).or_default() += 1;
        let healed = Instant::now();
        let before = load.acknowledged_by(fault.instance);
        let serves = within(RECOVERY, async || {
            (load.acknowledged_by(fault.instance) > before).then_some(())
        });
        match serves.await {
            Some(()) => {
                let times = injected.recoveries.entry(fault.kind.name()).or_default();
                times.push(healed.elapsed());
            }
            None => injected.stuck.push(format!("after fault {} ({fault})", number + 1)),
        }
    }
    injected.lost_commits = world.instances.iter().map(|i| i.postgres.lost()).sum();
    load.journal.note(&Line::Faults { begun, ended: load.journal.now() });
    injected
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

async fn inject(world: &mut World, load: &Arc<Load>, fault: &Fault, injected: &mut Injected) {
    let instance = &mut world.instances[fault.instance];
    match fault.kind {
        Kind::Kill => kill(world, fault, injected).await,
        Kind::Freeze | Kind::Zombie => {
            instance.signal(Signal::SIGSTOP);
            tokio::time::sleep(fault.lasts).await;
            instance.signal(Signal::SIGCONT);
        }
        Kind::PostgresCrash => {
            world.postgres.kill(Signal::SIGQUIT).unwrap();
            tokio::time::sleep(fault.lasts).await;
            tokio::task::block_in_place(|| world.postgres.restart()).unwrap();
        }
        Kind::KafkaKill => {
            world.kafka.kill(Signal::SIGKILL).unwrap();
            tokio::time::sleep(fault.lasts).await;
            tokio::task::block_in_place(|| world.kafka.restart()).unwrap();
        }
        Kind::KafkaFreeze => {
            world.kafka.kill(Signal::SIGSTOP).unwrap();
            tokio::time::sleep(fault.lasts).await;
            world.kafka.kill(Signal::SIGCONT).unwrap();
        }
        Kind::PostgresReset => instance.postgres.cut(),
        Kind::KafkaReset => instance.kafka.cut(),
        Kind::PostgresDelay | Kind::PostgresDrop | Kind::KafkaDelay | Kind::KafkaDrop => {
            let (there, back) = flows(fault);
            let proxy = match fault.kind {
                Kind::PostgresDelay | Kind::PostgresDrop => &instance.postgres,
                _ => &instance.kafka,
            };
            proxy.flow(there, back);
            tokio::time::sleep(fault.lasts).await;
            proxy.flow(Flow::Through, Flow::Through);
        }
        Kind::LostCommit => {
            let before = instance.postgres.lost();
            instance.postgres.lose_commits(2);
            tokio::time::sleep(fault.lasts).await;
            let enough =
                async || (instance.postgres.lost() >= before + LOST_AT_LEAST).then_some(());
            within(Duration::from_secs(30), enough).await;
            instance.postgres.lose_commits(0);
        }
        Kind::LateCommit => late_commit(world, load, fault).await,
        Kind::Usurper => usurp(world, fault).await,
        Kind::Poison => poison(world, load, fault, injected).await,
        Kind::Duplicates => duplicates(world, load, fault, injected).await,
        Kind::RecreatedTopic => recreate(world, load).await,
    }
}

fn flows(fault: &Fault) -> (Flow, Flow) {
    let change = match fault.kind {
        Kind::PostgresDelay | Kind::KafkaDelay => {
            Flow::Late(Duration::from_millis(5 + fault.variant % 45))
        }
        _ => Flow::Silent,
    };
    match fault.variant % 3 {
        0 => (change, Flow::Through),
        1 => (Flow::Through, change),
        _ => (change, change),
    }
}

/// Every second kill waits for a COMMIT whose answer is on its way.
async fn kill(world: &mut World, fault: &Fault, injected: &mut Injected) {
    let instance = &mut world.instances[fault.instance];
    if fault.variant.is_multiple_of(2) {
        let before = instance.postgres.lost();
        instance.postgres.hold_commits(true);
        within(Duration::from_secs(5), async || (instance.postgres.lost() > before).then_some(()))
            .await;
    }
    instance.signal(Signal::SIGKILL);
    instance.postgres.hold_commits(false);
    let begun = Instant::now();
    instance.spawn();
    match instance.ready().await {
        Some(()) => injected.restarts.push(begun.elapsed()),
        None => injected.stuck.push("an instance is not ready after a kill".to_owned()),
    }
}

/// A credit written by hand, as any transaction of the service would: its outbox row is taken
/// early and seen late. Others commit meanwhile.
async fn late_commit(world: &World, load: &Load, fault: &Fault) {
    let wallet = load.wallet(5_000_000 + fault.variant);
    let key = format!("late-{wallet}-{}", load.journal.now());
    let client = reqwest::Client::new();
    let base = &world.instances[fault.instance].base;
    let opening = format!("{key}-opening");
    let note = |key: &str, ask: &Ask| {
        let (at, key, ask) = (load.journal.now(), key.to_owned(), ask.clone());
        load.journal.note(&Line::Ask { at, key, keyed: false, ask });
    };
    let done = |key: &str, begun: u64| {
        Line::Answer(Answer {
            begun,
            at: load.journal.now(),
            key: key.to_owned(),
            verdict: Verdict::Done,
            status: 201,
            code: String::new(),
            retry_after: false,
            replayed: false,
            body: String::new(),
        })
    };
    note(&opening, &Ask::Create { wallet: wallet.clone(), amount: 500 });
    let begun = load.journal.now();
    let body = json!({"walletId": wallet, "ownerId": opening, "initialBalance": "5.00"});
    let created = client.post(format!("{base}/wallets")).json(&body).send().await.unwrap();
    assert_eq!(created.status().as_u16(), 201, "a wallet for the late commit");
    load.journal.note(&done(&opening, begun));
    note(&key, &Ask::Credit { wallet: wallet.clone(), amount: 100 });
    let begun = load.journal.now();
    let mut transaction = world.pool.begin().await.unwrap();
    for statement in LATE {
        let written = sqlx::query(statement)
            .bind(&wallet)
            .bind(&key)
            .execute(&mut *transaction)
            .await
            .unwrap();
        assert_eq!(written.rows_affected(), 1, "{statement}");
    }
    tokio::time::sleep(fault.lasts).await;
    transaction.commit().await.unwrap();
    load.journal.note(&done(&key, begun));
}

/// Wallet, event and outbox row, in the order of the service's own transactions.
const LATE: [&str; 3] = [
    "update wallets set balance = balance + 1, version = version + 1, updated_at = \
         date_trunc('milliseconds', clock_timestamp()) where id = $1 and $2 <> ''",
    "insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, \
         transaction_id, partition, created_at) \
     select w.tenant_id, w.id, w.version, gen_random_uuid(), 'WalletCredited', \
         (e.payload::jsonb || jsonb_build_object('reference', $2, 'transactionId', t.id, \
         'changeAmount', '1.00', 'previousBalance', '5.00', 'newBalance', '6.00'))::json, \
         t.id, e.partition, w.updated_at \
     from wallets w cross join (select gen_random_uuid() as id) t \
     join events e on e.tenant_id = w.tenant_id and e.wallet_id = w.id and e.version = 2 \
     where w.id = $1",
    "insert into outbox_batches (tenant_id, topic, partition, created_at, wallets, versions) \
     select e.tenant_id, o.topic, e.partition, e.created_at, array[e.wallet_id], array[e.version] \
     from events e join outbox o on o.aggregate_id = e.wallet_id and o.event_version = 2 \
     where e.wallet_id = $1 and e.version = 3 and $2 <> ''",
];

/// Takes all leases as another owner would, raising their epochs, and lets go after a while. The
/// audit (see `watch`) notes whoever writes under an epoch that has ended.
async fn usurp(world: &World, fault: &Fault) {
    sqlx::query(TAKE).bind(USURPER).execute(&world.pool).await.unwrap();
    tokio::time::sleep(fault.lasts).await;
    sqlx::query(LEAVE).bind(USURPER).execute(&world.pool).await.unwrap();
}

/// In the order in which every instance locks leases, as the next.
const TAKE: &str = "with held as materialized ( \
         select tenant_id, role, topic, partition from partition_leases \
         order by tenant_id, role, topic, partition for no key update) \
     update partition_leases l set owner = $1, epoch = l.epoch + 1, \
         expires_at = clock_timestamp() + interval '1 min' \
     from held where (l.tenant_id, l.role, l.topic, l.partition) = \
         (held.tenant_id, held.role, held.topic, held.partition)";
const LEAVE: &str = "with held as materialized ( \
         select tenant_id, role, topic, partition from partition_leases where owner = $1 \
         order by tenant_id, role, topic, partition for no key update) \
     update partition_leases l set expires_at = clock_timestamp() \
     from held where (l.tenant_id, l.role, l.topic, l.partition) = \
         (held.tenant_id, held.role, held.topic, held.partition)";

/// Bad UTF-8, bad JSON, an unknown type, a schema of the future, a version far ahead, no value.
async fn poison(world: &World, load: &Load, fault: &Fault, injected: &mut Injected) {
    let wallet = load.wallet(fault.variant % load.plan.wallets);
    let row: (i32, String) = sqlx::query_as(
        "select partition, payload::text from events where wallet_id = $1 and version = 1",
    )
    .bind(&wallet)
    .fetch_one(&world.pool)
    .await
    .unwrap();
    let (partition, payload) = row;
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    let envelope = |kind: &str, schema: i64, version: i64| {
        json!({
            "eventId": uuid::Uuid::now_v7(), "eventType": kind, "aggregateType": "Wallet",
            "aggregateId": wallet, "aggregateVersion": version, "schemaVersion": schema,
            "tenantId": "default", "timestamp": "2026-01-01T00:00:00.000Z",
            "correlationId": null, "causationId": null, "data": payload,
        })
        .to_string()
        .into_bytes()
    };
    let values = [
        Some(b"\xc3\x28\xff".to_vec()),
        Some(b"{\"eventId\":".to_vec()),
        Some(envelope("WalletExploded", 1, 1)),
        Some(envelope("WalletCredited", 2, 1)),
        Some(envelope("WalletCredited", 1, 1_000_000)),
        None,
    ];
    let records = values.map(|value| {
        let key = Some(wallet.clone().into_bytes());
        Record { partition, offset: -1, key, value }
    });
    put(world, load, &records, true, injected).await;
    let begun = Instant::now();
    let end = records::ends(&world.kafka.bootstrap, TOPIC).await[&partition];
    if passes(world, partition, end).await {
        injected.passed.push(begun.elapsed());
    } else {
        injected.stuck.push(standing(world, partition, end).await);
    }
}

/// Waits until both projectors have passed a partition up to `end`, however far they were behind
/// when it was poisoned. False: one of them stands.
async fn passes(world: &World, partition: i32, end: i64) -> bool {
    let mut before = Vec::new();
    loop {
        let moved = within(STANDS, async || {
            let places = places(world, partition, end).await?;
            (places != before).then_some(places)
        });
        match moved.await {
            Some(places) if places.len() == 2 && places.iter().all(|place| *place == end) => {
                return true;
            }
            Some(places) => before = places,
            None => return false,
        }
    }
}

/// What lies behind `end` does not count: it may move for ever.
async fn places(world: &World, partition: i32, end: i64) -> Option<Vec<i64>> {
    let query = "select least(next_offset, $2) from projector_checkpoints \
                 where partition = $1 and topic = $3 order by projector";
    let asking = sqlx::query_scalar(query).bind(partition).bind(end).bind(TOPIC);
    asking.fetch_all(&world.pool).await.ok()
}

/// Where both projectors stand in a partition that is not passed, and who has it.
async fn standing(world: &World, partition: i32, end: i64) -> String {
    let query = "select string_agg(format('%s at %s, moved %s ago, held by %s for %s', projector, \
             next_offset, clock_timestamp() - c.updated_at, owner, \
             expires_at - clock_timestamp()), '; ') \
         from projector_checkpoints c left join partition_leases l \
             on l.role = c.projector and l.topic = c.topic and l.partition = c.partition \
         where c.partition = $1 and c.topic = $2";
    let asking = sqlx::query_scalar::<_, Option<String>>(query).bind(partition).bind(TOPIC);
    let places = asking.fetch_one(&world.pool).await.ok().flatten().unwrap_or_default();
    format!("partition {partition} is not passed up to {end} behind poison: {places}")
}

/// Appends up to thirty records of events once more, oldest first.
async fn duplicates(world: &World, load: &Load, fault: &Fault, injected: &mut Injected) {
    let read = records::read(&world.kafka.bootstrap, TOPIC).await;
    let step = (read.len() / 30).max(1);
    let from = usize::try_from(fault.variant).unwrap() % step;
    // Poison sent again would be another dead letter.
    let events: Vec<String> = sqlx::query_scalar("select event_id::text from events")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    let events: HashSet<String> = events.into_iter().collect();
    let ours = read.into_iter().filter(|record| {
        let value = record.value.as_deref().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
        value["eventId"].as_str().is_some_and(|id| events.contains(id))
    });
    let chosen: Vec<Record> = ours.skip(from).step_by(step).take(30).collect();
    put(world, load, &chosen, false, injected).await;
}

async fn put(
    world: &World,
    load: &Load,
    records: &[Record],
    poison: bool,
    injected: &mut Injected,
) {
    let offsets = records::append(&world.kafka.bootstrap, TOPIC, records).await;
    for (record, offset) in records.iter().zip(offsets) {
        let (partition, value) = (record.partition, record.value.clone());
        load.journal.note(&Line::Injected { partition, offset, poison, value });
        injected.injected_records += 1;
    }
}

/// While nothing is on its way: what the topic held goes into the journal, and the topic goes. Not
/// before the service has seen which topic it was: it could not tell the next one from it.
async fn recreate(world: &World, load: &Load) {
    load.pause().await;
    drained(world).await;
    let known = within(Duration::from_secs(30), async || {
        let id = sqlx::query_scalar::<_, Option<uuid::Uuid>>("select topic_id from topics");
        id.fetch_one(&world.pool).await.ok().flatten()
    });
    known.await.expect("the service notes which topic it publishes to");
    let records = records::read(&world.kafka.bootstrap, TOPIC).await;
    load.journal.note(&Line::Recreated { records });
    crate::watch::topic_recreated(&world.pool).await;
    let before = topic_id(world);
    tokio::task::block_in_place(|| tool(world, &["--delete", "--topic", TOPIC]));
    // The service makes it again by itself, unless the operator who deleted it is quicker.
    let made = within(Duration::from_secs(30), async || {
        let create = ["--create", "--topic", TOPIC, "--partitions", "10"];
        tokio::task::block_in_place(|| tool(world, &create));
        topic_id(world).filter(|id| Some(id) != before.as_ref())
    });
    made.await.expect("the topic is made anew");
    load.resume();
}

/// The id of the events topic, as the official tool shows it.
fn topic_id(world: &World) -> Option<String> {
    let described = tokio::task::block_in_place(|| tool(world, &["--describe", "--topic", TOPIC]));
    let described = String::from_utf8_lossy(&described.stdout).into_owned();
    let (_, rest) = described.split_once("TopicId: ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

fn tool(world: &World, arguments: &[&str]) -> std::process::Output {
    let class = "org.apache.kafka.tools.TopicCommand";
    crate::support::servers::kafka_tool_on(&world.kafka, class, arguments)
}

/// Everything published and read by both projectors.
async fn drained(world: &World) {
    let bootstrap = &world.kafka.bootstrap;
    let drained = within(Duration::from_secs(90), async || {
        crate::watch::in_step(&world.pool, bootstrap).await.then_some(())
    });
    drained.await.expect("the backlog drains before the topic is made anew");
}
