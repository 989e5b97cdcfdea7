//! Partitions of the tables that grow for years: there before they are needed, dropped when they are old, and no
//! write waits for them or fails without them.

mod keys;
mod plans;
mod upgrade;

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;
use wallex::config::RetentionSettings;
use wallex::partitions::{Done, Partitions};
use wallex::projector::Projection;
use wallex::store::outbox::claim;
use wallex::store::outbox::floors::Floor;

use crate::projectors::books::{Books, PARTITIONS, TOPIC, credit, some_history};

const DAY: Duration = Duration::from_secs(86_400);

fn settings() -> RetentionSettings {
    RetentionSettings {
        outbox: DAY,
        answers: DAY,
        keys: 365 * DAY,
        letters: 30 * DAY,
        batches: Duration::from_secs(3600),
        rest: Duration::ZERO,
        rest_of_keys: Duration::ZERO,
    }
}

fn hasty(books: &Books) -> Partitions {
    Partitions::hasty(books.pool.clone(), settings())
}

async fn run(books: &Books, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&books.pool).await.unwrap();
}

async fn count(books: &Books, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&books.pool).await.unwrap()
}

/// Where the rows of a table lie: partitions and their rows.
async fn places(books: &Books, table: &str) -> Vec<(String, i64)> {
    let sql =
        format!("select tableoid::regclass::text, count(*) from {table} group by 1 order by 1");
    sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&books.pool).await.unwrap()
}

