//! Statements on tables with as many partitions as there may be: those that know the time read one.

use sqlx::Executor as _;

use super::*;

/// Years of months, most of them empty.
async fn with_forty_months() -> Books {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    run(
        &books,
        "select wallex_add_month(t, now() + n * interval '1 month') \
         from unnest(array['events', 'postings', 'idempotency_keys']) t, generate_series(-33, 3) n",
    )
    .await;
    assert!(
        count(&books, "select count(*) from table_partitions where parent = 'events'").await >= 38
    );
    books
}

/// The plan of a statement as the service's sessions have it, run once, with its buffers.
async fn plan(books: &Books, types: &str, statement: &str, values: &str) -> String {
    let mut session = books.pool.acquire().await.unwrap();
    let settings = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
        set enable_hashjoin = off; set enable_mergejoin = off; set enable_memoize = off; set jit = off";
    session.execute(settings).await.unwrap();
    let prepared = format!("prepare asked({types}) as {statement}");
    session.execute(AssertSqlSafe(prepared)).await.unwrap();
    let explained = format!("explain (analyze, costs off, timing off) execute asked({values})");
    let lines: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(explained)).fetch_all(&mut *session).await.unwrap();
    session.execute("deallocate all").await.unwrap();
    lines.join("\n")
}

/// Index scans that were made, and those that were not.
fn scans(plan: &str) -> (usize, usize) {
    let scans = || plan.lines().filter(|line| line.contains("Scan"));
    let of_tables =
        || scans().filter(|line| line.contains(" on events") || line.contains(" on idem"));
    let never = of_tables().filter(|line| line.contains("never executed")).count();
    (of_tables().count() - never, never)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_knows_the_time_reads_one_of_forty_partitions() {
    let books = with_forty_months().await;
    // As the publisher looks the events of its batches up.
    let claim = "select e.payload from outbox_batches b cross join lateral unnest(b.wallets, b.versions) \
            u(wallet_id, version) \
        cross join lateral (select * from events where tenant_id = b.tenant_id and wallet_id = u.wallet_id \
            and version = u.version and created_at = b.created_at limit 1) e \
        where b.topic = $1 and b.partition = $2 and b.processed_at is null";
    let partition = "select partition::bigint from outbox_batches limit 1";
    let partition = count(&books, partition).await;
    let shown = plan(&books, "text, int", claim, &format!("'wallet-events', {partition}")).await;
    let (made, never) = scans(&shown);
    assert!(made == 1 && never > 30, "{made} {never}\n{shown}");

    // As a batch looks its keys up.
    let keys = "select k.status from unnest($1::text[], $2::bytea[], $3::timestamptz[]) w(tenant, scope, at) \
        cross join lateral (select * from idempotency_keys where keyed_at = coalesce(w.at, '-infinity') \
            and tenant_id = w.tenant and scope_hash = w.scope limit 1) k";
    let values = "'{default,default}', '{\"\\\\x00\",\"\\\\x01\"}', array[now(), null]";
    let shown = plan(&books, "text[], bytea[], timestamptz[]", keys, values).await;
    let (made, never) = scans(&shown);
    assert!(made == 2 && never > 30, "{made} {never}\n{shown}");

    // As projectors read events that have just happened.
    let recent = "select e.version from unnest($1::text[], $2::bigint[]) r(wallet_id, version) \
        cross join lateral (select * from events where tenant_id = 'default' and wallet_id = r.wallet_id \
            and version = r.version and created_at >= case when $3 then now() - interval '7 days' \
                else '-infinity' end order by version limit 10) e";
    let shown = plan(&books, "text[], bigint[], boolean", recent, "'{w1,w2}', '{1,1}', true").await;
    let removed = shown.lines().find_map(|line| line.trim().strip_prefix("Subplans Removed: "));
    assert!(removed.is_some_and(|count| count.parse::<u32>().unwrap() > 30), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_writing_and_projecting_go_on_over_forty_partitions() {
    let mut books = with_forty_months().await;
    project(&books).await;
    let begun = Instant::now();
    for round in 0..10 {
        let commands: Vec<_> = (0..100).map(|n| credit(&format!("w{}", n % 10), "0.01")).collect();
        books.write(&commands).await;
        let all: Vec<Floor> = (0..PARTITIONS).map(Floor::none).collect();
        let claimed = claim(&books.pool, TOPIC, &all, 1000).await.unwrap();
        assert!(claimed.len() >= 100, "{round}");
        project(&books).await;
        run(&books, "update outbox_batches set processed_at = now(), published = true").await;
    }
    println!("ten rounds of 100 events: {:?}", begun.elapsed());
    books.assert_clean().await;
}
