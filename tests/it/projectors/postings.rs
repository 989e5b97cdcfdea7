//! One row for each posting, and a view that shows both of its entries: as the table did that it takes the
//! place of, in what it says and in what it costs to ask.

use std::borrow::Cow;
use std::path::Path;

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgPool};
use wallex::projector::{LEDGER, Projection, READ_MODEL};
use wallex::store;

use super::books::{Books, some_history};
use crate::support::servers;

/// The last migration before the postings.
const BEFORE: i64 = 23;

#[tokio::test(flavor = "multi_thread")]
async fn each_posting_is_two_entries_of_one_amount_on_opposite_sides() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    books.project(Projection::LEDGER).await;
    let postings = books.count("select count(*) from postings").await;
    let pairs = "select count(*) from ledger_entries w join ledger_entries c using \
            (tenant_id, event_id, version, amount, currency, transaction_id, transaction_type, \
             reference_id, created_at) \
         where w.leg = 0 and c.leg = 1 and w.side <> c.side and w.account = 'wallet' \
           and w.wallet_id is not null and c.wallet_id is null and c.related_wallet_id is null \
           and c.account = case when w.transaction_type in ('CREDIT', 'DEBIT') then 'external' \
                else 'transfers_in_flight' end \
           and w.balance_after is not null and c.balance_after is null and c.description is null \
           and c.metadata is null";
    assert_eq!((postings, books.count(pairs).await), (81, 81));
    assert_eq!(books.count("select count(distinct id) from ledger_entries").await, 2 * postings);
    let derived = "select count(*) from ledger_entries w join ledger_entries c using (event_id) \
         where w.leg = 0 and c.leg = 1 and c.id::text = overlay(w.id::text placing '8' from 15 for 1)";
    assert_eq!(books.count(derived).await, postings);
}

/// How a question is answered with a plan for any values, made by the service's role for one tenant.
async fn plan(connection: &mut PgConnection, types: &str, question: &str) -> String {
    let values = vec!["null"; types.split(',').count()].join(", ");
    let sql = format!("prepare asked ({types}) as {question}");
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    let sql = format!("explain (costs off) execute asked ({values})");
    let lines: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut *connection).await.unwrap();
    connection.execute("deallocate asked").await.unwrap();
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_is_asked_by_the_indexes_of_the_postings_and_no_leg_too_many() {
    let books = Books::open().await;
    let fill = "insert into postings (tenant_id, wallet_id, version, id, event_id, transaction_id, \
             created_at, transaction_type, side, amount, currency, counter_account, balance_before, \
             balance_after, reference_id) \
         select 'default', 'w' || n % 1000, n / 1000 + 2, gen_random_uuid(), gen_random_uuid(), \
             gen_random_uuid(), now() + n * interval '1 ms', 'CREDIT', 'CREDIT', 1, 'USD', \
             'external', 0, 1, 'r' || n / 2 from generate_series(0, 99999) n; analyze postings";
    books.pool.execute(fill).await.unwrap();
    // A leg is looked for in each month: none of these knows the time.
    let months = "select count(*) from table_partitions where parent = 'postings'";
    let months = usize::try_from(books.count(months).await).unwrap();
    let mut session = books.pool.acquire().await.unwrap();
    let role = "set role wallex_app; set wallex.tenant = 'default'; \
         set plan_cache_mode = force_generic_plan; set jit = off; set enable_seqscan = off; \
         set enable_bitmapscan = off";
    session.execute(role).await.unwrap();
    let of_wallet = "select * from ledger_entries where tenant_id = $1 and wallet_id = $2";
    let own = "select * from ledger_entries where tenant_id = $1 and wallet_id is not null";
    let all = "select * from ledger_entries where tenant_id = $1";
    for (name, types, question, index, legs) in [
        (
            "a wallet's page",
            "text, text, bigint",
            format!("{of_wallet} and version < $3 order by version desc limit 50"),
            "_pkey on postings",
            1,
        ),
        (
            "a wallet's sums",
            "text, text",
            of_wallet.replace('*', "sum(amount)"),
            "_pkey on postings",
            1,
        ),
        (
            "a reference",
            "text, text",
            format!("{own} and reference_id = $2"),
            "_reference_id_idx on postings",
            1,
        ),
        (
            "a reference, both legs",
            "text, text",
            format!("{all} and reference_id = $2"),
            "_reference_id_idx on postings",
            2,
        ),
        (
            "the newest",
            "text",
            format!("{own} order by created_at desc, event_id desc limit 50"),
            "_created_at_event_id_idx on postings",
            1,
        ),
        (
            "the newest, both legs",
            "text",
            format!("{all} order by created_at desc, event_id desc limit 50"),
            "_created_at_event_id_idx on postings",
            2,
        ),
    ] {
        let plan = plan(&mut session, types, &question).await;
        println!("{name}:\n{plan}\n");
        let scans = plan.matches(" on postings").count();
        let is_backward = plan.matches("Index Scan Backward").count() == scans;
        let ordered = question.contains("order by");
        assert!(!ordered || (is_backward && !plan.contains("->  Sort")), "{name}: {plan}");
        assert!(
            plan.contains(index) && scans == legs * months,
            "{name}: {index}, {legs} legs\n{plan}"
        );
        assert!(!plan.contains("Seq Scan"), "{name}: {plan}");
    }
}

