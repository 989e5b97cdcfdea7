//! Two instances share the partitions of commands; one that is killed is replaced by the other.

use serde_json::json;

use super::{PATIENCE, answered, command, send, start};
use crate::support::app::{App, Setup};
use crate::support::eventually;

async fn shared_as(app: &App, sizes: &[i64]) {
    eventually(&format!("partitions shared {sizes:?}"), PATIENCE, async || {
        let mut found: Vec<i64> = sqlx::query_scalar(
            "select count(*) from partition_leases \
             where role = 'wallex-commands' and expires_at > clock_timestamp() group by owner",
        )
        .fetch_all(&app.pool)
        .await
        .unwrap();
        found.sort_unstable();
        (found == sizes).then_some(())
    })
    .await;
}

async fn send_some(app: &App, from: usize, count: usize) -> Vec<String> {
    let ids: Vec<String> = (from..from + count).map(|n| format!("c-{n}")).collect();
    let credit = |(n, id): (usize, &String)| {
        let wallet = format!("w-{}", n % 20);
        command(&json!({"commandId": id, "op": "credit", "walletId": wallet, "amount": "1.00"}))
    };
    send(app, ids.iter().enumerate().map(credit).collect()).await;
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_the_commands_and_take_over_from_one_that_is_killed() {
    let first = start(Setup::shared()).await;
    for number in 0..20 {
        first.open(&format!("w-{number}"), "0").await;
    }
    shared_as(&first, &[10]).await;
    let second = first.second_instance().await;
    shared_as(&first, &[5, 5]).await;
    let mut ids = send_some(&first, 0, 200).await;
    answered(&first, &[ids[199].as_str()], 1).await;
    ids.extend(send_some(&first, 200, 200).await);
    drop(second);
    ids.extend(send_some(&first, 400, 200).await);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let told = answered(&first, &ids, 1).await;
    assert!(told.values().flatten().all(|told| told.status == 201), "{told:?}");
    shared_as(&first, &[10]).await;
    for number in 0..20 {
        let wallet = first.get(&format!("/wallets/w-{number}")).await.json();
        assert_eq!(wallet["balance"], "30.00", "{wallet}");
    }
    first.drain().await;
    first.assert_reconciled();
}
