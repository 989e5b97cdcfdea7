//! The kit's leases: instances share partitions, give up only what they do not have in hand, and leave
//! nothing behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use wallex::background::leases::Leases;
use wallex::instance::Instance;
use wallex::store::leases::Leased;

use crate::projectors::books::Books;
use crate::support::eventually;

const PARTITIONS: i32 = 4;

fn leases(books: &Books) -> Leases {
    let (tenant, topic) = ("default".to_owned(), "shared".to_owned());
    let leased = Leased { tenant, role: "test", topic, partitions: PARTITIONS };
    Leases::new(books.pool.clone(), Arc::new(Instance::new(Duration::from_secs(10))), leased)
}

/// What is assigned after a renewal at once.
async fn renewed(leases: &Leases, in_hand: impl IntoIterator<Item = i32>) -> Vec<i32> {
    leases.renew_now();
    leases.renew().await.unwrap();
    partitions(leases, in_hand)
}

fn partitions(leases: &Leases, in_hand: impl IntoIterator<Item = i32>) -> Vec<i32> {
    let in_hand: BTreeSet<i32> = in_hand.into_iter().collect();
    leases.assigned(&in_hand).map(|of| of.into_keys().collect()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_gives_up_its_surplus_once_it_is_not_in_hand() {
    let books = Books::open().await;
    let (first, second) = (leases(&books), leases(&books));
    assert_eq!(partitions(&first, []), [0; 0], "nothing before the first renewal");
    assert_eq!(renewed(&first, []).await, [0, 1, 2, 3]);
    assert!(first.stands(tokio::time::Instant::now()));
    assert_eq!(renewed(&second, []).await, [0; 0], "all of them are taken");
    assert_eq!(renewed(&first, [0, 1, 2, 3]).await, [0, 1], "the share of two");
    assert_eq!(renewed(&second, []).await, [0; 0], "the surplus is in hand");
    assert_eq!(renewed(&first, [0, 1, 3]).await, [0, 1]);
    // What was not in hand goes with the renewal that follows.
    assert_eq!(renewed(&first, [0, 1, 3]).await, [0, 1]);
    assert_eq!(renewed(&second, []).await, [2]);
    partitions(&first, [0, 1]);
    first.renew().await.unwrap();
    assert_eq!(renewed(&second, []).await, [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_renewed_beside_the_work_and_given_up_at_its_end() {
    let books = Books::open().await;
    let (first, second) = (leases(&books), leases(&books));
    let end = Notify::new();
    let work = async {
        let mut leases = first.clone();
        leases.changed().await;
        assert_eq!(partitions(&leases, []), [0, 1, 2, 3]);
        end.notified().await;
    };
    let watching = async {
        eventually("they are taken", Duration::from_secs(10), async || {
            (partitions(&first, []).len() == 4).then_some(())
        })
        .await;
        assert_eq!(renewed(&second, []).await, [0; 0]);
        end.notify_one();
    };
    tokio::join!(first.beside(work), watching);
    assert_eq!(renewed(&second, []).await, [0, 1, 2, 3], "no expiry had to be waited for");
}
