//! A record that the broker will never take: only its own wallet waits behind it.

use std::time::Duration;

use serde_json::json;

use crate::support::app::Setup;
use crate::support::{eventually, servers};

/// Text that does not compress.
fn noise(bytes: usize) -> String {
    let mut draw = crate::support::load::Draw(7);
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    (0..bytes).map(|_| char::from(letters[draw.below(64) as usize])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_refused_is_set_aside_and_holds_back_its_own_wallet_only() {
    let setup = Setup::shared().with("KAFKA_EVENTS_TOPIC", "events-small-records");
    let made = servers::kafka_tool(
        "org.apache.kafka.tools.TopicCommand",
        &[
            "--create",
            "--topic",
            "events-small-records",
            "--partitions",
            "1",
            "--config",
            "max.message.bytes=6000",
        ],
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let app = setup.with("DEFAULT_PARTITIONS", 1).with("KAFKA_RETRY_MAX_MS", 100).start().await;
    let large = json!({"walletId": "large", "ownerId": "it", "initialBalance": "1.00",
        "metadata": {"noise": noise(12_000)}});
    assert_eq!(app.post("/wallets", large).await.status, 201);
    for number in 0..20 {
        app.open(&format!("w-{number}"), "1.00").await;
    }
    let credited = app.post("/wallets/w-3/credit", json!({"amount": "1.00"})).await;
    assert_eq!(credited.status, 201);

    let waiting =
        eventually("all others sent, one set aside", Duration::from_secs(60), async || {
            let waiting: Vec<(String, i64, i32, Option<String>)> = sqlx::query_as(
                "select aggregate_id, event_version, attempts, last_error from outbox \
             where processed_at is null order by id, event_version",
            )
            .fetch_all(&app.pool)
            .await
            .unwrap();
            (waiting.len() == 2 && waiting[0].2 >= 3).then_some(waiting)
        })
        .await;
    assert_eq!((waiting[0].0.as_str(), waiting[0].1), ("large", 1));
    assert!(waiting[0].3.as_ref().unwrap().contains("MessageTooLarge"), "{waiting:?}");
    assert_eq!((waiting[1].0.as_str(), waiting[1].1, waiting[1].2), ("large", 2, 0), "it waits");
    let published = "select count(*) from outbox where published";
    let published: i64 = sqlx::query_scalar(published).fetch_one(&app.pool).await.unwrap();
    assert_eq!(published, 41, "two of each of the others, and a credit");
    // The books do not wait for it: the other feed has them.
    app.assert_reconciled();
}
