//! Proof that the checks can fail: the service with one known bug at a time, each under the faults
//! that bring it out, must turn the check of its name red.

use std::time::Duration;

use crate::run::{self, Plan};
use crate::schedule::Kind;

/// A bug of `src/seeded.rs`, the check that must see it, and what brings it out.
struct Case {
    bug: &'static str,
    /// Any of them: which projector was in the middle of its work is chance, and so is whether
    /// an operation that was lost is sent again.
    checks: &'static [&'static str],
    faults: &'static [Kind],
    each: usize,
    instances: usize,
    wallets: u64,
    settings: &'static [(&'static str, &'static str)],
}

impl Case {
    const fn new(
        bug: &'static str,
        checks: &'static [&'static str],
        faults: &'static [Kind],
    ) -> Self {
        Self { bug, checks, faults, each: 1, instances: 2, wallets: 60, settings: &[] }
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
    Case::new("no-row-lock", &["failures-say-what-is-known"], DELAYS).times(3).crowded(2),
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

fn plan(case: &Case) -> Plan {
    let mut settings = vec![("WALLEX_SEEDED_BUG".to_owned(), case.bug.to_owned())];
    settings.extend(
        case.settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    Plan {
        seed: 11,
        lasts: Duration::ZERO,
        kinds: case.faults.to_vec(),
        each: case.each,
        instances: case.instances,
        wallets: case.wallets,
        operations: 400,
        least_unknown: 0,
        settings,
        keep: false,
        rest: Duration::from_secs(10),
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_seeded_bug_turns_a_check_red() {
    let only = std::env::var("WALLEX_CHAOS_BUG").ok();
    let chosen = CASES
        .iter()
        .filter(|case| only.as_ref().is_none_or(|only| only.split(',').any(|bug| bug == case.bug)));
    let (mut caught, mut missed) = (Vec::new(), Vec::new());
    for case in chosen {
        let report = run::run(plan(case)).await;
        let red = report.red();
        let hit = case.checks.iter().any(|check| red.contains(check));
        let wanted = case.checks.join(" or ");
        let line = format!("{}: {wanted} (red: {})", case.bug, red.join(", "));
        println!("{} {line}", if hit { "caught" } else { "MISSED" });
        if !hit {
            println!("{report}");
        }
        if hit { caught.push(line) } else { missed.push(line) }
    }
    let all = caught.len() + missed.len();
    println!("\n{}\nseeded bugs caught: {} of {all}", caught.join("\n"), caught.len());
    assert!(all > 0 && missed.is_empty(), "missed: {}", missed.join("; "));
}
