//! The read model's rows have their versions themselves: what is there is locked and moved, what is not is
//! opened once.

use sqlx::Executor as _;
use wallex::projector::Projection;
use wallex::store::Blame;

use super::books::{Books, catch_up, create, credit, some_history};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_gone_is_named_and_made_again_with_the_next_event() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    books.assert_clean().await;
    let ahead = "update projector_checkpoints set feed_xid = pg_current_xact_id()";
    books.pool.execute(ahead).await.unwrap();
    books.pool.execute("delete from wallets_read_model where id in ('w1', 'w2')").await.unwrap();
    let report = books.report().await;
    let named = report.equations.iter().find(|equation| equation.name.contains("place is applied"));
    assert_eq!(named.unwrap().count, 2, "{report:#?}");
    books.write(&[credit("w1", "1"), credit("w2", "1"), credit("w3", "1")]).await;
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_another_transaction_opens_meanwhile_is_a_conflict_that_passes() {
    let mut books = Books::open().await;
    books.write(&[create("w", "USD", Some("1")), create("v", "USD", None)]).await;
    books.project(Projection::LEDGER).await;
    let mut other = books.pool.begin().await.unwrap();
    let open = "insert into wallets_read_model select tenant_id, id, owner_id, currency, status, balance, \
         held_balance, overdraft_limit, version, metadata, created_at, updated_at \
         from wallets where id = 'w'";
    other.execute(open).await.unwrap();
    let mut projector = books.projector(Projection::READ_MODEL, 500, None);
    let (stepped, committed) = tokio::join!(
        async {
            loop {
                match projector.step().await {
                    Ok(progress) if progress.chunks == 0 => tokio::task::yield_now().await,
                    stepped => return stepped,
                }
            }
        },
        async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            other.commit().await
        }
    );
    committed.unwrap();
    let error = stepped.unwrap_err();
    assert_eq!((error.blame(), error.cause()), (Blame::Passing, "40"), "{error}");
    catch_up(&mut projector).await;
    books.assert_clean().await;
    assert_eq!(books.count("select count(*) from parked_wallets").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_leaves_no_row_of_a_wallet_whose_first_event_cannot_be_applied() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    books.project(Projection::READ_MODEL).await;
    let spoil = "update events set payload = '{}' where wallet_id = 'w1' and version = 1; \
         update events set payload = '{}' where wallet_id = 'w2' and version = 3";
    books.pool.execute(spoil).await.unwrap();
    crate::rebuild::rebuild(&books, Projection::READ_MODEL).await;
    let left = "select coalesce(sum(version), 0)::bigint from wallets_read_model \
         where id in ('w1', 'w2')";
    assert_eq!(books.count(left).await, 2, "one is not there, the other as far as it can be");
    assert_eq!(books.count("select count(*) from wallets_read_model").await, 20);
    let parked = "select sum(version)::bigint from parked_wallets \
         where projector = 'read-model-projector' and wallet_id in ('w1', 'w2')";
    assert_eq!(books.count(parked).await, 1 + 3);
}
