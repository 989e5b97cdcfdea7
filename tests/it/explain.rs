//! Why a wallet's balance is what it is, and what would become of a debit.

use serde_json::{Value, json};

use crate::support::app::{App, Setup};

async fn explained(app: &App, query: &str) -> Value {
    let answer = app.get(&format!("/wallets/w/explain{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn holding(seen: &Value) -> Vec<Option<bool>> {
    seen["checks"].as_array().unwrap().iter().map(|check| check["holds"].as_bool()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_is_explained_to_its_last_event() {
    let app = Setup::shared().start().await;
    let body =
        json!({"walletId": "w", "ownerId": "it", "initialBalance": "10", "overdraftLimit": "5"});
    assert_eq!(app.post("/wallets", body).await.status, 201);
    app.open("v", "0").await;
    for (path, body) in [
        ("/wallets/w/credit", json!({"amount": "2.50"})),
        ("/wallets/w/debit", json!({"amount": "14"})),
        ("/wallets/w/transfer", json!({"amount": "1.25", "toWalletId": "v"})),
    ] {
        assert_eq!(app.post(path, body).await.status, 201);
    }
    app.drain().await;
    let seen = explained(&app, "").await;
    assert_eq!(
        (&seen["balance"]["amount"], &seen["available"]["amount"]),
        (&json!("-2.75"), &json!("2.25"))
    );
    assert_eq!(
        seen["balance"]["byType"],
        json!([
            {"transactionType": "CREDIT", "amount": "12.50", "count": 2},
            {"transactionType": "DEBIT", "amount": "14.00", "count": 1},
            {"transactionType": "TRANSFER_OUT", "amount": "1.25", "count": 1},
        ])
    );
    assert_eq!((&seen["held"]["amount"], &seen["debit"]), (&json!("0.00"), &Value::Null));
    assert_eq!(holding(&seen), [Some(true); 5], "{seen}");
    let events = seen["lastEvents"].as_array().unwrap();
    assert_eq!((events.len(), &events[0]["version"]), (5, &json!(5)));
    for event in events {
        assert_eq!(
            [&event["sent"], &event["inLedger"], &event["inReadModel"]],
            [true, true, true],
            "{seen}"
        );
    }

    let enough = explained(&app, "?debit=2.25").await;
    assert_eq!(
        (&enough["debit"]["wouldSucceed"], &enough["debit"]["code"]),
        (&json!(true), &Value::Null)
    );
    let refused = explained(&app, "?debit=2.26").await;
    assert_eq!(
        refused["debit"],
        json!({
            "amount": "2.26", "wouldSucceed": false, "code": "insufficient_funds",
            "detail": "2.25 is available, 2.26 was asked for",
        })
    );
    let fine = explained(&app, "?debit=0.001").await;
    assert_eq!(fine["debit"]["code"], "amount_scale");
    for amount in ["0", "-1", "1e3", "much"] {
        assert_eq!(
            app.get(&format!("/wallets/w/explain?debit={amount}")).await.code(),
            "invalid_amount"
        );
    }
    // Nothing was done.
    assert_eq!(app.get("/wallets/w").await.json()["version"], 5);
    assert_eq!(app.get("/wallets/none/explain").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn books_that_disagree_say_so() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    app.drain().await;
    for (sql, at) in [
        ("update wallets set balance = balance + 1 where id = 'w'", 1),
        (
            "update wallets set balance = balance - 1, updated_at = updated_at + interval '1 s' where id = 'w'",
            2,
        ),
        ("update projected_wallets set total_credits = total_credits + 1 where wallet_id = 'w'", 3),
        ("update wallets_read_model set balance = balance + 1 where id = 'w'", 4),
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
        let seen = explained(&app, "").await;
        assert_eq!(holding(&seen)[at], Some(false), "{sql}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_projected_yet_is_no_contradiction() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    app.drain().await;
    let sql = "delete from projected_wallets; delete from wallets_read_model";
    let mut held = app.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table projected_wallets, wallets_read_model in exclusive mode")
        .execute(&mut *held)
        .await
        .unwrap();
    sqlx::raw_sql(sql).execute(&mut *held).await.unwrap();
    held.commit().await.unwrap();
    let seen = explained(&app, "").await;
    assert_eq!(holding(&seen)[3..], [None, None], "{seen}");
    assert_eq!(seen["balance"]["projectedVersion"], 0);
}
