//! A projection rebuilt while it is in use: the same rows, the same books.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use wallex::config::{DatabaseSettings, Secret};
use wallex::projector::Projection;
use wallex::projector::rebuild::{Filled, Rebuild, RebuildError};

use crate::projectors::books::{Books, TOPIC, create, credit, some_history};
use crate::support::app::Setup;
use crate::support::load::{Load, Plan};
use crate::support::{checker, eventually, topic};

const PATIENCE: Duration = Duration::from_secs(60);
const TABLES: [&str; 2] = ["postings", "wallets_read_model"];

fn owner(books: &Books) -> DatabaseSettings {
    let url = Secret::new(books.url());
    DatabaseSettings { url: url.clone(), migration_url: url, max_connections: 10 }
}

pub async fn rebuild(books: &Books, kind: &'static Projection) -> Filled {
    let rebuild = Rebuild::open(&owner(books), TOPIC, kind).await.unwrap();
    rebuild.run(&CancellationToken::new(), |_| {}).await.unwrap()
}

/// All that makes a table what it is, but for its rows.
async fn shape(pool: &PgPool, table: &str) -> Vec<String> {
    sqlx::query_scalar(
        "select 'table ' || coalesce(reloptions::text, '') || ' ' || coalesce((select \
             string_agg(a::text, ' ' order by a::text) from unnest(relacl) a), '') || \
             relowner::regrole::text || ' ' || relpersistence::text from pg_class where oid = $1::regclass \
         union all select indexdef from pg_indexes where tablename = $1 and schemaname = 'public' \
         union all select relrowsecurity::text || ' ' || coalesce((select string_agg(p::text, ' ') from \
             (select policyname, roles, cmd, qual, with_check from pg_policies \
                 where tablename = $1 and schemaname = 'public') p), '') \
             from pg_class where oid = $1::regclass \
         union all select conname::text || ' ' || pg_get_constraintdef(oid) from pg_constraint \
             where conrelid = $1::regclass \
         union all select format('%s %s %s %s %s %s', attnum, attname, format_type(atttypid, \
                 atttypmod), attnotnull, attcollation::regcollation, pg_get_expr(adbin, adrelid)) \
             from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum \
             where attrelid = $1::regclass and attnum > 0 and not attisdropped \
         order by 1",
    )
    .bind(table)
    .fetch_all(pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn spoilt_projections_are_made_anew_as_they_were() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    let rows = "select md5(string_agg(l::text, ' ' order by event_id, leg)) from ledger_entries l";
    let hash =
        async |pool: &PgPool| -> String { sqlx::query_scalar(rows).fetch_one(pool).await.unwrap() };
    let before = hash(&books.pool).await;
    let mut shapes = Vec::new();
    for table in TABLES {
        shapes.push(shape(&books.pool, table).await);
    }
    for sql in [
        "update postings set amount = amount + 1 where wallet_id = 'w1'",
        "delete from postings where wallet_id in ('w2', 'w3')",
        "insert into parked_wallets (tenant_id, projector, wallet_id, version, cause) \
         values ('default', 'ledger-projector', 'w5', 9, 'long gone')",
        "update projected_wallets set version = version - 1 where wallet_id = 'w6'",
        "insert into projected_wallets values ('default', 'ledger-projector', 'nobody', 3)",
        "truncate wallets_read_model",
        // Of wallets and events that never were.
        "insert into postings select (jsonb_populate_record(p, '{\"wallet_id\": \"nobody\"}')).* \
         from postings p limit 1",
        "insert into wallets_read_model select tenant_id, 'nobody', owner_id, currency, status, \
             balance, held_balance, overdraft_limit, version, metadata, created_at, updated_at \
         from wallets where id = 'w1'",
        "insert into parked_wallets (tenant_id, projector, wallet_id, version, cause) \
         values ('default', 'read-model-projector', 'nobody', 1, 'never was')",
    ] {
        sqlx::query(sql).execute(&books.pool).await.unwrap();
    }
    // Not projected yet when the rebuild begins.
    books.write(&[credit("w9", "1"), create("new", "USD", Some("3"))]).await;
    assert!(!books.report().await.is_clean());
    let events = books.count("select count(*) from events").await;
    for kind in Projection::ALL {
        let filled = rebuild(&books, kind).await;
        assert_eq!((filled.events, filled.of), (events, events));
    }
    books.assert_clean().await;
    assert_eq!(books.count("select count(*) from parked_wallets").await, 0);
    for (table, before) in TABLES.iter().zip(shapes) {
        assert_eq!(shape(&books.pool, table).await, before, "{table}");
    }
    let old = "delete from postings where wallet_id = 'new' or (wallet_id = 'w9' and version = \
             (select max(version) from events where wallet_id = 'w9'))";
    sqlx::query(old).execute(&books.pool).await.unwrap();
    assert_eq!(hash(&books.pool).await, before, "the same rows with the same ids");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_applied_parks_its_wallet_and_no_other() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    for sql in [
        "update events set payload = '{\"nonsense\":1}' where wallet_id = 'w1' and version = 3",
        "update events set payload = jsonb_set(payload::jsonb, '{changeAmount}', '\"0\"')::json \
         where wallet_id = 'w2' and version = 4",
    ] {
        sqlx::query(sql).execute(&books.pool).await.unwrap();
    }
    rebuild(&books, Projection::LEDGER).await;
    let parked: Vec<(String, i64)> =
        sqlx::query_as("select wallet_id, version from parked_wallets order by wallet_id")
            .fetch_all(&books.pool)
            .await
            .unwrap();
    assert_eq!(parked, [("w1".to_owned(), 3), ("w2".to_owned(), 4)]);
    let lag = books.report().await.lag;
    assert!(lag.iter().all(|lag| lag.projector != Projection::LEDGER.name() || lag.events == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_each_wallet_is_whole() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    books.project(Projection::LEDGER).await;
    books.project(Projection::READ_MODEL).await;
    let database = owner(&books);
    let dying = Rebuild::open(&database, TOPIC, Projection::LEDGER).await.unwrap();
    let task = tokio::spawn(async move {
        let stop = CancellationToken::new();
        dying.run(&stop, |_| panic!("as good as killed")).await.map(drop)
    });
    assert!(task.await.is_err());
    books.assert_clean().await;
    books.write(&[credit("w1", "1")]).await;
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    books.assert_clean().await;

    // The dead one's session ends, and with it its right.
    let again = eventually("the right to rebuild", PATIENCE, async || {
        Rebuild::open(&database, TOPIC, Projection::LEDGER).await.ok()
    })
    .await;
    let second = Rebuild::open(&database, TOPIC, Projection::READ_MODEL).await;
    assert!(matches!(second, Err(RebuildError::Running)));
    let stop = CancellationToken::new();
    stop.cancel();
    let stopped = again.run(&stop, |_| {}).await;
    assert!(matches!(stopped, Err(RebuildError::Stopped)), "{stopped:?}");
    books.assert_clean().await;
    eventually("the right to rebuild", PATIENCE, async || {
        Rebuild::open(&database, TOPIC, Projection::LEDGER).await.ok()
    })
    .await
    .run(&CancellationToken::new(), |_| {})
    .await
    .unwrap();
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_broken_off_goes_on_where_it_was_and_the_next_begins_at_the_first_wallet() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    books.project(Projection::LEDGER).await;
    rebuild(&books, Projection::READ_MODEL).await;
    let spoil = "update wallets_read_model set balance = balance + 1 where id in ('w1', 'w8')";
    let wrong = "select count(*) from wallets_read_model m join wallets w using (tenant_id, id) \
         where m.balance <> w.balance";
    for (begun, left) in [("1 hour", 1), ("2 days", 0)] {
        sqlx::query(spoil).execute(&books.pool).await.unwrap();
        let broken_off = format!(
            "update projection_rebuilds set finished_at = null, after_wallet = 'w5', events = 7, \
                 started_at = clock_timestamp() - interval '{begun}'"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(broken_off)).execute(&books.pool).await.unwrap();
        let filled = rebuild(&books, Projection::READ_MODEL).await;
        assert_eq!(books.count(wrong).await, left, "broken off {begun} ago");
        assert_eq!(filled.events == filled.of, left == 0, "{filled:?}");
    }
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_reader_is_not_waited_for_and_sees_what_it_saw() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    books.project(Projection::LEDGER).await;
    books.project(Projection::READ_MODEL).await;
    let mut reader = books.pool.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read")
        .execute(&mut *reader)
        .await
        .unwrap();
    let rows = "select md5(string_agg(p::text || p.xmin::text, ' ' order by event_id, pair)) \
         from postings p";
    let before: String = sqlx::query_scalar(rows).fetch_one(&mut *reader).await.unwrap();
    rebuild(&books, Projection::LEDGER).await;
    let after: String = sqlx::query_scalar(rows).fetch_one(&mut *reader).await.unwrap();
    assert_eq!(before, after);
    reader.commit().await.unwrap();
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_reads_go_on_and_nothing_is_lost_or_doubled() {
    let app = Setup::shared().start().await;
    let other = app.second_instance().await;
    let load = Load::start(&[&app.base, &other.base], Plan::default()).await;
    load.advance(300).await;
    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU32::new(0));
    let mut readers = tokio::task::JoinSet::new();
    for base in [app.base.clone(), other.base.clone()] {
        let (stop, reads, client) = (Arc::clone(&stop), Arc::clone(&reads), app.client.clone());
        readers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                for path in ["/ledger/transactions?limit=5", "/wallets?limit=5"] {
                    let answer = client.get(format!("{base}{path}")).send().await.unwrap();
                    assert_eq!(answer.status(), 200, "{path}: {}", answer.text().await.unwrap());
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    for _ in 0..3 {
        for projection in ["ledger", "read-model"] {
            let done = app.wallex(&["projections", "rebuild", projection, "--yes"]);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            load.advance(100).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    let journal = load.settle().await;
    let figures = checker::assert_events(&app.pool, &journal.lines()).await;
    app.drain().await;
    topic::assert_projected(&app).await;
    app.assert_reconciled();
    println!("{figures:?}, {} reads", reads.load(Ordering::Relaxed));
    let said = String::from_utf8(app.wallex(&["projections", "status"]).stdout).unwrap();
    assert!(said.contains("ledger-projector rebuilt from"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_it_runs_in_the_background_if_the_service_is_the_owner() {
    let mut app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    app.drain().await;
    let started = app.post("/admin/projections/rebuild", json!({"projection": "ledger"})).await;
    assert_eq!(started.status, 202, "{}", started.text);
    eventually("the rebuild's end", PATIENCE, async || {
        let state = app.get("/admin/projections").await.json();
        let end = &state["rebuilds"][0]["finishedAt"];
        (end.is_string() && state["rebuilding"] == false).then_some(())
    })
    .await;
    let reconciled = app.get("/admin/reconcile").await.json();
    assert_eq!((&reconciled["clean"], &reconciled["events"]), (&json!(true), &json!(2)));
    let unknown = app.post("/admin/projections/rebuild", json!({"projection": "all"})).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "invalid_value"));

    sqlx::raw_sql("create role stranger login; grant wallex_app to stranger")
        .execute(&app.pool)
        .await
        .unwrap();
    let url = app.database_url.replace("postgres@", "stranger@");
    app.set("DATABASE_MIGRATION_URL", &url);
    app.restart().await;
    let refused = app.post("/admin/projections/rebuild", json!({"projection": "ledger"})).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"), "{}", refused.text);
    let output = app.wallex(&["projections", "rebuild", "ledger", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("DATABASE_MIGRATION_URL"), "{said}");
    sqlx::raw_sql("drop role stranger").execute(&app.pool).await.unwrap();
}
