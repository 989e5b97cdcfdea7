//! The batched writer's other tables: no more than the promises need. Numbers in place of names, no tenant,
//! no JSON, one index each, one outbox row a batch. What the service's own tables say beyond that is
//! what it pays for being read by people, for tenants and for several projections.

use std::collections::BTreeMap;

use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;
use wallex::cli::loadtest::ask::Draw;

use crate::request::WALLETS;

const TABLES: &str = "\
    create table narrow_wallets (id bigint primary key, balance bigint not null, \
        version bigint not null, check (balance >= 0)) with (fillfactor = 50); \
    create table narrow_keys (key uuid primary key, fingerprint uuid not null, \
        wallet bigint not null, version bigint not null, created_at timestamptz not null); \
    create table narrow_events (wallet bigint, version bigint, kind smallint not null, \
        amount bigint not null, balance bigint not null, transaction_id uuid not null, \
        created_at timestamptz not null, primary key (wallet, version)); \
    create table narrow_outbox (id bigint generated always as identity primary key, \
        created_at timestamptz not null, sent_at timestamptz, wallets bigint[] not null, \
        versions bigint[] not null)";

/// Makes the tables, with the wallets that there are.
pub async fn prepare(connection: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::raw_sql(TABLES).execute(&mut *connection).await?;
    sqlx::query(
        "insert into narrow_wallets select n, 100000000000, 0 from generate_series(0, $1) n",
    )
    .bind(i64::try_from(WALLETS)? - 1)
    .execute(&mut *connection)
    .await?;
    sqlx::raw_sql("vacuum analyze narrow_wallets").execute(connection).await?;
    Ok(())
}

/// The columns of one batch.
#[derive(Default)]
struct Batch {
    wallets: Vec<i64>,
    versions: Vec<i64>,
    balances: Vec<i64>,
    transactions: Vec<Uuid>,
    keys: Vec<Uuid>,
}

/// One transaction of `size` credits.
pub async fn write(
    connection: &mut PgConnection,
    size: usize,
    draw: &mut Draw,
) -> Result<(), sqlx::Error> {
    let mut ids: Vec<i64> = (0..size).map(|_| draw.below(WALLETS).cast_signed()).collect();
    ids.sort_unstable();
    let mut transaction = connection.begin().await?;
    let rows = sqlx::query(
        "select id, balance, version from narrow_wallets where id = any($1) \
         order by id for no key update",
    )
    .bind(&ids)
    .fetch_all(&mut *transaction)
    .await?;
    let mut states: BTreeMap<i64, (i64, i64)> =
        rows.iter().map(|row| (row.get("id"), (row.get("balance"), row.get("version")))).collect();
    let batch = credit(&ids, &mut states);
    insert_keys(&mut transaction, &batch).await?;
    update_wallets(&mut transaction, &states).await?;
    insert_events(&mut transaction, &batch).await?;
    transaction.commit().await
}

fn credit(ids: &[i64], states: &mut BTreeMap<i64, (i64, i64)>) -> Batch {
    let mut batch = Batch::default();
    for id in ids {
        let Some((balance, version)) = states.get_mut(id) else { continue };
        (*balance, *version) = (*balance + 100, *version + 1);
        let transaction = Uuid::now_v7();
        batch.wallets.push(*id);
        batch.versions.push(*version);
        batch.balances.push(*balance);
        batch.transactions.push(transaction);
        // As random as a hash.
        batch.keys.push(Uuid::new_v5(&transaction, b"key"));
    }
    batch.keys.sort_unstable();
    batch
}

async fn insert_keys(connection: &mut PgConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into narrow_keys (key, fingerprint, wallet, version, created_at) \
         select key, key, wallet, version, now() \
         from unnest($1::uuid[], $2::bigint[], $3::bigint[]) as k(key, wallet, version)",
    )
    .bind(&batch.keys)
    .bind(&batch.wallets)
    .bind(&batch.versions)
    .execute(connection)
    .await
    .map(drop)
}

async fn update_wallets(
    connection: &mut PgConnection,
    states: &BTreeMap<i64, (i64, i64)>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update narrow_wallets w set balance = m.balance, version = m.version \
         from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as m(id, balance, version) \
         where w.id = m.id",
    )
    .bind(states.keys().copied().collect::<Vec<_>>())
    .bind(states.values().map(|(balance, _)| *balance).collect::<Vec<_>>())
    .bind(states.values().map(|(_, version)| *version).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
}

/// Events, then the outbox row that names them.
async fn insert_events(connection: &mut PgConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into narrow_events \
            (wallet, version, kind, amount, balance, transaction_id, created_at) \
         select wallet, version, 2, 100, balance, transaction, now() \
         from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::uuid[]) \
            as e(wallet, version, balance, transaction)",
    )
    .bind(&batch.wallets)
    .bind(&batch.versions)
    .bind(&batch.balances)
    .bind(&batch.transactions)
    .execute(&mut *connection)
    .await?;
    sqlx::query("insert into narrow_outbox (created_at, wallets, versions) values (now(), $1, $2)")
        .bind(&batch.wallets)
        .bind(&batch.versions)
        .execute(connection)
        .await
        .map(drop)
}
