//! Proof that the checks can fail: the service with one known bug at a time, each under the faults
//! that bring it out, must turn the check of its name red. The bugs are patches beside this file;
//! `scripts/chaos --seeded-bugs` builds a copy of the sources with each.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::run::{self, Plan};
use crate::schedule::Kind;
use crate::world::World;

/// A bug, the check that must see it, and what brings it out.
struct Case {
    bug: &'static str,
    /// Any of them: which projector was in the middle of its work is chance, and so is whether
    /// an operation that was lost is sent again.
    checks: &'static [&'static str],
    faults: &'static [Kind],
    each: usize,
    instances: usize,
    wallets: u64,
    operations: usize,
    settings: &'static [(&'static str, &'static str)],
}

impl Case {
    const fn new(
        bug: &'static str,
        checks: &'static [&'static str],
        faults: &'static [Kind],
    ) -> Self {
        let (each, instances, wallets, operations) = (1, 2, 60, 400);
        Self { bug, checks, faults, each, instances, wallets, operations, settings: &[] }
    }

    const fn times(mut self, each: usize) -> Self {
        self.each = each;
        self
    }

    /// With few wallets everybody meets; with many, few events come behind one that was left out.
    const fn crowded(mut self, wallets: u64) -> Self {
        self.wallets = wallets;
        self
    }

    /// For what takes several misfortunes in a row.
    const fn longer(mut self, operations: usize) -> Self {
        self.operations = operations;
        self
    }

    /// Two sessions lock both their wallets at once or not at all: a deadlock takes a third, for
    /// whose end they wait.
    const fn in_many_lanes(mut self) -> Self {
        self.settings = &[("COMMAND_LANES", "4")];
        self
    }

    const fn alone(mut self) -> Self {
        self.instances = 1;
        self
    }

    /// With the Kafka feed alone: the other one would mend what the first leaves out.
    const fn kafka_feed_only(mut self) -> Self {
        self.settings = &[("PROJECTOR_FEEDS", "kafka")];
        self
    }
}

/// Late answers make transactions long, so that they overlap.
const DELAYS: &[Kind] = &[Kind::PostgresDelay];

const CASES: [Case; 12] = [
    Case::new("no-row-lock", &["failures-say-what-is-known"], DELAYS)
        .times(3)
        .crowded(2)
        .longer(4000),
    Case::new("unsorted-locks", &["nobody-deadlocks"], DELAYS).times(4).crowded(6).in_many_lanes(),
    Case::new("key-after-commit", &["one-effect-per-key"], &[]),
    Case::new("id-above-last", &["topic-is-events"], &[Kind::LateCommit]).times(2).alone(),
    Case::new("rows-skip-locked", &["first-occurrences-ascend"], &[]),
    Case::new("mark-before-produce", &["topic-is-events"], &[Kind::KafkaKill]),
    Case::new("checkpoint-first", &["entries-are-events", "read-model-is-wallets"], &[Kind::Kill])
        .times(3)
        .crowded(600)
        .alone()
        .kafka_feed_only(),
    Case::new("no-version-check", &["versions-only-advance"], &[Kind::Duplicates]).times(2),
    Case::new("no-compare-and-set", &["checkpoints-only-advance"], &[Kind::Freeze]).times(2),
    Case::new(
        "answer-before-commit",
        // What a kill takes is found by the first two; before it, a read may not see it yet.
        &["acknowledged-is-there", "answers-tell-what-happened", "reads-see-acknowledged"],
        &[Kind::Kill],
    )
    .times(3),
    Case::new("float-amounts", &["effects-are-as-asked"], &[]),
    Case::new("no-fencing", &["stale-owner-writes-nothing"], &[Kind::Usurper]).times(2),
];

/// Bugs of the rules of money, for which no fault is needed: random histories that are held against the
/// model of `tests/model` must differ.
const OF_MONEY: [&str; 6] = [
    "capture-after-expiry",
    "captured-beyond-hold",
    "held-forgotten-on-replay",
    "hold-closes-twice",
    "rest-stays-held",
    "suspended-pays",
];
/// Histories that a bug of money must show itself within.
const HISTORIES: &str = "120";

fn plan(case: &Case) -> Plan {
    let setting = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let settings = case.settings.iter().map(setting).collect();
    Plan {
        seed: 11,
        lasts: Duration::ZERO,
        kinds: case.faults.to_vec(),
        each: case.each,
        instances: case.instances,
        wallets: case.wallets,
        operations: case.operations,
        least_unknown: 0,
        money: 0,
        settings,
        keep: false,
        rest: Duration::from_secs(10),
        ..Plan::default()
    }
}

/// Of a build that has the bug of `WALLEX_CHAOS_BUG`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/chaos --seeded-bugs builds the service with a bug, and runs this"]
async fn the_seeded_bug_turns_its_check_red() {
    let bug = std::env::var("WALLEX_CHAOS_BUG").unwrap_or_default();
    if OF_MONEY.contains(&bug.as_str()) {
        return differs_from_the_model(&bug).await;
    }
    let case = CASES.iter().find(|case| case.bug == bug);
    let case = case.unwrap_or_else(|| panic!("{bug:?} is no seeded bug"));
    let report = run::run(plan(case)).await;
    let red = report.red();
    let wanted = case.checks.join(" or ");
    let line = format!("{bug}: {wanted} (red: {})", red.join(", "));
    let hit = case.checks.iter().any(|check| red.contains(check));
    if !hit {
        println!("{report}");
    }
    println!("{} {line}", if hit { "caught" } else { "MISSED" });
    assert!(hit, "missed: {line}");
}

async fn differs_from_the_model(bug: &str) {
    let world = World::start(1, &[]).await;
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model");
    let base = &world.instances[0].base;
    let arguments = ["--url", base, "--histories", HISTORIES, "--workers", "4"];
    let mut python = Command::new("python3");
    let output = python.arg("-B").arg(model).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // A model that cannot be run has seen nothing.
    let last = said.lines().last().unwrap_or_default();
    let hit = !output.status.success() && last.starts_with("differs: ");
    if !hit {
        println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    println!("{} {bug}: the model ({last})", if hit { "caught" } else { "MISSED" });
    assert!(hit, "missed: {bug}");
}

/// The sources have moved on where one does not: it is then made again, with the same bug.
#[test]
fn every_seeded_bug_is_a_patch_that_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut bugs = Vec::new();
    for entry in fs::read_dir(root.join("tests/chaos/seeded")).unwrap() {
        let path = entry.unwrap().path();
        let bug = path.file_stem().unwrap().to_string_lossy().into_owned();
        let arguments = ["apply", "--check", "--recount"];
        let checked = Command::new("git").args(arguments).arg(&path).current_dir(root).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{bug}: {}", String::from_utf8_lossy(&checked.stderr));
        bugs.push(bug);
    }
    bugs.sort();
    let mut cases: Vec<&str> = CASES.iter().map(|case| case.bug).chain(OF_MONEY).collect();
    cases.sort_unstable();
    assert_eq!(bugs, cases, "a patch for each case, a case for each patch");
}
