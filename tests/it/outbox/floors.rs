//! While a snapshot is held, what is looked at stays what waits: not all that was processed since.

use sqlx::postgres::PgPoolOptions;
use wallex::projector::Projection;
use wallex::store::Pool;
use wallex::store::feed;
use wallex::store::outbox::floors::{Lowest, lowest, note, writers};

use super::*;

/// Of one partition.
const PROCESSED: i64 = 100_000;
const HERE: i32 = 3;
/// More than a look at a few rows takes, and far less than one at all of them.
const PAGES: i64 = 60;

/// One session, whose reads are counted.
async fn single(books: &Books) -> Pool {
    PgPoolOptions::new().max_connections(1).connect(books.url()).await.unwrap()
}

/// Pages of the outbox that were read so far.
async fn pages(pool: &Pool) -> i64 {
    sqlx::query("select pg_stat_force_next_flush()").execute(pool).await.unwrap();
    sqlx::query_scalar(
        "select coalesce(sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit), 0)::bigint \
         from pg_statio_all_tables where relname like 'outbox_batches%'",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// What a question reads.
async fn read<T>(pool: &Pool, question: impl AsyncFn() -> T) -> i64 {
    // The first of a session reads the catalogue, too.
    question().await;
    let before = pages(pool).await;
    question().await;
    pages(pool).await - before
}

/// A snapshot that is held, and batches that were processed since.
async fn under_an_old_snapshot(books: &Books) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut snapshot = books.pool.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read; select 1")
        .execute(&mut *snapshot)
        .await
        .unwrap();
    let mut transaction = books.pool.begin().await.unwrap();
    for sql in [
        "insert into outbox_batches (tenant_id, topic, partition, created_at, wallets, versions) \
         select 'default', $2, $3, clock_timestamp(), array['w'], array[n] \
         from generate_series(1, $1) n",
        "update outbox_batches set processed_at = clock_timestamp(), published = true \
         where $1 > 0 and topic = $2 and partition = $3",
    ] {
        let done = sqlx::query(sql).bind(PROCESSED).bind(TOPIC).bind(HERE);
        done.execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    snapshot
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_under_an_old_snapshot_reads_no_more_than_what_waits() {
    let mut books = Books::open().await;
    let snapshot = under_an_old_snapshot(&books).await;
    let pool = single(&books).await;
    let last = books.count("select max(id) from outbox_batches").await;
    let (none, known) =
        (Floor::none(HERE), Floor { partition: HERE, again: -1_000_000, commands: last + 1 });
    let whole = read(&pool, async || claim(&pool, TOPIC, &[none], 100).await.unwrap()).await;
    assert!(whole > 10 * PAGES, "{whole}: nothing to show");
    let claimed = read(&pool, async || claim(&pool, TOPIC, &[known], 100).await.unwrap()).await;
    let looked = read(&pool, async || lowest(&pool, TOPIC, &[known]).await.unwrap()).await;
    note(&pool, TOPIC, &[known]).await.unwrap();
    let backlog = async || wallex::store::outbox::backlog(&pool, PATIENCE).await.unwrap();
    let counted = read(&pool, backlog).await;
    let walk = async || {
        let mut connection = pool.acquire().await.unwrap();
        let Projection { name: projector, table, .. } = Projection::LEDGER;
        let from = feed::Start { partition: HERE, cursor: 0, ahead: 0, followers: 1 };
        let ledger = feed::Follower { projector, table: *table };
        feed::walk(&mut connection, TOPIC, &[ledger], &[from], 100).await.unwrap()
    };
    let walked = read(&pool, walk).await;
    let found = [wallex::store::outbox::Found {
        tenant_id: "default".to_owned(),
        wallet_id: "w".to_owned(),
        version: 1,
        event_id: uuid::Uuid::nil(),
    }];
    let read_back = async || {
        wallex::store::outbox::waiting(&pool, TOPIC, HERE, last + 1, &found).await.unwrap()
    };
    let found = read(&pool, read_back).await;
    println!(
        "pages: {whole} from the first on; {claimed} of a claim, {looked} of a look, {counted} of a \
              count, {walked} of a walk, {found} of a read-back"
    );
    for pages in [claimed, looked, walked, found] {
        assert!(pages < PAGES, "{pages} pages of {whole}");
    }
    // It looks at all partitions.
    assert!(counted < PAGES * i64::from(PARTITIONS) / 2, "{counted} pages of {whole}");
    // And what waits is found, whatever is below: a new batch, and one that sends again.
    books.write(&[create("w", "USD", None)]).await;
    sqlx::query(
        "update outbox_batches set partition = $1 where wallets = '{w}' and processed_at is null",
    )
    .bind(HERE)
    .execute(&books.pool)
    .await
    .unwrap();
    assert_eq!(claim(&pool, TOPIC, &[known], 100).await.unwrap().len(), 1);
    let again = "insert into outbox_batches (tenant_id, id, topic, partition, created_at, wallets, versions) \
                 overriding system value select 'default', -900000, $1, $2, created_at, '{w}', '{1}' \
                 from events where wallet_id = 'w'";
    sqlx::query(again).bind(TOPIC).bind(HERE).execute(&books.pool).await.unwrap();
    let ids: Vec<i64> =
        claim(&pool, TOPIC, &[known], 100).await.unwrap().iter().map(|row| row.slot.id).collect();
    assert_eq!(ids, [-900_000, last + 1]);
    snapshot.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_may_commit_a_batch_below_what_is_seen_is_known() {
    let mut books = Books::open().await;
    assert!(writers(&books.pool).await.unwrap().is_empty());
    books.write(&[create("a", "USD", None)]).await;
    let mut late = books.pool.clone().begin().await.unwrap();
    books.write_in(&mut late, &[credit("a", "1")]).await;
    let waits = writers(&books.pool).await.unwrap();
    assert_eq!(waits.len(), 1);
    // One that writes elsewhere, and reads here, is none of them.
    let mut other = books.pool.begin().await.unwrap();
    sqlx::raw_sql("select pg_current_xact_id(); select count(*) from outbox_batches")
        .execute(&mut *other)
        .await
        .unwrap();
    assert_eq!(writers(&books.pool).await.unwrap(), waits);
    late.commit().await.unwrap();
    assert!(writers(&books.pool).await.unwrap().is_empty());
    let floors: Vec<Floor> = (0..PARTITIONS).map(Floor::none).collect();
    let seen: Vec<Lowest> = lowest(&books.pool, TOPIC, &floors).await.unwrap();
    let lowest = seen.iter().filter_map(|partition| partition.commands).min();
    let first = books.count("select min(id) from outbox_batches").await;
    assert_eq!(lowest, Some(first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_notes_how_far_all_is_processed_and_finds_what_is_brought_back() {
    let app = Setup::shared().with("OUTBOX_POLL_INTERVAL_MS", 200).start().await;
    app.open("w", "10").await;
    for _ in 0..20 {
        let credited = app.post("/wallets/w/credit", json!({"amount": "1"})).await;
        assert_eq!(credited.status, 201);
    }
    app.drain().await;
    let noted = async || -> Option<i64> {
        let behind = "select max(f.commands) - max(b.id) from outbox_floors f, outbox_batches b";
        let behind: Option<i64> = sqlx::query_scalar(behind).fetch_one(&app.pool).await.unwrap();
        behind.filter(|behind| *behind > -20)
    };
    eventually("a floor is noted", PATIENCE, noted).await;
    let back =
        "update outbox_batches set processed_at = null, published = false where versions = '{5}'";
    assert_eq!(sqlx::query(back).execute(&app.pool).await.unwrap().rows_affected(), 1);
    eventually("what waits again is sent", PATIENCE, async || {
        let waits = "select count(*) from outbox_batches where processed_at is null";
        let waits: i64 = sqlx::query_scalar(waits).fetch_one(&app.pool).await.unwrap();
        (waits == 0).then_some(())
    })
    .await;
    app.drain().await;
}
