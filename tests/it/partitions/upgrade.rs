//! Tables of earlier releases become the first partitions as they stand.

use std::path::Path;

use sqlx::migrate::Migrator;
use wallex::config::{DatabaseSettings, Secret};
use wallex::store;

use super::*;
use crate::support::app::Setup;

/// The last migration of tables that are not partitioned.
const BEFORE: i64 = 25;

/// Rows of before: a wallet with its opening and a credit, sent and projected, under a key that is a version 7
/// UUID, whose row lies where all did.
const ROWS: &str = "
    insert into wallets (tenant_id, id, owner_id, currency, status, balance, version, created_at, updated_at)
        values ('default', 'w', 'o', 'USD', 'active', 2, 2, now(), now());
    insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, transaction_id, partition,
            created_at)
        select 'default', 'w', v, gen_random_uuid(), t, p::json, '00000000-0000-7000-8000-000000000001', 3,
            now() - (2 - v) * interval '3 months'
        from (values (1, 'WalletCreated', '{\"transactionId\": \"00000000-0000-7000-8000-000000000001\", \"ownerId\": \"o\", \"currency\": \"USD\", \"previousBalance\": \"0.00\", \"newBalance\": \"0.00\", \"changeAmount\": \"0.00\", \"changeType\": \"CREDIT\", \"overdraftLimit\": \"0.00\", \"metadata\": null}'),
            (2, 'WalletCredited', '{\"transactionId\": \"00000000-0000-7000-8000-000000000001\", \"previousBalance\": \"0.00\", \"newBalance\": \"2.00\", \"changeAmount\": \"2.00\", \"changeType\": \"CREDIT\", \"reason\": null, \"currency\": \"USD\", \"reference\": null, \"metadata\": null}')) e(v, t, p);
    update wallets set created_at = (select created_at from events where version = 1);
    insert into outbox_batches (tenant_id, topic, partition, created_at, processed_at, published, wallets,
            versions)
        select 'default', 'wallet-events', 3, created_at, now(), true, array['w'], array[version] from events
        order by version;
    insert into postings (tenant_id, wallet_id, version, id, event_id, transaction_id, created_at,
            transaction_type, side, amount, currency, counter_account, balance_before, balance_after,
            reference_id)
        select 'default', 'w', 2, gen_random_uuid(), event_id, transaction_id, created_at, 'CREDIT', 'CREDIT', 2,
            'USD', 'external', 0, 2, transaction_id::text from events where version = 2;
    insert into idempotency_keys (tenant_id, scope_hash, fingerprint, transaction_id, status, version, created_at)
        select 'default', decode(md5(n::text), 'hex'), '\\x00',
            '00000000-0000-7000-8000-000000000001', 201, 2, now() from generate_series(1, 50) n;
    create table files_before as select relname, pg_relation_filenode(oid) as file from pg_class
        where relname in ('events', 'postings', 'outbox_batches', 'idempotency_keys');
    create role reader_of_parts nologin;
    grant select on events, outbox to reader_of_parts;";

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_before_become_the_first_partitions_and_no_row_is_written_again() {
    let setup = Setup::without_kafka();
    let url = Secret::new(setup.postgres_url().to_owned());
    let pool = sqlx::PgPool::connect(url.expose()).await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut earlier = Migrator::new(folder).await.unwrap();
    earlier.migrations = earlier.iter().filter(|m| m.version <= BEFORE).cloned().collect();
    earlier.run(&pool).await.unwrap();
    sqlx::raw_sql("drop role if exists reader_of_parts").execute(&pool).await.unwrap();
    sqlx::raw_sql(ROWS).execute(&pool).await.unwrap();
    let shown =
        "select md5(string_agg(r::text, '|' order by r::text)) from (select * from outbox) r";
    let ledger = "select md5(string_agg(r::text, '|' order by r::text)) from (select tenant_id, id, \
        transaction_id, account, wallet_id, related_wallet_id, transaction_type, side, amount, currency, \
        balance_before, balance_after, description, reference_id, metadata, event_id, leg, version, \
        created_at from ledger_entries) r";
    let before: (String, String) = (
        sqlx::query_scalar(shown).fetch_one(&pool).await.unwrap(),
        sqlx::query_scalar(ledger).fetch_one(&pool).await.unwrap(),
    );
    let database = DatabaseSettings { url: url.clone(), migration_url: url, max_connections: 10 };
    store::migrate(&database, |_| {}).await.unwrap();
    let after: (String, String) = (
        sqlx::query_scalar(shown).fetch_one(&pool).await.unwrap(),
        sqlx::query_scalar(ledger).fetch_one(&pool).await.unwrap(),
    );
    assert_eq!(before, after);
    let rewritten: Vec<String> = sqlx::query_scalar(
        "select b.relname::text from files_before b where not exists (select from pg_class c \
             where pg_relation_filenode(c.oid) = b.file and c.relname in ('events_before', \
                 'postings_before', 'outbox_batches_d0', 'idempotency_keys_other'))",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(rewritten.is_empty(), "{rewritten:?}");
    let indexes = "select count(*) from pg_class where relname in ('events_before_feed', 'events_feed', \
        'postings_before_recent', 'postings_recent', 'outbox_batches_d0_unprocessed', 'events_before_pkey')";
    let indexes: i64 = sqlx::query_scalar(indexes).fetch_one(&pool).await.unwrap();
    assert_eq!(indexes, 6);
    let reads = "set role reader_of_parts; select from events; select from outbox; reset role";
    sqlx::raw_sql(reads).execute(&pool).await.unwrap();
    for table in ["events", "postings", "outbox_batches", "idempotency_keys"] {
        let invalid = format!(
            "select count(*) from pg_index where not indisvalid and indrelid::regclass::text like '{table}%'"
        );
        let invalid: i64 =
            sqlx::query_scalar(AssertSqlSafe(invalid)).fetch_one(&pool).await.unwrap();
        assert_eq!(invalid, 0, "{table}");
    }

    // The service goes on with it: ids, versions, and a key that was stored before keys had their place.
    let app = setup.start().await;
    assert_eq!(app.post("/wallets/w/credit", serde_json::json!({"amount": "1"})).await.status, 201);
    app.drain().await;
    let last: i64 =
        sqlx::query_scalar("select max(id) from outbox").fetch_one(&pool).await.unwrap();
    assert_eq!(last, 3);
    let key = uuid::Uuid::now_v7().to_string();
    let body = serde_json::json!({"amount": "5"});
    let first = app.post_with_key("/wallets/w/credit", &key, &body).await.unwrap();
    sqlx::query("update idempotency_keys set keyed_at = '-infinity'").execute(&pool).await.unwrap();
    let again = app.post_with_key("/wallets/w/credit", &key, &body).await.unwrap();
    assert_eq!((first.status, first.json()), (again.status, again.json()));
    assert_eq!(again.header("idempotency-replayed"), "true");
    app.assert_reconciled();
}
