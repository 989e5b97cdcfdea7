//! What a command does and what its sender is told: as the same operation over HTTP.

use serde_json::json;

use super::{answered, command, send, start};
use crate::support::app::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_takes_effect_once_and_is_answered() {
    let app = start(Setup::shared()).await;
    app.open("w", "10.00").await;
    let credit = json!({"commandId": "c-1", "op": "credit", "walletId": "w", "amount": "2.50",
                        "reference": "order-7"});
    send(&app, vec![command(&credit)]).await;
    let told = answered(&app, &["c-1"], 1).await;
    let first = &told["c-1"][0];
    assert_eq!((first.status, &first.body["balance"]), (201, &json!("12.50")), "{first:?}");
    assert_eq!(app.get("/wallets/w").await.json()["balance"], "12.50");
}
