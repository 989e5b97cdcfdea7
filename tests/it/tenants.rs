//! Tenants share the tables, and see nothing of each other.

use wallex::config::{DatabaseSettings, Secret};
use wallex::store::{self, Pools, Way};
use wallex::wallet::TenantId;

use crate::support::app::{App, Setup};

const COUNT: &str = "select (select count(*) from wallets), (select count(*) from events), \
    (select count(*) from ledger_entries), (select count(*) from wallets_read_model), \
    (select count(*) from projected_versions)";

/// The same rows as the default tenant has, of another one.
async fn copy(app: &App, tenant: &str) {
    for table in ["wallets", "events", "ledger_entries", "wallets_read_model", "projected_versions"]
    {
        let columns: String = sqlx::query_scalar(
            "select string_agg(quote_ident(column_name), ', ') from information_schema.columns \
             where table_schema = current_schema() and table_name = $1 and column_name <> 'tenant_id'",
        )
        .bind(table)
        .fetch_one(&app.pool)
        .await
        .unwrap();
        let copied = format!(
            "insert into {table} (tenant_id, {columns}) select $1, {columns} from {table} \
             where tenant_id = 'default'"
        );
        sqlx::query(sqlx::AssertSqlSafe(copied)).bind(tenant).execute(&app.pool).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_forgets_its_tenant_sees_its_own_rows_only() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "5").await;
    app.open("v", "0").await;
    app.drain().await;
    copy(&app, "b").await;
    copy(&app, "c").await;
    let url = Secret::new(app.variable("DATABASE_URL"));
    let settings =
        DatabaseSettings { url: url.clone(), migration_url: url.clone(), max_connections: 2 };
    let pools = Pools::new(&Way::new(&url), &settings).unwrap();

    type Counts = (i64, i64, i64, i64, i64);
    let own: Counts = (2, 3, 2, 2, 4);
    // One connection, which serves tenants by turns.
    for (tenant, expected) in [
        ("b", own),
        ("default", own),
        ("c", own),
        ("d", Counts::default()),
        ("", Counts::default()),
    ] {
        let mut session = store::session(&pools.reads, &TenantId::stored(tenant)).await.unwrap();
        let seen: Counts = sqlx::query_as(COUNT).fetch_one(&mut *session).await.unwrap();
        assert_eq!(seen, expected, "{tenant:?}");
    }
    // What carries events on serves all of them.
    let all: Counts = sqlx::query_as(COUNT).fetch_one(&pools.pipeline).await.unwrap();
    assert_eq!(all, (6, 9, 6, 6, 12));
    // A connection that died while it was idle is no caller's trouble.
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where application_name = 'wallex-reads' and datname = current_database()",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    store::session(&pools.reads, &TenantId::stored("b")).await.unwrap();
    pools.close().await;
}
