//! Batches of the outbox: claimed whole, marked whole or by parts, shown as a row for each event; and the rows of
//! earlier versions, which become batches.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::AssertSqlSafe;
use wallex::store::dual_publish::cutover::{Cutover, cut_over};

use super::*;

type Names = Vec<(String, i64)>;

fn names(rows: &[OutboxRow]) -> Names {
    rows.iter().map(|row| (row.wallet_id.clone(), row.version)).collect()
}

async fn run(books: &Books, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&books.pool).await.unwrap();
}

/// The events that wait, in the order in which they are sent.
async fn waiting(books: &Books) -> Names {
    sqlx::query_as(
        "select e.wallet_id, e.version from outbox_batches b cross join lateral \
             unnest(b.wallets, b.versions) with ordinality as e(wallet_id, version, place) \
         where b.processed_at is null order by b.partition, b.id, b.part, e.place",
    )
    .fetch_all(&books.pool)
    .await
    .unwrap()
}

/// Batches of many wallets: all in one partition.
async fn in_one_partition(books: &Books) {
    run(
        books,
        "with taken as (delete from outbox_batches where processed_at is null returning *) \
         insert into outbox_batches (tenant_id, topic, partition, created_at, wallets, versions) \
         select t.tenant_id, t.topic, 0, t.created_at, array_agg(e.wallet_id order by e.wallet_id, \
             e.version), array_agg(e.version order by e.wallet_id, e.version) \
         from taken t cross join lateral unnest(t.wallets, t.versions) as e(wallet_id, version) \
         group by t.tenant_id, t.topic, t.created_at order by t.created_at; \
         update events set partition = 0",
    )
    .await;
}

