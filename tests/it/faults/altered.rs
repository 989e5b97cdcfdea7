//! Books altered by hand are found, each alteration by name; and the application's own role cannot
//! alter them at all.

use sqlx::{Executor as _, PgPool};

use super::close;
use crate::support::app::Setup;
use crate::support::checker;
use crate::support::journal::{Answer, Line, Verdict};
use crate::support::load::{Load, Plan};

/// Tables that are put back after each alteration.
const TABLES: [&str; 4] = ["wallets", "events", "postings", "wallets_read_model"];

/// The event of a credit in the middle of a wallet's history.
const ENTRY: &str = "(select event_id from events e where event_type = 'WalletCredited' \
                     and version > 2 and exists (select from events l where \
                     l.wallet_id = e.wallet_id and l.version > e.version) \
                     order by event_id limit 1)";

/// What is done to the books, and what the output must say of it.
fn alterations() -> Vec<(&'static str, String, &'static [&'static str])> {
    let entry = |change: &str| format!("update postings set {change} where event_id = {ENTRY}");
    let wallet = "(select wallet_id from events where version = 3 order by event_id limit 1)";
    vec![
        (
            "a posting's amount",
            entry("amount = amount + 0.01"),
            &[
                "✗ every event has exactly its entries",
                "✗ every balance is the sum of its entries",
                "is not its event",
            ],
        ),
        (
            "a posting's side",
            entry("side = 'DEBIT'"),
            &["✗ every event has exactly its entries", "✗ every balance is the sum of its entries"],
        ),
        (
            "a posting's balance",
            entry("balance_after = balance_after + 1"),
            &["✗ every event has exactly its entries", "is not its event"],
        ),
        (
            "a posting's counter account",
            entry("counter_account = 'elsewhere'"),
            &["✗ every event has exactly its entries", "leg 1"],
        ),
        (
            "a posting taken away",
            format!("delete from postings where event_id = {ENTRY}"),
            &["✗ every event has exactly its entries", "leg 0 is missing", "leg 1 is missing"],
        ),
        (
            "a posting added",
            format!(
                "insert into postings select (jsonb_populate_record(p, jsonb_build_object( \
                 'event_id', gen_random_uuid(), 'id', gen_random_uuid(), 'pair', 1))).* \
                 from postings p where event_id = {ENTRY}"
            ),
            &["✗ every event has exactly its entries", "no applied event asks for it"],
        ),
        (
            "a wallet's balance",
            format!("update wallets set balance = balance + 1 where id = {wallet}"),
            &["✗ every wallet is what its events left"],
        ),
        (
            "a balance in the read model",
            format!("update wallets_read_model set balance = balance + 1 where id = {wallet}"),
            &["✗ the read model is what its events left"],
        ),
        (
            "an event's payload",
            format!(
                "update events set payload = jsonb_set(payload::jsonb, '{{changeAmount}}', \
                 '\"9999.99\"')::json where event_id = {ENTRY}"
            ),
            &["✗ every event begins where the one before it ended"],
        ),
        (
            "an event taken away",
            format!("delete from events where event_id = {ENTRY}"),
            &["✗ versions of every wallet are 1..n without a gap"],
        ),
    ]
}

async fn run(pool: &PgPool, statement: &str) -> u64 {
    pool.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.unwrap().rows_affected()
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_names_whatever_was_altered_by_hand() {
    let mut app = Setup::without_kafka().start().await;
    let load = Load::start(&[&app.base], Plan { wallets: 8, ..Plan::default() }).await;
    load.advance(200).await;
    let journal = load.settle().await;
    close(&app, &journal).await;
    tokio::task::block_in_place(|| app.stop());
    for table in TABLES {
        run(&app.pool, &format!("create table kept_{table} as table {table}")).await;
    }
    for (name, statement, wanted) in alterations() {
        assert!(run(&app.pool, &statement).await > 0, "{name}");
        let output = app.wallex(&["reconcile"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        for words in wanted {
            assert!(said.contains(words), "{name} is not told as {words:?}: {said}");
        }
        for table in TABLES {
            run(&app.pool, &format!("truncate {table}")).await;
            run(&app.pool, &format!("insert into {table} table kept_{table}")).await;
        }
        let output = app.wallex(&["reconcile"]);
        assert!(output.status.success(), "put back after {name}");
    }
}

/// The check that all fault tests end with would see what it is there to see.
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_contradicts_books_that_lost_doubled_or_changed_an_operation() {
    let app = Setup::without_kafka().start().await;
    let load = Load::start(&[&app.base], Plan { wallets: 8, ..Plan::default() }).await;
    load.advance(200).await;
    let journal = load.settle().await;
    close(&app, &journal).await;
    let ops = journal.lines();
    let last = "(select max(event_id::text)::uuid from events where event_type = 'WalletCredited')";
    let again = "insert into events select (jsonb_populate_record(e, jsonb_build_object( \
         'event_id', gen_random_uuid(), 'version', 1 + (select max(version) from events m \
         where m.wallet_id = e.wallet_id)))).* from events e where event_id = ";
    let cases = [
        ("acknowledged-is-there", format!("delete from events where event_id = {last}")),
        ("one-effect-per-key", format!("{again}{last}")),
        (
            "effects-are-as-asked",
            format!(
                "update events set payload = jsonb_set(payload::jsonb, '{{changeAmount}}', \
                 '\"9999.99\"')::json where event_id = {last}"
            ),
        ),
        ("wallet-totals-are-asked", "update wallets set balance = balance + 1".to_owned()),
        (
            "keys-are-effects",
            "update idempotency_keys set transaction_id = gen_random_uuid()".to_owned(),
        ),
    ];
    run(&app.pool, "create table kept_events as table events").await;
    for (wanted, statement) in cases {
        assert!(run(&app.pool, &statement).await > 0);
        let (_, found) = checker::check_events(&app.pool, &ops).await;
        assert!(found.red.contains_key(wanted), "{wanted} {found:?}");
        run(&app.pool, "truncate events").await;
        run(&app.pool, "insert into events table kept_events").await;
    }
    // An operation that the service denies although it was done, and one done although refused.
    let done = ops.iter().position(|line| {
        matches!(line, Line::Answer(told) if told.verdict == Verdict::Done && !told.replayed)
    });
    let (mut denied, done) = (ops.clone(), done.unwrap());
    let Line::Answer(told) = &mut denied[done] else { unreachable!() };
    let not_done = Answer { verdict: Verdict::NotDone, at: told.begun, ..told.clone() };
    told.replayed = true;
    denied.insert(done, Line::Answer(not_done));
    let mut refused = ops.clone();
    let Line::Answer(told) = &mut refused[done] else { unreachable!() };
    told.verdict = Verdict::Refused;
    for (wanted, lines) in [("not-done-was-not-done", denied), ("refused-left-nothing", refused)] {
        let (_, found) = checker::check_events(&app.pool, &lines).await;
        assert!(found.red.contains_key(wanted), "{wanted} {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_s_role_cannot_alter_events_or_entries() {
    let app = Setup::without_kafka().start().await;
    app.open("w-1", "10.00").await;
    app.drain().await;
    let mut connection = app.pool.acquire().await.unwrap();
    connection.execute("set role wallex_app").await.unwrap();
    for table in ["events", "postings"] {
        let changes = [
            format!("update {table} set version = version"),
            format!("delete from {table}"),
            format!("truncate {table}"),
            format!("drop table {table}"),
            format!("alter table {table} add column more text"),
        ];
        for change in changes {
            let refused = connection.execute(sqlx::AssertSqlSafe(change.clone())).await;
            let error = refused.expect_err(&change);
            let code = error.as_database_error().and_then(|error| error.code().map(String::from));
            assert_eq!(code.as_deref(), Some("42501"), "{change}: {error}");
        }
    }
    connection.execute("reset role").await.unwrap();
    // The service does work as that role: what is taken from it, the service cannot do.
    connection.execute("revoke insert on events from wallex_app").await.unwrap();
    let credit = app.post("/wallets/w-1/credit", serde_json::json!({"amount": "1.00"})).await;
    assert_eq!(credit.status, 500, "{}", credit.text);
}
