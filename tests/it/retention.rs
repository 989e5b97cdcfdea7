//! Retention: tables stop growing, and what is purged is not missed by anybody.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use wallex::background::task;
use wallex::config::RetentionSettings;
use wallex::projector::Projection;
use wallex::republisher;
use wallex::retention::{Purged, Retention};
use wallex::store::outbox::republish::{RepublishSelector, Step};
use wallex::store::retention;
use wallex::wallet::TenantId;

use crate::projectors::books::{Books, TOPIC, create, credit, some_history};
use crate::support::app::Setup;
use crate::support::load::{Load, Plan};
use crate::support::{checker, eventually};

const DAY: Duration = Duration::from_secs(86_400);

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

/// Everything is old at once, but for keys.
fn at_once() -> RetentionSettings {
    RetentionSettings {
        outbox: Duration::ZERO,
        answers: Duration::ZERO,
        keys: 365 * DAY,
        letters: 30 * DAY,
        batches: Duration::ZERO,
        rest: Duration::ZERO,
        rest_of_keys: Duration::ZERO,
    }
}

/// Steps until a step over all tables finds nothing to purge, twice: each walk was through.
async fn purge(retention: &mut Retention) -> Purged {
    let mut total = Purged::default();
    let mut idle = 0;
    while idle < 20 {
        let purged = retention.step().await.unwrap().expect("nobody else purges");
        idle = if purged == Purged::default() { idle + 1 } else { 0 };
        total.outbox += purged.outbox;
        total.batches += purged.batches;
        total.answers += purged.answers;
        total.keys += purged.keys;
    }
    total
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_levels_off_and_the_books_still_agree() {
    let mut books = Books::open().await;
    let mut retention = Retention::new(books.pool.clone(), at_once());
    books.write(&some_history()).await;
    for round in 0..4 {
        let commands: Vec<_> = (0..1500).map(|i| credit(&format!("w{}", i % 20), "0.01")).collect();
        for batch in commands.chunks(500) {
            books.write(batch).await;
        }
        sqlx::query("update outbox_batches set processed_at = now(), published = true")
            .execute(&books.pool)
            .await
            .unwrap();
        let purged = purge(&mut retention).await;
        assert!(purged.outbox >= 1500, "{round}: {purged:?}");
        assert_eq!(books.count("select count(*) from outbox").await, 0, "round {round}");
    }
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    books.assert_clean().await;
    // What is younger than the mark must have its row.
    books.write(&[credit("w1", "1"), credit("w2", "1")]).await;
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    books.assert_clean().await;
    sqlx::query("delete from outbox_batches where wallets = '{w1}'")
        .execute(&books.pool)
        .await
        .unwrap();
    let wrong: i64 = books.report().await.equations.iter().map(|equation| equation.count).sum();
    assert_eq!(wrong, 1, "a row that was not purged is missed");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_old_processed_rows_go_and_those_that_wait_hide_none_behind_them() {
    let mut books = Books::open().await;
    let mut retention =
        Retention::new(books.pool.clone(), RetentionSettings { outbox: DAY, ..at_once() });
    books.write(&[create("waits", "USD", None)]).await;
    for _ in 0..2 {
        let commands: Vec<_> = (0..1200).map(|_| credit("waits", "0.01")).collect();
        books.write(&commands).await;
    }
    books.write(&[create("old", "USD", Some("1")), create("young", "USD", Some("1"))]).await;
    books.scatter().await;
    // All of it happened long ago; 'waits' still waits, 'young' was sent just now.
    for sql in [
        "update events set created_at = created_at - interval '3 days'",
        "update outbox_batches set created_at = created_at - interval '3 days'",
        "update outbox_batches set processed_at = now() - interval '2 days', published = true \
         where wallets = '{old}'",
        "update outbox_batches set processed_at = now(), published = true where wallets = '{young}'",
    ] {
        sqlx::query(sql).execute(&books.pool).await.unwrap();
    }
    assert_eq!(purge(&mut retention).await.outbox, 2);
    assert_eq!(books.count("select count(*) from outbox where aggregate_id = 'old'").await, 0);
    assert_eq!(books.count("select count(*) from outbox where aggregate_id = 'young'").await, 2);
    assert_eq!(books.count("select count(*) from outbox where processed_at is null").await, 2401);

    // A transaction that commits late brings an event older than the mark: its row is there.
    let mut late = books.pool.clone().begin().await.unwrap();
    books.write_in(&mut late, &[credit("old", "1")]).await;
    sqlx::query(
        "update outbox_batches set processed_at = now() - interval '2 days', published = true",
    )
    .execute(&books.pool)
    .await
    .unwrap();
    assert_eq!(purge(&mut retention).await.outbox, 2403);
    late.commit().await.unwrap();
    assert_eq!(books.count("select count(*) from outbox").await, 1);
    let outbox = books.report().await.equations.into_iter().find(|e| e.name.contains("outbox"));
    assert_eq!(outbox.map(|equation| equation.count), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_without_having_been_sent_can_still_be_sent() {
    let mut books = Books::open().await;
    let mut retention = Retention::new(books.pool.clone(), at_once());
    books.write(&some_history()).await;
    sqlx::query("update outbox_batches set processed_at = now(), published = true")
        .execute(&books.pool)
        .await
        .unwrap();
    purge(&mut retention).await;
    let unsent = books.write(&[credit("w1", "1"), credit("w2", "1"), credit("w2", "1")]).await;
    sqlx::query("update outbox_batches set processed_at = now()")
        .execute(&books.pool)
        .await
        .unwrap();
    purge(&mut retention).await;
    assert_eq!(books.count("select count(*) from outbox").await, 0);
    let awaits =
        async || wallex::store::outbox::repair::awaits_republication(&books.pool).await.unwrap();
    assert!(awaits().await);
    let counts =
        republisher::ask(&books.pool, &tenant(), &RepublishSelector::Unpublished, false).await;
    assert_eq!(counts.unwrap().events, unsent as i64);
    while republisher::step(&books.pool, &tenant(), TOPIC).await.unwrap() != Step::Idle {}
    assert!(!awaits().await);
    assert_eq!(books.count("select count(*) from outbox").await, unsent as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_go_before_their_keys_and_batches_after_an_hour() {
    let books = Books::open().await;
    let hours = Duration::from_secs(3600);
    let settings =
        RetentionSettings { answers: 24 * hours, batches: hours, outbox: DAY, ..at_once() };
    let mut retention = Retention::new(books.pool.clone(), settings);
    for (age, rows) in [("1 hour", 1200), ("2 days", 2500), ("400 days", 1700)] {
        sqlx::query(
            "insert into idempotency_keys (tenant_id, scope_hash, fingerprint, transaction_id, \
                 status, answer, created_at) \
             select 'default', decode(md5($1 || n), 'hex'), '\\x00', gen_random_uuid(), 201, \
                 '{}', now() - $1::interval from generate_series(1, $2) n",
        )
        .bind(age)
        .bind(rows)
        .execute(&books.pool)
        .await
        .unwrap();
    }
    // A success has no text: its row is never written again.
    let successes = "insert into idempotency_keys (tenant_id, scope_hash, fingerprint, \
             transaction_id, status, version, created_at) \
         select 'default', decode(md5('success' || n), 'hex'), '\\x00', gen_random_uuid(), 201, 1, \
             now() - interval '3 days' from generate_series(1, 500) n";
    sqlx::query(successes).execute(&books.pool).await.unwrap();
    sqlx::query(
        "insert into command_batches (id, created_at) select ( \
             '00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, \
             now() - case when n <= 2300 then interval '61 minutes' else interval '59 minutes' end \
         from generate_series(1, 2500) n",
    )
    .execute(&books.pool)
    .await
    .unwrap();
    let purged = purge(&mut retention).await;
    let expected = Purged { outbox: 0, batches: 2300, answers: 2500, keys: 1700, letters: 0 };
    assert_eq!(purged, expected);
    assert_eq!(books.count("select count(*) from command_batches").await, 200);
    let kept = "select count(*) from idempotency_keys where answer is not null and status = 201";
    assert_eq!(books.count(kept).await, 1200);
    let narrow = "select count(*) from idempotency_keys where answer is null and status is null";
    assert_eq!(books.count(narrow).await, 2500);
    let successes = "select count(*) from idempotency_keys where status = 201 and version = 1";
    assert_eq!(books.count(successes).await, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_purges_at_a_time() {
    let books = Books::open().await;
    let mut retention = Retention::new(books.pool.clone(), at_once());
    let mut other = books.pool.begin().await.unwrap();
    assert!(retention::lock(&mut other, 0).await.unwrap());
    assert_eq!(retention.step().await.unwrap(), None);
    other.rollback().await.unwrap();
    assert_eq!(retention.step().await.unwrap(), Some(Purged::default()));
}

/// A leap of the database's clock is told from the time that passes, also by a process that begins after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_leaps_a_year_ahead_purges_nothing() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    // As seen from behind the leap: all that was believed and written lies a year back.
    for sql in [
        "insert into idempotency_keys (tenant_id, scope_hash, fingerprint, transaction_id, status, \
             created_at) \
         select 'default', decode(md5('key' || n), 'hex'), '\\x00', gen_random_uuid(), 201, \
             clock_timestamp() - interval '366 days' from generate_series(1, 100) n",
        "update outbox_batches set processed_at = clock_timestamp() - interval '366 days', \
             created_at = clock_timestamp() - interval '366 days', published = true",
        "update retention_clock set believed_at = clock_timestamp() - interval '366 days'",
    ] {
        sqlx::query(sql).execute(&books.pool).await.unwrap();
    }
    let settings = RetentionSettings { outbox: 7 * DAY, keys: 365 * DAY, ..at_once() };
    let purged = purge(&mut Retention::new(books.pool.clone(), settings.clone())).await;
    assert_eq!(purged, Purged::default());
    // So much is believed of it: no more than the service says has passed.
    let mut connection = books.pool.acquire().await.unwrap();
    let before = retention::horizon(&mut connection).await.unwrap();
    let after = retention::advance(&mut connection, DAY).await.unwrap();
    assert_eq!(after.believed - before, chrono::TimeDelta::days(1));
    assert!(after.ahead > 360 * DAY, "{after:?}");
    // A clock that is right after all is believed in the end, and one that was set back at once.
    let after = retention::advance(&mut connection, 400 * DAY).await.unwrap();
    assert!(after.ahead < DAY / 24, "{after:?}");
    let ahead = "update retention_clock set believed_at = clock_timestamp() + interval '1 year'";
    sqlx::query(ahead).execute(&books.pool).await.unwrap();
    let back = retention::advance(&mut connection, Duration::ZERO).await.unwrap();
    assert!(back.ahead < DAY / 24 && back.believed < chrono::Utc::now() + DAY);
    drop(connection);
    let purged = purge(&mut Retention::new(books.pool.clone(), settings)).await;
    assert!(purged.keys == 100 && purged.outbox > 0, "{purged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_purged_holds_up_no_other() {
    let books = Books::open().await;
    for sql in [
        "insert into idempotency_keys (tenant_id, scope_hash, fingerprint, transaction_id, status, \
             created_at) \
         values ('default', '\\x01', '\\x00', gen_random_uuid(), 201, now() - interval '400 days')",
        "insert into command_batches (id, created_at) select gen_random_uuid(), \
             now() - interval '2 hours' from generate_series(1, 20000)",
    ] {
        sqlx::query(sql).execute(&books.pool).await.unwrap();
    }
    let mut other = books.pool.begin().await.unwrap();
    let key = "select from idempotency_keys for update";
    sqlx::query(key).execute(&mut *other).await.unwrap();
    let stop = CancellationToken::new();
    let hour = Duration::from_secs(3600);
    let settings = RetentionSettings { batches: hour, ..at_once() };
    let purges = Retention::new(books.pool.clone(), settings).purges().into_iter();
    let running: Vec<_> =
        purges.map(|purge| tokio::spawn(task::run(purge, stop.clone()))).collect();
    eventually("the ids of batches are purged", Duration::from_secs(60), async || {
        (books.count("select count(*) from command_batches").await == 0).then_some(())
    })
    .await;
    assert_eq!(books.count("select count(*) from idempotency_keys").await, 1);
    other.rollback().await.unwrap();
    eventually("the key is purged", Duration::from_secs(60), async || {
        (books.count("select count(*) from idempotency_keys").await == 0).then_some(())
    })
    .await;
    stop.cancel();
    for purge in running {
        purge.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_steady_load_no_table_but_the_books_grows() {
    let full = std::env::var("WALLEX_TEST_FULL").is_ok_and(|full| full == "1");
    let (rounds, operations) = if full { (60, 2000) } else { (6, 400) };
    let app = Setup::shared().start().await;
    let second = Duration::from_secs(1);
    let settings = RetentionSettings {
        outbox: second / 2,
        answers: second / 2,
        keys: 365 * DAY,
        letters: 30 * DAY,
        batches: 20 * second,
        rest: second / 10,
        rest_of_keys: second / 10,
    };
    let stop = CancellationToken::new();
    let purges = Retention::new(app.pool.clone(), settings).purges().into_iter();
    let running = purges.map(|purge| tokio::spawn(task::run(purge, stop.clone())));
    let running: Vec<_> = running.collect();
    let load = Load::start(&[&app.base], Plan { think: Duration::ZERO, ..Plan::default() }).await;
    let begun = Instant::now();
    let mut most = (0, 0);
    for round in 0..rounds {
        load.advance(operations).await;
        let outbox = count(&app.pool, "select count(*) from outbox").await;
        let answers = "select count(*) from idempotency_keys where answer is not null";
        let answers = count(&app.pool, answers).await;
        most = (outbox.max(most.0), answers.max(most.1));
        println!("{round}: {:?}, {outbox} outbox rows, {answers} answers", begun.elapsed());
    }
    let journal = load.settle().await;
    // Answers are gone, their keys are not: nothing of the journal happens a second time.
    checker::assert_events(&app.pool, &journal.lines()).await;
    app.drain().await;
    let events = count(&app.pool, "select count(*) from events").await;
    eventually("all that is old is purged", Duration::from_secs(60), async || {
        let left = "select (select count(*) from outbox) + (select count(*) from \
             idempotency_keys where answer is not null) + (select count(*) from command_batches)";
        (count(&app.pool, left).await == 0).then_some(())
    })
    .await;
    stop.cancel();
    for purge in running {
        purge.await.unwrap();
    }
    // In the short form there is too little to tell a level from a slow start.
    assert!(!full || most.0.max(most.1) * 5 < events, "{most:?} of {events}");
    println!("{events} events; at most {} outbox rows and {} answers at once", most.0, most.1);
    app.assert_reconciled();
}