/// The versions of each wallet ascend by one.
fn assert_in_order(names: &Names) {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for (wallet, version) in names {
        let before = last.insert(wallet, *version);
        assert!(
            before.is_none_or(|before| before + 1 == *version),
            "{wallet} {version}: {names:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_of_a_batch_is_marked_and_the_rest_stays_in_its_place() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    books.write(&[credit("w1", "1"), credit("w2", "1")]).await;
    in_one_partition(&books).await;
    let mut sender = Sender::new(&books).await;
    let before = waiting(&books).await;
    assert_in_order(&before);
    let all = before.len();
    let mut sent = Vec::new();
    for round in 0..3 {
        let rows = Sender::claim(&books, 1000).await;
        assert_eq!(names(&rows), waiting(&books).await, "all, in order");
        let part: Vec<OutboxRow> = match round {
            // A request that could not take more.
            0 => rows.iter().take(rows.len() / 2).cloned().collect(),
            // Some wallets are set aside, and others flow.
            _ => {
                let flows = |row: &&OutboxRow| !row.wallet_id.ends_with(['1', '4']);
                rows.iter().filter(flows).take(20).cloned().collect()
            }
        };
        sent.extend(names(&part));
        sender.mark(&books, part.clone()).await;
        let once = waiting(&books).await;
        sender.confirm(&books, &part).await;
        assert_eq!(waiting(&books).await, once, "the same marks again");
    }
    let left = waiting(&books).await;
    assert_eq!(sent.len() + left.len(), all);
    sent.extend(left);
    assert_in_order(&sent);
    let either = "select count(*) from outbox where (processed_at is null) <> published";
    assert_eq!(books.count(either).await, all as i64);
    sender.send_all(&books).await;
    assert_eq!(sender.taken(), last_versions(&books));
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_takes_whole_batches_up_to_its_limit_and_passes_one_that_is_larger() {
    let mut books = Books::open().await;
    let mut sender = Sender::new(&books).await;
    let many = |events: usize| (0..events).map(|_| credit("w", "1")).collect::<Vec<_>>();
    books.write(&[create("w", "USD", None)]).await;
    for events in [300, 40, 40, 40, 1] {
        books.write(&many(events)).await;
    }
    for (limit, expected) in [(1, 1), (100, 300), (80, 80), (41, 41), (10, 0)] {
        let rows = Sender::claim(&books, limit).await;
        assert_eq!(rows.len(), expected, "at most {limit}");
        sender.mark(&books, rows).await;
    }
    let versions: Vec<i64> = (1..=422).collect();
    assert_eq!(sender.sent["w"], versions);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_set_aside_hides_nobody_behind_it_and_neither_does_what_waits_for_it() {
    let mut books = Books::open().await;
    let mut sender = Sender::new(&books).await;
    let all: Vec<String> = (0..10).map(|n| format!("w{n}")).collect();
    let opened: Vec<_> = all.iter().map(|wallet| create(wallet, "USD", None)).collect();
    books.write(&opened).await;
    for _ in 0..30 {
        books.write(&all.iter().map(|wallet| credit(wallet, "1")).collect::<Vec<_>>()).await;
    }
    in_one_partition(&books).await;
    run(
        &books,
        "insert into outbox_refusals select tenant_id, aggregate_id, event_version, id, 3, 'no' \
         from outbox where aggregate_id = 'w3' and event_version = 1",
    )
    .await;
    for _ in 0..40 {
        sender.send(&books, 20).await;
    }
    assert!(waiting(&books).await.iter().all(|(wallet, _)| wallet == "w3"));
    books.write(&[credit("w3", "1"), credit("w4", "1")]).await;
    run(&books, "update outbox_batches set partition = 0; update events set partition = 0").await;
    let rows = Sender::claim(&books, 1).await;
    assert_eq!(names(&rows), [("w4".to_owned(), 32)], "behind 31 batches of the other");
    sender.mark(&books, rows).await;
    let again = repair::retried(&books.pool, &tenant(), &RetrySelector::All, false).await.unwrap();
    assert_eq!(again, 1);
    sender.send_all(&books).await;
    assert_eq!(sender.taken(), last_versions(&books));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_has_a_row_for_each_event_and_looks_up_no_more_than_is_asked_for() {
    let mut books = Books::open().await;
    let events = books.write(&some_history()).await as i64;
    assert_eq!(books.count("select count(*) from outbox where processed_at is null").await, events);
    let rows = "select count(*) from events e join outbox o on o.tenant_id = e.tenant_id \
        and o.aggregate_id = e.wallet_id and o.event_version = e.version \
        and o.event_type = e.event_type and o.partition = e.partition \
        and o.created_at = e.created_at and o.topic = 'wallet-events' and not o.published \
        and o.attempts = 0 and o.last_error is null";
    assert_eq!(books.count(rows).await, events);
    let oldest = "select * from outbox where processed_at is null order by created_at limit 100";
    assert_eq!(sqlx::query(oldest).fetch_all(&books.pool).await.unwrap().len(), 100);
    for (sql, looks_up) in [
        ("explain select count(*) from outbox where processed_at is null", false),
        ("explain select event_type from outbox where processed_at is null", true),
    ] {
        let plan: Vec<String> = sqlx::query_scalar(sql).fetch_all(&books.pool).await.unwrap();
        assert_eq!(plan.iter().any(|line| line.contains(" on events")), looks_up, "{plan:#?}");
    }
    let update = "update outbox set processed_at = now()";
    let refused = sqlx::query(update).execute(&books.pool).await.unwrap_err().to_string();
    assert!(refused.contains("cannot update view \"outbox\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_what_a_parked_wallet_has_in_a_batch_waits_alone() {
    let mut books = Books::open().await;
    let events = books.write(&some_history()).await as i64;
    in_one_partition(&books).await;
    run(
        &books,
        "insert into parked_wallets (tenant_id, projector, wallet_id, version, cause, next_retry_at) \
         values ('default', 'ledger-projector', 'w1', 1, 'a test', now() + interval '1 h')",
    )
    .await;
    books.project(Projection::READ_MODEL).await;
    books.project(Projection::LEDGER).await;
    books.project(Projection::LEDGER).await;
    let left = waiting(&books).await;
    assert!(!left.is_empty() && left.iter().all(|(wallet, _)| wallet == "w1"), "{left:?}");
    assert_in_order(&left);
    let applied = "select count(*) from outbox where processed_at is not null and not published";
    assert_eq!(books.count(applied).await, events - left.len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_that_send_again_what_shares_a_batch_leave_the_rest_of_it_alone() {
    let mut books = Books::open().await;
    books.write(&["a", "b", "c"].map(|wallet| create(wallet, "USD", None))).await;
    in_one_partition(&books).await;
    run(&books, "update outbox_batches set processed_at = now()").await;
    ask(&books, RepublishSelector::Wallet(id("a"))).await;
    let mut first = books.pool.begin().await.unwrap();
    let step = wallex::store::outbox::republish::step;
    assert_eq!(step(&mut first, &tenant(), TOPIC).await.unwrap(), Step::Wrote(1));
    ask(&books, RepublishSelector::Wallet(id("b"))).await;
    let pool = books.pool.clone();
    let second = tokio::spawn(async move { republisher::step(&pool, &tenant(), TOPIC).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!second.is_finished(), "it waits for the batch");
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap().unwrap(), Step::Wrote(1));
    let rest =
        "select count(*) from outbox_batches where processed_at is not null and wallets = '{c}'";
    assert_eq!(books.count(rest).await, 1);
    let again: BTreeSet<(String, i64)> = waiting(&books).await.into_iter().collect();
    assert_eq!(again, BTreeSet::from([("a".to_owned(), 1), ("b".to_owned(), 1)]));
    books.assert_events_have_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_takes_batches_apart_where_the_new_topic_holds_some_of_their_events() {
    let mut books = Books::open().await;
    books.write(&["a", "b", "c", "d"].map(|wallet| create(wallet, "USD", Some("1")))).await;
    in_one_partition(&books).await;
    // 'd' waits for no topic any more, and the second has none of it.
    run(
        &books,
        "with taken as (update outbox_batches set wallets = wallets[:6], versions = versions[:6] \
             returning *) \
         insert into outbox_batches (tenant_id, topic, partition, created_at, processed_at, published, \
             wallets, versions) \
         select tenant_id, topic, partition, created_at, now(), true, '{d,d}', '{1,2}' from taken; \
         insert into second_destinations (tenant_id, topic, topic_id, first_topic, from_xid) \
             values ('default', 'second', '00000000-0000-0000-0000-000000000001', 'wallet-events', '0'); \
         insert into projector_checkpoints (tenant_id, projector, topic, partition, feed_xid) \
             values ('default', 'second-publisher', 'second', 0, '0'); \
         insert into projected_wallets (tenant_id, projector, wallet_id, version) values \
             ('default', 'second-publisher', 'a', 2), ('default', 'second-publisher', 'b', 1); \
         insert into outbox_refusals select tenant_id, aggregate_id, event_version, id, 3, 'no' \
             from outbox where aggregate_id = 'a' and event_version = 1",
    )
    .await;
    let mut transaction = books.pool.begin().await.unwrap();
    let done = cut_over(&mut transaction, &tenant(), "second", uuid::Uuid::from_u128(1)).await;
    assert_eq!(done.unwrap(), Cutover::Done { missing: 2 });
    transaction.commit().await.unwrap();
    let expected = [("d", 1), ("d", 2), ("b", 2), ("c", 1), ("c", 2)];
    let expected = expected.map(|(wallet, version)| (wallet.to_owned(), version));
    assert_eq!(waiting(&books).await, expected);
    let other = "select count(*) from outbox where topic <> 'second' and processed_at is null";
    assert_eq!(books.count(other).await, 0);
    assert_eq!(books.count("select count(*) from outbox where published").await, 5);
    assert_eq!(books.count("select count(*) from outbox_refusals").await, 0);
}

/// The table of before, with every state that its rows could be in.
const BEFORE: &str = "drop view outbox; \
    create table outbox ( \
        id bigint generated always as identity (cache 1), tenant_id text collate \"C\" not null, \
        aggregate_id text collate \"C\" not null, event_type text collate \"C\" not null, \
        event_version bigint not null, topic text collate \"C\" not null, \
        partition integer not null, created_at timestamptz not null, processed_at timestamptz, \
        published boolean not null default false, attempts integer not null default 0, \
        last_error text, constraint outbox_pkey primary key (tenant_id, id)); \
    insert into outbox (tenant_id, aggregate_id, event_type, event_version, topic, partition, created_at) \
        select b.tenant_id, v.wallet_id, v.event_type, v.version, b.topic, b.partition, b.created_at \
        from outbox_batches b cross join lateral unnest(b.wallets, b.versions) with ordinality \
            as e(wallet_id, version, place) \
        join events v on v.tenant_id = b.tenant_id and v.wallet_id = e.wallet_id \
            and v.version = e.version order by b.id, e.place; \
    insert into outbox (id, tenant_id, aggregate_id, event_type, event_version, topic, partition, \
            created_at) overriding system value \
        select -id, tenant_id, aggregate_id, event_type, event_version, topic, partition, created_at \
        from outbox where aggregate_id = 'w2'; \
    update outbox set processed_at = clock_timestamp(), published = true \
        where id > 0 and id < (select max(id) / 2 from outbox); \
    update outbox set published = false where aggregate_id = 'w4'; \
    update outbox set attempts = 2, last_error = 'too large' where aggregate_id = 'w1' \
        and id = (select max(id) from outbox where aggregate_id = 'w1'); \
    update outbox set attempts = 3, last_error = 'much too large' where aggregate_id = 'w6' \
        and id = (select max(id) from outbox where aggregate_id = 'w6'); \
    create table rows_before as select * from outbox; \
    drop table outbox_batches; drop table outbox_refusals; \
    drop function outbox_at; drop function outbox_without;";

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_earlier_versions_become_batches_in_the_same_order() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    let mut commands = vec![create("long", "USD", None)];
    commands.extend((0..1200).map(|_| credit("long", "0.01")));
    books.write(&commands).await;
    for _ in 0..20 {
        books.write(&[credit("w1", "1"), credit("w2", "1"), credit("w6", "1")]).await;
    }
    let migration = include_str!("../../../migrations/0023_outbox_batches.sql");
    run(&books, &format!("{BEFORE}{migration}")).await;

    let columns = "tenant_id, aggregate_id, event_type, event_version, topic, partition, created_at, \
        processed_at is null, published, attempts, coalesce(last_error, '')";
    let differ = format!(
        "select count(*) from ((select {columns} from outbox except all select {columns} from rows_before) \
         union all (select {columns} from rows_before except all select {columns} from outbox)) d"
    );
    let differ: i64 =
        sqlx::query_scalar(AssertSqlSafe(differ)).fetch_one(&books.pool).await.unwrap();
    assert_eq!(differ, 0);
    let order: Names = sqlx::query_as(
        "select aggregate_id, event_version from rows_before where processed_at is null \
         order by partition, id",
    )
    .fetch_all(&books.pool)
    .await
    .unwrap();
    assert_eq!(waiting(&books).await, order);
    let most = "select max(cardinality(versions))::bigint from outbox_batches";
    assert_eq!(books.count(most).await, 500);
    // Ids go on, and everything else does.
    let last = books.count("select max(id) from rows_before").await;
    books.write(&[credit("w9", "1")]).await;
    assert_eq!(books.count("select max(id) from outbox").await, last + 1);
    let retried = repair::retried(&books.pool, &tenant(), &RetrySelector::All, false).await;
    assert_eq!(retried.unwrap(), 2);
    books.assert_events_have_rows().await;
}