async fn project(books: &Books) {
    for kind in Projection::ALL {
        books.project(kind).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn months_are_there_ahead_and_what_has_none_is_written_and_moved_when_it_has() {
    let mut books = Books::open().await;
    let mut partitions = hasty(&books);
    assert_eq!(partitions.step().await.unwrap(), Done::default(), "a new schema has all it needs");
    books.write(&some_history()).await;
    project(&books).await;
    books.assert_clean().await;
    for table in ["events", "postings"] {
        let places = places(&books, table).await;
        assert_eq!(places.len(), 1, "{places:?}");
        assert!(places[0].0.starts_with(&format!("{table}_20")), "{places:?}");
    }
    // No index of the whole table forbids a version that is there in another month: reconcile sees it.
    let twice = "insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, transaction_id, \
            partition, created_at) select tenant_id, wallet_id, version, gen_random_uuid(), event_type, payload, \
            transaction_id, partition, created_at + interval '1 month' from events \
        where wallet_id = 'w2' and version = 2";
    run(&books, twice).await;
    let report = books.report().await;
    let versions = report.equations.iter().find(|equation| equation.name.starts_with("versions"));
    assert_eq!(versions.map(|equation| equation.count), Some(1));
    run(&books, "delete from events where created_at > now() + interval '1 day'").await;
    books.assert_clean().await;

    // Made again, with the rights, the indexes and the row-level security of the others.
    let last = "select name from table_partitions where parent = 'events' and not is_default \
        order by to_bound::timestamptz desc limit 1";
    let last: String = sqlx::query_scalar(last).fetch_one(&books.pool).await.unwrap();
    let shape = format!(
        "select relacl::text || relrowsecurity || (select string_agg(regexp_replace( \
             pg_get_indexdef(indexrelid), '{last}', 'x', 'g'), ', ' order by indexrelid::regclass::text) \
             from pg_index where indrelid = c.oid) from pg_class c where relname = '{last}'"
    );
    let before: String =
        sqlx::query_scalar(AssertSqlSafe(shape.clone())).fetch_one(&books.pool).await.unwrap();
    run(&books, &format!("drop table {last}")).await;
    let done = partitions.step().await.unwrap();
    assert_eq!(done, Done { made: 1, ..Done::default() });
    let after: String =
        sqlx::query_scalar(AssertSqlSafe(shape)).fetch_one(&books.pool).await.unwrap();
    assert_eq!(before, after);

    // A clock that was years ahead: what was written by it lies in the default partitions.
    let ahead = "update events set created_at = created_at + interval '3 years' where wallet_id = 'w1'; \
        update postings set created_at = created_at + interval '3 years' where wallet_id = 'w1'";
    run(&books, ahead).await;
    let strays = count(&books, "select count(*) from events_default").await;
    assert!(strays > 0);
    let rows = count(&books, "select count(*) from events").await;
    let done = partitions.step().await.unwrap();
    assert_eq!(done.made, 2, "a month of each table");
    assert_eq!(count(&books, "select count(*) from events_default").await, 0);
    assert_eq!(count(&books, "select count(*) from postings_default").await, 0);
    assert_eq!(count(&books, "select count(*) from events").await, rows);
    assert_eq!(places(&books, "events").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn days_of_the_outbox_begin_in_order_and_go_when_all_that_was_in_them_is_old() {
    let mut books = Books::open().await;
    let mut partitions = hasty(&books);
    books.write(&some_history()).await;
    let yesterday = |day: i32| {
        format!("update outbox_days set begun_at = now() - interval '3 days' where number = {day}")
    };
    assert!(!partitions.step().await.unwrap().begun, "it is the first day");
    run(&books, &yesterday(0)).await;
    let done = partitions.step().await.unwrap();
    assert!(done.begun && done.made == 0, "{done:?}");
    books.write(&[credit("w1", "1"), credit("w2", "1")]).await;
    let done = partitions.step().await.unwrap();
    assert_eq!(done, Done { made: 1, ..Done::default() }, "the day after the next");
    assert_eq!(
        places(&books, "outbox_batches").await.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
        ["outbox_batches_d0", "outbox_batches_d1"]
    );
    // What waits in two days is claimed in its order.
    let all: Vec<Floor> = (0..PARTITIONS).map(Floor::none).collect();
    let claimed = claim(&books.pool, TOPIC, &all, 1000).await.unwrap();
    let of = |wallet: &str| {
        let rows = claimed.iter().filter(|row| row.wallet_id == wallet);
        rows.map(|row| row.version).collect::<Vec<i64>>()
    };
    let (first, last) = (of("w1")[0], *of("w1").last().unwrap());
    assert_eq!(of("w1"), (first..=last).collect::<Vec<_>>());

    run(&books, &yesterday(1)).await;
    assert!(partitions.step().await.unwrap().begun);
    run(&books, "update outbox_days set begun_at = now() - interval '2 days' where number = 2")
        .await;
    books.write(&[credit("w1", "1")]).await;
    let sent = "update outbox_batches set published = true, processed_at = now() - interval ";
    run(&books, &format!("{sent} '2 days' where wallets <> '{{w2}}'")).await;
    // The third day begins; the second keeps what waits.
    let done = partitions.step().await.unwrap();
    assert_eq!((done.begun, done.dropped), (true, 0));
    let waits = count(&books, "select count(*) from outbox where processed_at is null").await;
    assert!(waits > 0 && partitions.step().await.unwrap().dropped == 0);
    // Nor does it go when that was sent a moment ago.
    run(&books, &format!("{sent} '1 hour' where processed_at is null")).await;
    assert_eq!(partitions.step().await.unwrap().dropped, 0);
    run(&books, &format!("{sent} '2 days'")).await;
    assert_eq!(partitions.step().await.unwrap().dropped, 1);
    assert_eq!(count(&books, "select count(*) from outbox_days where number = 1").await, 0);
    // Ids never go back, and what is gone is known to be.
    books.write(&[credit("w3", "1")]).await;
    assert!(count(&books, "select max(id) from outbox").await >= 3 << 40);
    project(&books).await;
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_reader_makes_partitions_late_and_no_command() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    let last = "select name from table_partitions where parent = 'events' and not is_default \
        order by to_bound::timestamptz desc limit 1";
    let last: String = sqlx::query_scalar(last).fetch_one(&books.pool).await.unwrap();
    run(&books, &format!("drop table {last}")).await;
    // Reads every partition, and goes on for long, as a dump does.
    let mut dump = books.pool.begin().await.unwrap();
    sqlx::query("select count(*) from events").execute(&mut *dump).await.unwrap();
    let mut partitions = hasty(&books);
    let steps = async {
        for _ in 0..3 {
            let done = partitions.step().await.unwrap();
            assert!(done.is_late && done.made == 0, "{done:?}");
        }
    };
    let pool = books.pool.clone();
    let commands = async {
        let (begun, mut longest) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < Duration::from_secs(1) {
            let asked = Instant::now();
            // Takes the lock of each partition.
            sqlx::query("select from events where version = 1").execute(&pool).await.unwrap();
            longest = longest.max(asked.elapsed());
        }
        longest
    };
    let ((), longest) = tokio::join!(steps, commands);
    assert!(longest < Duration::from_millis(900), "{longest:?}");
    dump.rollback().await.unwrap();
    assert_eq!(partitions.step().await.unwrap(), Done { made: 1, ..Done::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_s_role_makes_and_drops_partitions_and_no_others() {
    let books = Books::open().await;
    let mut session = books.pool.acquire().await.unwrap();
    sqlx::raw_sql("set role wallex_app").execute(&mut *session).await.unwrap();
    let made = "select wallex_add_month('events', now() + interval '2 years')";
    let made: Option<i64> = sqlx::query_scalar(made).fetch_one(&mut *session).await.unwrap();
    assert_eq!(made, Some(0));
    for refused in [
        "select wallex_add_month('wallets', now())",
        "select wallex_drop_outbox_day(0)",
        "select wallex_drop_outbox_day(1)",
        "select wallex_drop_key_month('events_default')",
        "select wallex_drop_key_month('idempotency_keys_other')",
        "select wallex_drop_key_month((select name from table_partitions \
            where parent = 'idempotency_keys' and not is_default and from_bound is not null \
            order by 1 limit 1))",
        "select wallex_new_partition('events', 'mine')",
        "drop table events_default",
        "delete from events_default",
        "update events_default set version = version",
    ] {
        assert!(sqlx::raw_sql(refused).execute(&mut *session).await.is_err(), "{refused}");
    }
}
