//! A projection is one entry, one table and one writer: a third one works as the others do.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use wallex::projector::Projection;
use wallex::projector::projection::Written;
use wallex::store::projected::{Table, Versions};
use wallex::store::{self, Connection};
use wallex::wallet::Event;

use super::books::{Books, Topic, catch_up, create, credit};
use crate::rebuild::rebuild;

static THIRD: Projection = Projection {
    name: "third-projector",
    word: "third",
    table: Table { name: "third", wallet: "wallet", versions: Versions::Apart },
    offsets_role: "third-offsets",
    write: |connection, events, _before| write(connection, events).boxed(),
};

/// The number of events of each wallet.
async fn write(connection: &mut Connection, events: &[Event]) -> store::Result<Written> {
    let mut wallets = BTreeSet::new();
    for event in events {
        wallets.insert(event.wallet_id.as_str());
        sqlx::query(
            "insert into third values ($1, $2, 1) \
             on conflict (tenant_id, wallet) do update set events = third.events + 1",
        )
        .bind(event.tenant.as_str())
        .bind(event.wallet_id.as_str())
        .execute(&mut *connection)
        .await
        .unwrap();
    }
    Ok(Written { wallets: wallets.len(), ..Written::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_projection_follows_both_feeds_once_in_effect_and_is_rebuilt() {
    let mut books = Books::open().await;
    let table = "create table third (tenant_id text, wallet text, events bigint not null, \
         primary key (tenant_id, wallet))";
    sqlx::query(table).execute(&books.pool).await.unwrap();
    let topic = Topic::new();
    let mut events = books.write(&[create("a", "USD", None), create("b", "USD", None)]).await;
    assert_eq!(catch_up(&mut books.projector(&THIRD, 500, None)).await.applied, events);
    events += books.write(&[credit("a", "1"), credit("b", "2")]).await;
    books.publish(&topic);
    books.follow(&THIRD, &topic, 500).await;
    let again = books.follow(&THIRD, &topic, 500).await;
    assert_eq!(again.applied, 0);
    let counted = "select sum(events)::bigint from third";
    assert_eq!(u64::try_from(books.count(counted).await).unwrap(), events);
    let noted = "select count(*) from projected_versions where projector = 'third-projector'";
    assert_eq!(books.count(noted).await, 2);

    let spoil = "update third set events = 9; insert into third values ('default', 'nobody', 1)";
    sqlx::raw_sql(spoil).execute(&books.pool).await.unwrap();
    rebuild(&books, &THIRD).await;
    assert_eq!(u64::try_from(books.count(counted).await).unwrap(), events);
    assert_eq!(books.count("select count(*) from third").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_projection_of_the_list_has_a_table_and_names_of_its_own() {
    let mut books = Books::open().await;
    books.write(&[create("a", "USD", Some("1"))]).await;
    let mut names = BTreeSet::new();
    for projection in Projection::ALL {
        let Projection { name, word, table, offsets_role, .. } = projection;
        for name in [name, word, &table.name, offsets_role] {
            assert!(names.insert(*name), "{name} is there twice");
        }
        let found: Option<String> = sqlx::query_scalar("select to_regclass($1)::text")
            .bind(table.name)
            .fetch_one(&books.pool)
            .await
            .unwrap();
        assert!(found.is_some(), "no table {}", table.name);
        // Wherever the versions stand, people find them in one place.
        books.project(projection).await;
        let shown: Option<i64> = sqlx::query_scalar(
            "select version from projected_versions where projector = $1 and wallet_id = 'a'",
        )
        .bind(name)
        .fetch_optional(&books.pool)
        .await
        .unwrap();
        assert_eq!(shown, Some(2), "{name}");
    }
}
