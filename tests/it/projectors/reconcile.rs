//! `reconcile` finds every kind of alteration. Each is made in a transaction of its own database's
//! copy and undone again.

use std::time::Duration;

use sqlx::Executor as _;
use wallex::projector::{LEDGER, Projection, READ_MODEL};
use wallex::store;
use wallex::store::reconcile::{Bounds, Check, Projectors, checked};

use super::books::{Books, create, some_history};

const ALTERATIONS: &[&str] = &[
    "update postings set amount = amount + 0.00000001 where wallet_id = 'w1' and version = 3",
    "update postings set side = case side when 'DEBIT' then 'CREDIT' else 'DEBIT' end where wallet_id = 'w1' and version = 3",
    "update postings set balance_before = balance_before + 1 where wallet_id = 'w1' and version = 3",
    "update postings set balance_after = balance_after + 1 where wallet_id = 'w1' and version = 3",
    "update postings set currency = 'EUR' where wallet_id = 'w1' and version = 3",
    "update postings set wallet_id = 'w99' where wallet_id = 'w1' and version = 3",
    "update postings set version = 99 where wallet_id = 'w1' and version = 3",
    "update postings set pair = 1 where wallet_id = 'w1' and version = 3",
    "update postings set event_id = gen_random_uuid() where wallet_id = 'w1' and version = 3",
    "update postings set transaction_id = gen_random_uuid() where wallet_id = 'w1' and version = 3",
    "update postings set reference_id = 'x' where wallet_id = 'w1' and version = 3",
    "update postings set counter_account = 'elsewhere' where wallet_id = 'w1' and version = 3",
    "update postings set related_wallet_id = 'w3' where wallet_id = 'w1' and version = 3",
    "update postings set description = 'other' where wallet_id = 'w1' and version = 3",
    "update postings set transaction_type = 'DEBIT' where wallet_id = 'w1' and version = 3",
    "update postings set metadata = '{\"k\":\"w\"}' where wallet_id = 'w1' and version = 3",
    "update postings set created_at = created_at + interval '1 us' where wallet_id = 'w1' and version = 3",
    "delete from postings where wallet_id = 'w1' and version = 3",
    "delete from postings where wallet_id = 'w1'",
    "insert into postings select (jsonb_populate_record(p, jsonb_build_object('event_id', gen_random_uuid(), 'version', 99))).* from postings p where wallet_id = 'w1' and version = 3",
    "insert into postings select (jsonb_populate_record(p, '{\"pair\": 1}')).* from postings p where wallet_id = 'w1' and version = 3",
    "update wallets set balance = balance + 0.00000001 where id = 'w1'",
    "update wallets set version = version + 1 where id = 'w1'",
    "update wallets set currency = 'EUR' where id = 'w1'",
    "delete from wallets where id = 'w1'",
    "insert into wallets select tenant_id, 'ghost', owner_id, currency, status, balance, held_balance, overdraft_limit, version, metadata, created_at, updated_at from wallets where id = 'w1'",
    "update wallets_read_model set balance = balance - 0.00000001 where id = 'w1'",
    "update wallets_read_model set version = version - 1 where id = 'w1'",
    "update wallets_read_model set currency = 'EUR' where id = 'w1'",
    "update wallets_read_model set metadata = null where id = 'w1'",
    "delete from wallets_read_model where id = 'w1'",
    "insert into wallets_read_model select tenant_id, 'ghost', owner_id, currency, status, balance, held_balance, overdraft_limit, version, metadata, created_at, updated_at from wallets where id = 'w1'",
    "delete from events where wallet_id = 'w1' and version = 3",
    "delete from events where wallet_id = 'w1' and version = 5",
    "update events set payload = jsonb_set(payload::jsonb, '{newBalance}', '\"7.00\"')::json where wallet_id = 'w1' and version = 3",
    "update events set payload = jsonb_set(payload::jsonb, '{changeAmount}', '\"spoilt\"')::json where wallet_id = 'w1' and version = 3",
    "update events set payload = '{}' where wallet_id = 'w1' and version = 1",
    "delete from projected_wallets where wallet_id = 'w1'",
    "update outbox_batches set wallets = wallets[2:], versions = versions[2:] where cardinality(versions) > 1 and not 'oldest' = any(wallets)",
    "insert into outbox_batches (tenant_id, topic, partition, created_at, wallets, versions) values ('default', 'wallet-events', 1, now(), '{w1}', '{99}')",
    "insert into outbox_batches (tenant_id, topic, partition, created_at, wallets, versions) select tenant_id, topic, partition, created_at, wallets, versions from outbox_batches where id = 3",
    "update outbox_batches set partition = partition + 1 where id = 3",
    "update outbox_batches set created_at = created_at + interval '1 us' where id = 3",
    "update outbox_batches set versions = (select array_agg(v + 1) from unnest(versions) v) where id = 3",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_alteration_is_found() {
    let mut books = Books::open().await;
    // The oldest outbox rows mark how far back they must be complete: what is altered is younger.
    books.write(&[create("oldest", "USD", None)]).await;
    books.write(&some_history()).await;
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    books.assert_clean().await;
    // All is applied, whichever transaction of another database holds the places back.
    let ahead = "update projector_checkpoints set feed_xid = pg_current_xact_id()";
    books.pool.execute(ahead).await.unwrap();
    let mut missed = Vec::new();
    for alteration in ALTERATIONS {
        let mut transaction = books.pool.begin().await.unwrap();
        let altered = transaction.execute(*alteration).await.unwrap().rows_affected();
        assert!(altered > 0, "{alteration}");
        let report = store::reconcile::report(&mut transaction, LEDGER, READ_MODEL).await;
        let report = report.unwrap();
        let found: Vec<_> = report.equations.iter().filter(|e| e.count > 0).collect();
        assert!(found.iter().all(|equation| !equation.findings.is_empty()));
        if found.is_empty() {
            missed.push(*alteration);
        }
        transaction.rollback().await.unwrap();
    }
    assert!(missed.is_empty(), "{missed:#?}");
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_not_projected_yet_are_lag_and_no_failure() {
    let mut books = Books::open().await;
    let events = books.write(&some_history()).await as i64;
    let report = books.report().await;
    assert!(report.is_clean(), "{report:#?}");
    let lag: Vec<_> = report.lag.iter().map(|lag| (lag.wallets, lag.events)).collect();
    assert_eq!(lag, [(21, events), (21, events)]);
}

/// More wallets than are compared in one snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn wallets_are_compared_page_by_page_and_a_check_goes_on_where_it_was() {
    let mut books = Books::open().await;
    let all: Vec<String> = (0..1300).map(|n| format!("w{n:05}")).collect();
    for wallets in all.chunks(100) {
        let opened: Vec<_> =
            wallets.iter().map(|wallet| create(wallet, "USD", Some("2"))).collect();
        books.write(&opened).await;
    }
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    let of = Projectors { ledger: LEDGER, read_model: READ_MODEL };
    let bounds = Bounds { a_question: Duration::from_secs(60), in_all: None };
    let mut pages = Vec::new();
    let pool = books.pool.clone();
    let tell = |check: &Check<'_>| pages.extend(check.place().cloned());
    let report = checked(&pool, of, None, bounds, tell).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.wallets, report.events), (1300, 2600));
    let places: Vec<&str> = pages.iter().map(|place| place.wallet.as_str()).collect();
    assert!(places.contains(&"w00499") && places.contains(&"w00999"), "{places:?}");
    // In the last page, and at a wallet that is only in the ledger.
    for sql in [
        "update postings set counter_account = 'elsewhere' where wallet_id = 'w01299'",
        "update wallets_read_model set version = version + 5 where id = 'w01298'",
        "delete from outbox_batches where 'w01250' = any(wallets)",
        "insert into postings select (jsonb_populate_record(p, jsonb_build_object('wallet_id', 'x', \
             'event_id', gen_random_uuid()))).* from postings p where wallet_id = 'w00001'",
    ] {
        books.pool.execute(sql).await.unwrap();
    }
    let from = pages.iter().find(|place| place.wallet == "w00999").cloned();
    let report = checked(&pool, of, from, bounds, |_| {}).await.unwrap();
    assert_eq!((report.wallets, report.events), (300, 600));
    let wrong: Vec<_> = report.equations.iter().filter(|equation| !equation.holds).collect();
    let said = format!("{wrong:#?}");
    for (what, command) in [
        ("account elsewhere, not external", "wallex projections rebuild ledger"),
        ("entry", "wallex projections rebuild ledger"),
        ("wallet w01298: read model has", "wallex projections rebuild read-model"),
        (" version 2) has no outbox row", "wallex outbox republish --wallet ID"),
    ] {
        let found = wrong.iter().find(|e| e.findings.iter().any(|text| text.contains(what)));
        assert_eq!(found.and_then(|equation| equation.mend), Some(command), "{what}: {said}");
    }
    assert!(report.lag.iter().all(|lag| lag.events == 0), "{:?}", report.lag);
}
