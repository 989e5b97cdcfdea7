//! The instrument: a rate that is called in step is the highest that holds, and statements go by names that
//! last. What it measures with is shown by `scripts/bench --smoke`, which continuous integration runs.

#[path = "../../benches/wallex/statements/names.rs"]
#[allow(dead_code, reason = "the bench prints more of it")]
mod names;
#[path = "../../benches/wallex/search.rs"]
mod search;

use names::{Side, named};
use search::{Search, Trial};

/// Runs a search on something that goes well up to one rate for moments, and up to another for long.
fn found(burst: f64, moments: f64, long: f64) -> (Option<f64>, u32) {
    let (mut search, mut trials) = (Search::below(burst, 7), 0);
    while let Some(trial) = search.next() {
        trials += 1;
        let well = match trial {
            Trial::Hold(rate) if rate <= long => return (Some(rate), trials),
            Trial::Hold(_) => false,
            Trial::Probe(rate) => rate <= moments,
        };
        search.went(trial, well);
    }
    (None, trials)
}

#[test]
fn the_highest_rate_that_holds_is_found_by_few_trials() {
    let (rate, trials) = found(14_000.0, 9_300.0, 9_300.0);
    let rate = rate.unwrap();
    assert!((8_900.0..=9_300.0).contains(&rate), "{rate}");
    assert!(trials <= 8, "{trials}");
}

#[test]
fn a_rate_that_goes_well_for_moments_only_is_not_in_step() {
    let (rate, _) = found(14_000.0, 9_300.0, 8_000.0);
    let rate = rate.unwrap();
    assert!((7_400.0..=8_000.0).contains(&rate), "{rate}");
}

#[test]
fn where_nothing_holds_the_search_ends_without_a_rate() {
    assert_eq!(found(14_000.0, 0.0, 0.0).0, None);
    assert_eq!(found(14_000.0, 9_300.0, 0.0).0, None);
}

#[track_caller]
fn assert_named(text: &str, name: &str, side: Side) {
    assert_eq!(named(text), (name.to_owned(), side), "{text}");
}

#[test]
fn a_statement_is_named_after_what_it_does_to_which_tables() {
    assert_named(
        "with keyed as (insert into idempotency_keys (scope_hash) select k from unnest($1) k), \
         updated as (update wallets w set balance = r.balance from r where w.ctid = r.row), \
         recorded as (insert into events (payload) select p from unnest($2) p), \
         boxed as (insert into outbox (id) select 1) select count(*) from updated",
        "write",
        Side::Commands,
    );
    assert_named(
        "with claimed as (insert into command_batches (id) values ($1) returning $2) \
         select w.* from (select count(*) from claimed) as first cross join lateral \
         (select id from wallets where id = wanted.id for no key update skip locked) w",
        "claim+lock",
        Side::Commands,
    );
    assert_named(
        "select o.id, e.payload::text as payload from unnest($2::integer[]) as wanted(partition) \
         cross join lateral (select id from outbox where processed_at is null) o \
         cross join lateral (select * from events limit 1) e",
        "outbox claim",
        Side::Pipeline,
    );
    assert_named(
        "with placed as (update partition_leases held set last_offset = $1), \
         marked as (update outbox_batches sent set published = true) select 1",
        "outbox mark",
        Side::Pipeline,
    );
    for table in ["projected_versions", "projected_wallets"] {
        let lock =
            format!("select v.version from {table} v where projector = $1 for no key update");
        assert_named(&lock, "versions lock", Side::Pipeline);
    }
}

#[test]
fn an_unknown_statement_is_named_by_its_tables_or_its_first_words() {
    assert_named("INSERT INTO events (a) VALUES ($1)", "insert events", Side::Commands);
    assert_named("update public.jobs set due_at = now()", "update jobs", Side::Other);
    assert_named(
        "with due as materialized (select extract(epoch from j.due_at) from jobs j) \
         select * from due",
        "select jobs",
        Side::Other,
    );
    assert_named("set local synchronous_commit = off", "set", Side::Other);
    assert_named("select pg_notify($1, $2)", "select pg_notify $1 $2", Side::Other);
    assert_named("select id from wallets for update", "lock wallets", Side::Commands);
    assert_named("select id from wallets", "select wallets", Side::Other);
    assert_named("select * from parked_wallets p", "select parked_wallets", Side::Pipeline);
    assert_named(
        "insert into t (a) values ($1) on conflict do update set a = excluded.a",
        "insert t",
        Side::Other,
    );
    assert_named("select /* bench */ 1", "the bench's own questions", Side::Bench);
}
