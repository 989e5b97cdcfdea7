//! Chaos: two instances of the service under load while faults drawn from a seed hit them, their
//! servers and the network between. Every operation is noted on disk before it is sent; afterwards
//! an independent checker holds journal, PostgreSQL and Kafka against each other.
//!
//! `cargo test --test chaos` is a run of about ninety seconds. `scripts/chaos` runs longer ones,
//! chosen faults, a given seed, and the seeded bugs that prove that each check can fail. A run that
//! injected too little is invalid, not passed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::float_arithmetic,
    clippy::large_futures,
    reason = "tests fail by panicking, and speak to whoever runs them"
)]

mod faults;
mod report;
mod run;
mod schedule;
mod seeded;
#[allow(dead_code, reason = "the integration tests use more of it")]
mod support;
mod watch;
mod world;

use std::time::Duration;

use run::Plan;
use schedule::Kind;

/// The run that `scripts/chaos` asks for, or the short one.
fn asked() -> Plan {
    let mut plan = Plan::default();
    if std::env::var("WALLEX_TEST_FULL").is_ok_and(|full| full == "1") {
        (plan.lasts, plan.least_unknown) = (Duration::from_secs(600), 100);
    }
    if let Some(seed) = number("SEED") {
        plan.seed = seed;
    }
    if let Some(seconds) = number("SECONDS") {
        plan.lasts = Duration::from_secs(seconds);
    }
    if let Ok(names) = std::env::var("WALLEX_CHAOS_FAULTS") {
        let kind = |name: &str| Kind::parse(name).unwrap_or_else(|| panic!("no fault {name}"));
        plan.kinds = names.split(',').map(kind).collect();
    }
    if let Some(each) = number("EACH") {
        plan.each = each as usize;
    }
    plan.each_lasts = number("LASTS").map(Duration::from_secs);
    if let Some(operations) = number("OPERATIONS") {
        plan.operations = operations as usize;
    }
    if let Some(workers) = number("WORKERS") {
        plan.workers = workers as usize;
    }
    // All else the service settles by itself: only its own death leaves callers without an answer.
    if !plan.kinds.contains(&Kind::Kill) {
        plan.least_unknown = 0;
    }
    if let Some(least) = number("LEAST_UNKNOWN") {
        plan.least_unknown = least as usize;
    }
    plan
}

fn number(name: &str) -> Option<u64> {
    let name = format!("WALLEX_CHAOS_{name}");
    let text = std::env::var(&name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeded_run_loses_nothing_and_does_nothing_twice() {
    run::passes(asked()).await;
}
