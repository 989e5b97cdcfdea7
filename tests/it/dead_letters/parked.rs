//! Parked wallets: tried again by themselves, released in order and once, while all else flows.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wallex::projector::{Projection, Projector};
use wallex::store::dead_letters::requests::{self, ReplaySelector};

use crate::projectors::books::{Books, catch_up, create, credit, some_history, transfer};
use crate::support::eventually;

/// The wallet's attempts, and the minutes from its last attempt to the next.
async fn schedule(books: &Books, wallet: &str) -> (i32, Option<i64>) {
    sqlx::query_as(
        "select attempts, round(extract(epoch from next_retry_at - case attempts when 1 \
             then parked_at else last_tried_at end) / 60)::bigint \
         from parked_wallets where wallet_id = $1",
    )
    .bind(wallet)
    .fetch_one(&books.pool)
    .await
    .unwrap()
}

/// Its time has come.
async fn due(books: &Books) {
    let now = "update parked_wallets set next_retry_at = clock_timestamp() \
               where next_retry_at is not null";
    sqlx::raw_sql(now).execute(&books.pool).await.unwrap();
}

async fn run(books: &Books, sql: &'static str) {
    assert_eq!(sqlx::raw_sql(sql).execute(&books.pool).await.unwrap().rows_affected(), 1, "{sql}");
}

/// Steps until a second has passed without work: the projector tends to parked wallets by then.
async fn tended(projector: &mut Projector) -> u64 {
    let mut applied = catch_up(projector).await.applied;
    for _ in 0..3 {
        applied += catch_up(projector).await.applied;
    }
    applied
}

const SPOIL: &str = "update events set payload = jsonb_set(payload::jsonb, '{changeAmount}', \
                     '\"x\"')::json where wallet_id = 'w1' and version = 3";
