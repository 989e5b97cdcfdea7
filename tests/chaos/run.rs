//! One run from its seed to its report: load and faults, then rest, then the checker.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::faults;
use crate::report::Report;
use crate::schedule::{self, Fault, Kind};
use crate::support::checker::{self, Evidence, Findings};
use crate::support::journal::Journal;
use crate::support::load::{self, Load};
use crate::support::within;
use crate::watch;
use crate::world::{TOPIC, World};

/// How a run is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// Faults are drawn for about so long; each kind at least `each` times in any case.
    pub lasts: Duration,
    pub kinds: Vec<Kind>,
    pub instances: usize,
    pub each: usize,
    /// How long each fault goes on; none: as drawn.
    pub each_lasts: Option<Duration>,
    /// The load goes on until so many operations are acknowledged.
    pub operations: usize,
    pub workers: usize,
    pub wallets: u64,
    /// A run that left fewer outcomes unknown has shown too little.
    pub least_unknown: usize,
    /// One operation in so many is of a hold, or takes a transaction back; 0: none.
    pub money: u64,
    /// More settings of the service.
    pub settings: Vec<(String, String)>,
    /// Journal and logs of a run that did not pass stay.
    pub keep: bool,
    /// How long everything may take to come to rest.
    pub rest: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: uuid::Uuid::now_v7().as_u64_pair().1 >> 16,
            lasts: Duration::from_secs(90),
            kinds: Kind::ALL.to_vec(),
            instances: 2,
            each: 1,
            each_lasts: None,
            operations: 0,
            workers: 24,
            wallets: 60,
            least_unknown: 15,
            money: 2,
            settings: Vec::new(),
            keep: true,
            rest: Duration::from_secs(120),
        }
    }
}

impl Plan {
    /// Some operations go without their key, some are sent twice at once, some are read after.
    fn load(&self) -> load::Plan {
        load::Plan {
            seed: self.seed,
            workers: self.workers,
            wallets: self.wallets,
            think: Duration::from_millis(2),
            timeout: Duration::from_secs(30),
            keyless: 10,
            twice: 16,
            read: 8,
            money: self.money,
        }
    }
}

/// Runs the plan.
pub async fn run(plan: Plan) -> Report {
    let begun = Instant::now();
    let schedule: Vec<Fault> =
        schedule::draw(plan.seed, &plan.kinds, plan.each, plan.lasts, plan.instances)
            .into_iter()
            .map(|fault| fault.lasting(plan.each_lasts))
            .collect();
    println!("seed {}: {} faults for {} instances", plan.seed, schedule.len(), plan.instances);
    let mut world = World::start(plan.instances, &plan.settings).await;
    watch::install(&world.pool).await;
    let stop = CancellationToken::new();
    let open = watch::open_transactions(world.pool.clone(), stop.clone());
    let journal = Journal::create(&world.folder.join("journal.jsonl"));
    let bases = world.instances.iter().map(|instance| instance.base.clone()).collect();
    let load = Load::noted_in(journal, bases, plan.load()).await;

    let injected = faults::run(&mut world, &load, &schedule).await;
    within(Duration::from_secs(900), async || {
        (load.acknowledged() >= plan.operations).then_some(())
    })
    .await;
    load.settle().await;
    let mut findings = Findings::default();
    for told in load.again(200).await {
        findings.red("replays-are-equal", format!("not marked as a replay: {told:?}"));
    }
    findings.examined("recovers-by-itself", schedule.len() + 1);
    for what in &injected.stuck {
        findings.red("recovers-by-itself", what.clone());
    }
    let rest = come_to_rest(&world, plan.rest, &mut findings).await;
    left_open(&world.pool, open.load(std::sync::atomic::Ordering::Relaxed), &mut findings).await;
    stop.cancel();
    audit(&world, &mut findings).await;

    let (pool, bootstrap) = (world.pool.clone(), world.kafka.bootstrap.clone());
    let evidence =
        Evidence { journal: &load.journal, pool: &pool, bootstrap: &bootstrap, topic: TOPIC };
    let figures = checker::check(&evidence, &mut findings).await;
    if !plan.kinds.is_empty() && plan.kinds.iter().all(|kind| kind.is_of_kafka()) {
        findings.examined("kafka-fails-no-command", figures.operations);
        let failed = figures.not_done_answers + figures.unknown + figures.unknown_keyless;
        if failed > 0 {
            findings.red("kafka-fails-no-command", format!("{failed} commands had no answer"));
        }
    }
    project_again(&mut world, plan.rest, &mut findings).await;
    let report = Report::new(plan, injected, figures, findings, rest, begun.elapsed());
    if report.keeps() && !report.passed() {
        world.keep();
        println!("journal and logs are kept in {}", world.folder.display());
    }
    report
}

