//! A command that Postgres will not take: it fails, and none that happened to be in its batch.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::app::{App, Setup};

/// Has the books refuse events of one wallet, at once or at the end of the transaction.
async fn refuse(app: &App, deferred: bool) {
    let (kind, when) = match deferred {
        true => ("constraint trigger", "after insert on events deferrable initially deferred"),
        false => ("trigger", "before insert on events"),
    };
    let sql = format!(
        "create function refuse() returns trigger language plpgsql as $$ begin \
             if new.wallet_id = 'guilty' then raise exception 'not this wallet'; end if; \
             return new; end $$; \
         create {kind} refuse {when} for each row execute function refuse()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&app.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_a_trigger_refuses_fails_and_no_other_of_its_batch() {
    for deferred in [false, true] {
        let app = Setup::without_kafka().start().await;
        let wallets: Vec<String> = (0..60).map(|n| format!("w{n}")).collect();
        app.open("guilty", "0").await;
        join_all(wallets.iter().map(|wallet| app.open(wallet, "0"))).await;
        refuse(&app, deferred).await;
        let body = json!({"amount": "1.00"});
        for _ in 0..3 {
            let paths: Vec<String> = wallets
                .iter()
                .map(String::as_str)
                .chain(["guilty"])
                .map(|wallet| format!("/wallets/{wallet}/credit"))
                .collect();
            let credits = join_all(paths.iter().map(|path| app.post(path, body.clone())));
            let answers = tokio::time::timeout(Duration::from_secs(20), credits).await.unwrap();
            let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
            let (guilty, others) = statuses.split_last().unwrap();
            assert!(others.iter().all(|status| *status == 201), "{deferred}: {others:?}");
            assert_eq!(*guilty, 500, "{deferred}");
        }
        let credit = |wallet: &str| json!({"op": "credit", "walletId": wallet, "amount": "1.00"});
        let operations = [credit("w1"), credit("guilty"), credit("w2")];
        let bulk = app.post("/bulk", json!({"operations": operations})).await.json();
        let results = bulk["results"].as_array().unwrap();
        let statuses: Vec<u64> = results.iter().map(|r| r["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [201, 500, 201], "{deferred}");
        app.drain().await;
        app.assert_reconciled();
    }
}