const MEND: &str = "update events set payload = jsonb_set(payload::jsonb, '{changeAmount}', \
                    '\"1.25\"')::json where wallet_id = 'w1' and version = 3";

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_wallet_is_tried_after_1_5_and_30_minutes_then_waits_for_a_person() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    run(&books, SPOIL).await;
    let mut ledger = books.projector(Projection::LEDGER, 500, None);
    tended(&mut ledger).await;
    assert_eq!(schedule(&books, "w1").await, (1, Some(1)));
    for expected in [(2, Some(5)), (3, Some(30)), (4, None)] {
        due(&books).await;
        books.write(&[credit("w1", "1"), credit("w2", "1")]).await;
        assert_eq!(tended(&mut ledger).await, 1, "the other wallet flows, this one waits");
        assert_eq!(schedule(&books, "w1").await, expected);
    }
    run(&books, MEND).await;
    assert_eq!(tended(&mut ledger).await, 0, "it waits for a person");
    let mut connection = books.pool.acquire().await.unwrap();
    let selection = ReplaySelector { wallet: Some("w1".to_owned()), ..ReplaySelector::default() };
    let chosen = requests::choose(&mut connection, &selection).await.unwrap();
    requests::replay(&mut connection, &chosen).await.unwrap();
    // Versions 3 to 5 of its history, and the three credits since.
    assert_eq!(tended(&mut ledger).await, 6);
    assert_eq!(books.count("select count(*) from parked_wallets").await, 0);
    books.write(&[credit("w1", "1")]).await;
    assert_eq!(tended(&mut ledger).await, 1, "it is fed like the others again");
    books.project(Projection::READ_MODEL).await;
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_whose_first_event_failed_is_released_and_one_that_fails_further_on_stays() {
    let mut books = Books::open().await;
    // The first event of `new` is gone; the fifth of `far` violates a check of the table alone.
    books.write(&[create("new", "USD", Some("1")), create("far", "USD", None)]).await;
    books.write(&(0..5).map(|_| credit("far", "1")).collect::<Vec<_>>()).await;
    let hide = "with gone as (delete from events where wallet_id = 'new' and version = 1 \
                returning *) insert into kept select * from gone";
    sqlx::raw_sql("create table kept (like events)").execute(&books.pool).await.unwrap();
    run(&books, hide).await;
    run(
        &books,
        "update events set payload = '{\"nonsense\":1}' where wallet_id = 'far' and version = 2",
    )
    .await;
    let mut ledger = books.projector(Projection::LEDGER, 500, None);
    tended(&mut ledger).await;
    assert_eq!(books.count("select count(*) from parked_wallets").await, 2);
    assert!(books.report().await.lag.iter().all(|lag| lag.wallets >= 0));
    run(&books, "insert into events select * from kept").await;
    run(
        &books,
        "update events set payload = (select payload from events where wallet_id = 'far' \
         and version = 3) where wallet_id = 'far' and version = 2",
    )
    .await;
    run(
        &books,
        "update events set payload = jsonb_set(payload::jsonb, '{changeAmount}', '\"0\"')::json \
         where wallet_id = 'far' and version = 5",
    )
    .await;
    due(&books).await;
    tended(&mut ledger).await;
    let left: Vec<(String, i64, i32)> =
        sqlx::query_as("select wallet_id, version, attempts from parked_wallets")
            .fetch_all(&books.pool)
            .await
            .unwrap();
    assert_eq!(left, [("far".to_owned(), 5, 2)]);
    let versions = "select version from projected_versions where projector = 'ledger-projector' \
                    order by wallet_id";
    let versions: Vec<i64> = sqlx::query_scalar(versions).fetch_all(&books.pool).await.unwrap();
    assert_eq!(versions, [4, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_newer_build_parks_no_wallet_and_its_partition_waits() {
    for (newer, known) in [
        (
            "update events set schema_version = 2 where wallet_id = 'w1' and version = 3",
            "update events set schema_version = 1 where wallet_id = 'w1' and version = 3",
        ),
        (
            "update events set event_type = 'WalletBlessed' where wallet_id = 'w1' and version = 4",
            "update events set event_type = 'WalletTransferInitiated' where wallet_id = 'w1' and version = 4",
        ),
    ] {
        let mut books = Books::open().await;
        let events = books.write(&some_history()).await;
        run(&books, newer).await;
        let waiting = "select count(*) from events where partition = (select partition from events \
            where wallet_id = 'w1' limit 1)";
        let waiting = books.count(waiting).await;
        for kind in Projection::ALL {
            let mut projector = books.projector(kind, 500, None);
            assert_eq!(tended(&mut projector).await as i64, events as i64 - waiting, "{newer}");
        }
        let report = books.report().await;
        assert!(report.parked.is_empty(), "{report:#?}");
        assert!(report.equations.iter().all(|equation| equation.holds), "{report:#?}");
        assert!(report.lag.iter().all(|lag| lag.events == waiting), "{report:#?}");
        run(&books, known).await;
        for kind in Projection::ALL {
            assert_eq!(books.project(kind).await.applied as i64, waiting);
        }
        books.assert_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_release_under_load_by_two_owners_applies_everything_once_and_in_order() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    run(&books, SPOIL).await;
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    for _ in 0..6 {
        books.write(&(0..1000).map(|_| credit("w1", "0.01")).collect::<Vec<_>>()).await;
    }
    run(&books, MEND).await;
    let token = CancellationToken::new();
    let tasks: Vec<_> = Projection::ALL
        .iter()
        .flat_map(|kind| [books.projector(kind, 50, None), books.projector(kind, 50, None)])
        .map(|projector| tokio::spawn(projector.run(token.clone())))
        .collect();
    due(&books).await;
    // Live events of this wallet and of others meanwhile.
    for round in 0..40 {
        let other = format!("w{}", 2 + round % 18);
        books.write(&[credit("w1", "0.01"), transfer(&other, "w1", "0.01")]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eventually("released and caught up", Duration::from_secs(60), async || {
        let report = books.report().await;
        assert!(report.is_clean(), "{report:#?}");
        (report.parked.is_empty() && report.lag.iter().all(|lag| lag.events == 0)).then_some(())
    })
    .await;
    token.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    books.assert_clean().await;
    assert_eq!(books.count("select count(*) from dead_letters").await, 0);
}
