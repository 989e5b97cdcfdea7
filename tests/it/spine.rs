//! The spine: one credit from a client to the ledger, through real Postgres and real Kafka.

use serde_json::json;

use crate::support::app::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_reaches_the_ledger() {
    let app = Setup::shared().start().await;
    app.open("w-1", "10.00").await;
    let credit = app.post("/wallets/w-1/credit", json!({"amount": "150.50"})).await;
    assert_eq!(credit.status, 201, "{}", credit.text);
    assert_eq!(credit.json()["balance"], "160.50");
    app.drain().await;
    let ledger = app.get("/ledger/wallet/w-1").await.json();
    assert_eq!(ledger["count"], 2);
    assert_eq!(ledger["transactions"][0]["balanceAfter"], "160.50");
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_the_ledger_is_fed_from_postgres() {
    let app = Setup::without_kafka().start().await;
    app.open("w-1", "10.00").await;
    app.drain().await;
    assert_eq!(app.get("/ledger/wallet/w-1").await.json()["count"], 1);
    app.assert_reconciled();
}