/// How long it took until nothing waited any more.
async fn come_to_rest(world: &World, patience: Duration, findings: &mut Findings) -> Duration {
    let begun = Instant::now();
    let bootstrap = &world.kafka.bootstrap;
    let rested =
        within(patience, async || watch::in_step(&world.pool, bootstrap).await.then_some(()));
    if rested.await.is_none() {
        findings.red("recovers-by-itself", format!("not at rest after {patience:?}"));
    }
    for instance in &world.instances {
        if instance.ready().await.is_none() {
            findings.red("recovers-by-itself", format!("{} is not ready", instance.base));
        }
    }
    begun.elapsed()
}

async fn left_open(pool: &PgPool, seen: usize, findings: &mut Findings) {
    let now = watch::left_open(pool, "2 s").await.unwrap_or(-1);
    if seen > 0 || now != 0 {
        let what = format!("transactions left open: {now} at the end, seen at {seen} looks before");
        findings.red("recovers-by-itself", what);
    }
}

/// What triggers and logs have noted.
async fn audit(world: &World, findings: &mut Findings) {
    let audited =
        ["checkpoints-only-advance", "versions-only-advance", "stale-owner-writes-nothing"];
    for check in audited {
        findings.examined(check, 1);
    }
    for (what, detail) in watch::audit(&world.pool).await {
        let check = checker::CHECKS.iter().find(|(name, _)| *name == what).unwrap().0;
        findings.red(check, detail);
    }
    let deadlocks = world.postgres_log().matches("deadlock detected").count();
    findings.examined("nobody-deadlocks", 1);
    if deadlocks > 0 {
        findings.red("nobody-deadlocks", format!("PostgreSQL found {deadlocks} deadlocks"));
    }
    findings.examined("nothing-panics", world.instances.len());
    for instance in &world.instances {
        let log = instance.log_text();
        for line in log.lines().filter(|line| line.contains("panicked at")) {
            findings.red("nothing-panics", line.to_owned());
        }
    }
}

/// With the instances stopped, all checkpoints go back to zero; one instance projects again.
async fn project_again(world: &mut World, patience: Duration, findings: &mut Findings) {
    let before = digest(&world.pool).await;
    for instance in &mut world.instances {
        instance.signal(nix::sys::signal::Signal::SIGTERM);
    }
    let back = "update projector_checkpoints set next_offset = 0, feed_xid = '0'";
    // The audit is over: what goes back now is meant to.
    sqlx::query("drop trigger chaos_checkpoint on projector_checkpoints")
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query(back).execute(&world.pool).await.unwrap();
    world.instances[0].spawn();
    let bootstrap = &world.kafka.bootstrap;
    let rested =
        within(patience, async || watch::in_step(&world.pool, bootstrap).await.then_some(()));
    findings.examined("replay-changes-nothing", 1);
    if rested.await.is_none() {
        findings.red("replay-changes-nothing", "did not come to an end".to_owned());
    }
    let after = digest(&world.pool).await;
    if before != after {
        findings.red("replay-changes-nothing", format!("{before:?} became {after:?}"));
    }
}

/// Ledger and read model, hashed over all their columns.
async fn digest(pool: &PgPool) -> (String, String) {
    sqlx::query_as(
        "select coalesce((select md5(string_agg(l::text, ';' order by tenant_id, event_id, leg)) \
             from ledger_entries l), ''), \
         coalesce((select md5(string_agg(r::text, ';' order by tenant_id, id)) \
             from wallets_read_model r), '')",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Ends the test where the run did not pass.
pub async fn passes(plan: Plan) -> Report {
    let report = run(plan).await;
    println!("{report}");
    if std::env::var_os("WALLEX_CHAOS_JSON").is_some() {
        println!("{}", report.json());
    }
    assert!(report.passed(), "the run is {}", report.verdict());
    report
}