/// Two wallets as a service of before has left them: opened with 5.00, then 1.00 more and 1.00 less.
const OF_BEFORE: &str = r#"
    create table moved as
        select w, v, 'w' || w as wallet, md5('event ' || w || ' ' || v)::uuid as event,
            md5('transaction ' || w || ' ' || v)::uuid as transaction, now() as at,
            case v when 1 then 0 when 2 then 0 when 3 then 5 else 6 end as before,
            case v when 1 then 0 when 2 then 5 when 3 then 6 else 5 end as after
        from generate_series(1, 2) w, generate_series(1, 4) v;
    insert into wallets (tenant_id, id, owner_id, currency, status, balance, version, created_at, updated_at)
        select 'default', wallet, 'o', 'USD', 'active', after, v, at, at from moved where v = 4;
    insert into wallets_read_model select tenant_id, id, owner_id, currency, status, balance, held_balance,
        overdraft_limit, version, metadata, created_at, updated_at from wallets;
    insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, transaction_id, partition,
            created_at)
        select 'default', wallet, v, event, case v when 1 then 'WalletCreated' when 4 then 'WalletDebited'
                else 'WalletCredited' end,
            json_build_object('ownerId', 'o', 'overdraftLimit', '0', 'currency', 'USD', 'reason', 'r',
                'reference', 'ref-' || v, 'changeAmount', abs(after - before)::text, 'changeType',
                case v when 4 then 'DEBIT' else 'CREDIT' end, 'previousBalance', before::text, 'newBalance',
                after::text, 'metadata', null), transaction, w, at from moved;
    insert into ledger_entries
        select 'default', md5(event || ' ' || leg)::uuid, transaction,
            case leg when 0 then 'wallet' else 'external' end, case leg when 0 then wallet end, null,
            case v when 4 then 'DEBIT' else 'CREDIT' end,
            case when (v = 4) = (leg = 0) then 'DEBIT' else 'CREDIT' end, abs(after - before), 'USD',
            case leg when 0 then before end, case leg when 0 then after end, case leg when 0 then 'r' end,
            'ref-' || v, null, event, leg, v, at
        from moved, generate_series(0, 1) leg where v > 1;
    insert into projected_versions
        select 'default', p, wallet, v, case p when 'ledger-projector' then v end,
            case p when 'ledger-projector' then 6 end, case p when 'ledger-projector' then 1 end,
            case p when 'ledger-projector' then 3 end
        from moved, unnest(array['ledger-projector', 'read-model-projector']) p where v = 4;
    insert into outbox_purges (tenant_id, purged_through) values ('default', now());
    grant select on ledger_entries to public;
"#;

/// All of an entry but the id of a system account's, which no caller has seen.
const ROWS: &str = "select md5(string_agg(case leg when 0 then l::text \
         else replace(l::text, id::text, '') end, ' ' order by event_id, leg)) \
     from (select tenant_id, id, transaction_id, account, wallet_id, related_wallet_id, \
         transaction_type, side, amount, currency, balance_before, balance_after, description, \
         reference_id, metadata, event_id, leg, version, created_at from ledger_entries) l";

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_before_are_the_same_once_they_are_postings() {
    let name = format!("postings_{}", std::process::id());
    servers::postgres().ensure_database(&name).unwrap();
    let pool = PgPool::connect(&servers::postgres().url_of(&name)).await.unwrap();
    let all = Migrator::new(Path::new("migrations")).await.unwrap();
    let mut former = Migrator::new(Path::new("migrations")).await.unwrap();
    let old = all.iter().filter(|migration| migration.version <= BEFORE).cloned();
    former.migrations = Cow::Owned(old.collect());
    former.run(&pool).await.unwrap();
    pool.execute(OF_BEFORE).await.unwrap();
    let before: String = sqlx::query_scalar(ROWS).fetch_one(&pool).await.unwrap();
    all.run(&pool).await.unwrap();
    let after: String = sqlx::query_scalar(ROWS).fetch_one(&pool).await.unwrap();
    assert_eq!(before, after);
    let mut connection = pool.acquire().await.unwrap();
    let report = store::reconcile::report(&mut connection, LEDGER, READ_MODEL).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    // A role that could read them can.
    let reader = "create role reader_of_before; set role reader_of_before";
    connection.execute(reader).await.unwrap();
    let seen: i64 = sqlx::query_scalar("select count(*) from ledger_entries")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert_eq!(seen, 12);
    connection.execute("reset role; drop role reader_of_before").await.unwrap();
}
