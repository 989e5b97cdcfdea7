//! Storms on few wallets, over one instance, several lanes and two instances.

use serde_json::json;

use super::{assert_settled, full, open_with_overdraft, stand, status, storm};
use crate::support::app::{App, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn one_wallet_takes_twenty_thousand_credits_and_loses_none() {
    let app = Setup::without_kafka().start().await;
    app.open("hot", "1").await;
    let credit = async |_| status(&app, "/wallets/hot/credit", json!({"amount": "0.01"})).await;
    assert_eq!(storm(64, 20_000, credit).await, [(201, 20_000)]);
    assert_eq!(stand(&app, "hot").await, ("201.00".to_owned(), 20_002));
    // 1..n, each once, and each step is the one before plus a cent.
    let gaps: i64 = sqlx::query_scalar(
        "select count(*) from (select version, (payload ->> 'newBalance')::numeric as balance, \
             row_number() over (order by version) as n, \
             lag((payload ->> 'newBalance')::numeric) over (order by version) as before \
             from events where wallet_id = 'hot') e \
         where version <> n or (n > 2 and balance <> before + 0.01)",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!(gaps, 0);
    assert_settled(&app).await;
}

/// Transfers both ways between two pairs from all of `apps`: 1, 2 or 3 by turns.
async fn cross(apps: &[&App], transfers: usize) {
    for id in ["a", "b", "c", "d"] {
        apps[0].open(id, "100000").await;
    }
    let transfer = async |n: usize| {
        let pairs = [["a", "b"], ["b", "a"], ["c", "d"], ["d", "c"], ["a", "d"], ["d", "a"]];
        let [from, to] = pairs[n % 6];
        let body = json!({"toWalletId": to, "amount": n / 6 % 3 + 1});
        status(apps[n / 6 % apps.len()], &format!("/wallets/{from}/transfer"), body).await
    };
    assert_eq!(storm(64, transfers, transfer).await, [(201, transfers)]);
    // Each direction moved as much as its opposite.
    let mut versions = 0;
    for id in ["a", "b", "c", "d"] {
        let (balance, version) = stand(apps[0], id).await;
        assert_eq!(balance, "100000.00", "{id}");
        versions += version - 2;
    }
    assert_eq!(versions, 2 * transfers as i64);
    assert_settled(apps[0]).await;
}

fn transfers() -> usize {
    if full() { 18_000 } else { 3600 }
}

#[tokio::test(flavor = "multi_thread")]
async fn crossed_transfers_neither_deadlock_nor_fail() {
    let app = Setup::without_kafka().start().await;
    cross(&[&app], transfers()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crossed_transfers_over_four_lanes_neither_deadlock_nor_fail() {
    let app = Setup::without_kafka().with("COMMAND_LANES", 4).start().await;
    cross(&[&app], transfers()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crossed_transfers_over_two_instances_neither_deadlock_nor_fail() {
    let app = Setup::without_kafka().with("COMMAND_LANES", 2).start().await;
    let other = app.second_instance().await;
    cross(&[&app, &other], transfers()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_debits_succeed_as_the_funds_allow() {
    let app = Setup::without_kafka().with("COMMAND_LANES", 2).start().await;
    let other = app.second_instance().await;
    app.open("plain", "10").await;
    open_with_overdraft(&app, "overdrawn", "10", "5").await;
    for (id, funds) in [("plain", 10), ("overdrawn", 15)] {
        let debit = async |n: usize| {
            let app = if n.is_multiple_of(2) { &app } else { &other };
            status(app, &format!("/wallets/{id}/debit"), json!({"amount": "0.50"})).await
        };
        assert_eq!(storm(64, 300, debit).await, [(201, 2 * funds), (400, 300 - 2 * funds)], "{id}");
    }
    assert_eq!(stand(&app, "plain").await, ("0.00".to_owned(), 22));
    assert_eq!(stand(&app, "overdrawn").await, ("-5.00".to_owned(), 32));
    // Not even for a moment.
    let below: i64 = sqlx::query_scalar(
        "select count(*) from events e join wallets w on w.id = e.wallet_id \
         where (e.payload ->> 'newBalance')::numeric + w.overdraft_limit < 0",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!(below, 0);
    assert_settled(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debit_and_a_transfer_never_spend_the_same_money() {
    let app = Setup::without_kafka().with("COMMAND_LANES", 4).start().await;
    app.open("till", "0").await;
    for round in 0..50 {
        let id = format!("w-{round}");
        app.open(&id, "1").await;
        let spend = async |n: usize| match n % 2 {
            0 => status(&app, &format!("/wallets/{id}/debit"), json!({"amount": 1})).await,
            _ => {
                let body = json!({"amount": 1, "toWalletId": "till"});
                status(&app, &format!("/wallets/{id}/transfer"), body).await
            }
        };
        assert_eq!(storm(4, 4, spend).await, [(201, 1), (400, 3)]);
        assert_eq!(stand(&app, &id).await, ("0.00".to_owned(), 3));
    }
    assert_settled(&app).await;
}
