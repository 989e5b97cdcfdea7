//! Every kind of listener carries the service: a hundred commands through Kafka and back.

use std::time::Duration;

use serde_json::json;

use super::broker::secured;
use crate::support::{eventually, topic};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_kind_of_listener_takes_a_hundred_commands_end_to_end() {
    let secured = secured();
    let mut app = None;
    for (number, (kind, variables)) in secured.kinds().into_iter().enumerate() {
        let mut running = match app.take() {
            // The ledger is fed by the topic alone.
            None => {
                let setup = secured.setup(&variables).with("PROJECTOR_FEEDS", "kafka");
                setup.with_commands().start().await
            }
            Some(app) => app,
        };
        if number > 0 {
            running.stop();
            // Empty is as good as unset.
            let all = secured.kind(true, Some("plain"));
            let unset = all.iter().map(|(name, _)| (*name, String::new()));
            for (name, value) in unset.chain(variables) {
                running.set(name, value);
            }
            running.spawn();
            running.ready().await;
        }
        let wallet = format!("w-{number}");
        running.open(&wallet, "1.00").await;
        let credit = json!({"op": "credit", "walletId": wallet, "amount": "1.00"});
        let answer = running.post("/bulk", json!({"operations": vec![credit; 99]})).await;
        assert_eq!(answer.status, 201, "{kind}: {}", answer.text);
        running.drain().await;
        let health = running.get("/health/kafka").await.json();
        assert_eq!(health["kafka"]["status"], "connected", "{kind}: {health}");
        let summary = running.get(&format!("/ledger/wallet/{wallet}/summary")).await.json();
        assert_eq!(summary["totalCredits"], "100.00", "{kind}: {summary}");
        let group = running.group("wallex-commands");
        eventually(&format!("{kind}: commands are read"), PATIENCE, async || {
            let stats = running.get("/health/kafka/stats").await.json();
            let partitions = stats["groups"][&group]["partitions"].as_array()?.clone();
            let is_read = |partition: &serde_json::Value| partition["logEnd"].is_number();
            (partitions.len() == 10 && partitions.iter().all(is_read)).then_some(())
        })
        .await;
        app = Some(running);
    }
    let app = app.unwrap();
    app.assert_reconciled();
    let topic = topic::assert_same(&secured.plaintext, &app).await;
    // A wallet with its opening balance is two events.
    assert_eq!(topic.records - topic.duplicates, 8 * 101);
}
