//! `POST /bulk`: many operations in one request, each with its own answer, or all of them or none.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Setup};

async fn bulk(app: &App, operations: Value) -> Answer {
    app.post("/bulk", json!({"operations": operations})).await
}

async fn atomic(app: &App, operations: Value) -> Answer {
    app.post("/bulk", json!({"atomic": true, "operations": operations})).await
}

/// Status and code or balance of each result.
fn shown(answer: &Answer) -> Vec<(u64, String)> {
    let results = answer.json()["results"].as_array().cloned().unwrap_or_default();
    let one = |result: &Value| {
        let body = &result["body"];
        let said = [&body["code"], &body["balance"], &body["fromWallet"]["balance"]];
        let said = said.iter().find_map(|value| value.as_str()).unwrap_or_default();
        (result["status"].as_u64().unwrap(), said.to_owned())
    };
    results.iter().map(one).collect()
}

async fn balance(app: &App, id: &str) -> String {
    let wallet = app.get(&format!("/wallets/{id}")).await.json();
    wallet["balance"].as_str().unwrap_or("none").to_owned()
}

async fn count(app: &App, table: &str) -> i64 {
    let query = format!("select count(*) from {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&app.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_has_its_own_answer_in_order() {
    let app = Setup::without_kafka().start().await;
    let operations = json!([
        {"op": "create", "walletId": "a", "ownerId": "it", "initialBalance": "10"},
        {"op": "credit", "walletId": "a", "amount": 5, "reference": "r-1"},
        {"op": "create", "walletId": "b", "ownerId": "it"},
        {"op": "transfer", "walletId": "a", "toWalletId": "b", "amount": "2.50"},
        {"op": "debit", "walletId": "b", "amount": "3"},
        {"op": "debit", "walletId": "b", "amount": "2"},
        {"op": "credit", "walletId": "none", "amount": "1"},
        {"op": "credit", "walletId": "a", "amount": "0.001"},
        {"op": "credit", "walletId": "a", "amount": "-1", "extra": 1},
        {"op": "burn", "walletId": "a", "amount": "1"},
        {"walletId": "a"},
        7,
        {"op": "transfer", "walletId": "a", "toWalletId": "a", "amount": "1"},
        {"op": "create", "ownerId": "it"},
        {"op": "create", "walletId": "a", "ownerId": "it"},
    ]);
    let answer = bulk(&app, operations).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let expected = [
        (201, "10.00"),
        (201, "15.00"),
        (201, "0.00"),
        (201, "12.50"),
        (400, "insufficient_funds"),
        (201, "0.50"),
        (404, "wallet_not_found"),
        (400, "amount_scale"),
        (400, "invalid_amount"),
        (400, "invalid_value"),
        (400, "missing_field"),
        (400, "invalid_value"),
        (400, "same_wallet"),
        (201, "0.00"),
        (409, "wallet_exists"),
    ];
    let expected: Vec<_> = expected.iter().map(|(s, said)| (*s, (*said).to_owned())).collect();
    assert_eq!(shown(&answer), expected, "{}", answer.text);
    let results = answer.json()["results"].clone();
    let pointers = |at: usize| -> Vec<String> {
        let errors = results[at]["body"]["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(pointers(8), ["/operations/8/amount", "/operations/8/extra"]);
    assert_eq!(pointers(9), ["/operations/9/op"]);
    assert_eq!(pointers(11), ["/operations/11"]);
    assert_eq!(results[4]["body"]["requestId"], answer.header("x-request-id"));
    assert_eq!(results[8]["body"]["requestId"], answer.header("x-request-id"));
    assert_eq!(
        (balance(&app, "a").await, balance(&app, "b").await),
        ("12.50".into(), "0.50".into())
    );

    // One transaction; the ledger follows, and a read with the token waits for it.
    assert_eq!(count(&app, "command_batches").await, 1);
    let token = answer.header("consistency-token").to_owned();
    let request = app.request(Method::GET, "/ledger/wallet/a").header("consistency-token", token);
    let ledger = Answer::of(request.send().await.unwrap()).await.json();
    assert_eq!((&ledger["count"], &ledger["projectedVersion"]), (&json!(3), &json!(4)));
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_atomic_request_is_all_or_nothing() {
    let app = Setup::without_kafka().start().await;
    app.open("a", "10").await;
    app.open("b", "1").await;
    let before = super::refusals::effects(&app).await;
    let operations = |last: &str| {
        json!([
            {"op": "transfer", "walletId": "a", "toWalletId": "b", "amount": "9", "idempotencyKey": "k1"},
            {"op": "create", "walletId": "c", "ownerId": "it", "initialBalance": "4", "idempotencyKey": "k2"},
            {"op": "debit", "walletId": "a", "amount": last, "idempotencyKey": "k3"},
        ])
    };
    let refused = atomic(&app, operations("1.01")).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "insufficient_funds"));
    let problem = refused.json();
    assert_eq!(problem["errors"][0]["pointer"], "/operations/2", "{problem}");
    assert_eq!(problem["requestId"], refused.header("x-request-id"));
    let unread = atomic(
        &app,
        json!([
            {"op": "credit", "walletId": "a", "amount": "1"},
            {"op": "credit", "walletId": "a", "amount": "x"},
        ]),
    );
    let unread = unread.await;
    assert_eq!((unread.status, unread.code().as_str()), (400, "invalid_amount"));
    assert_eq!(unread.json()["errors"][0]["pointer"], "/operations/1/amount");
    assert_eq!(super::refusals::effects(&app).await, before, "a refusal had an effect");

    // Nothing was kept under the keys either: with what is there the same keys succeed.
    let done = atomic(&app, operations("1")).await;
    assert_eq!(done.status, 201, "{}", done.text);
    assert_eq!(balance(&app, "a").await, "0.00");
    assert_eq!(balance(&app, "b").await, "10.00");
    assert_eq!(balance(&app, "c").await, "4.00");
    let again = atomic(&app, operations("1")).await;
    assert_eq!(again.status, 201, "{}", again.text);
    let (done, again) = (done.json(), again.json());
    for at in 0..3 {
        assert_eq!(done["results"][at]["body"], again["results"][at]["body"]);
        assert_eq!(again["results"][at]["replayed"], true);
    }
    assert_eq!(balance(&app, "b").await, "10.00");
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_operations_meet_those_of_the_single_routes() {
    let app = Setup::without_kafka().start().await;
    app.open("a", "10").await;
    let credit = json!({"op": "credit", "walletId": "a", "amount": "1", "idempotencyKey": "k"});
    let first = bulk(&app, json!([credit, credit])).await;
    let results = first.json()["results"].clone();
    assert_eq!(results[0]["body"], results[1]["body"]);
    assert_eq!((&results[0]["replayed"], &results[1]["replayed"]), (&Value::Null, &json!(true)));

    let single =
        app.post_with_key("/wallets/a/credit", "k", &json!({"amount": "1"})).await.unwrap();
    assert_eq!((single.status, single.header("idempotency-replayed")), (201, "true"));
    assert_eq!(single.json(), results[0]["body"]);

    let debit = json!({"amount": 2});
    let single = app.post_with_key("/wallets/a/debit", "d", &debit).await.unwrap();
    let operations = json!([
        {"op": "debit", "walletId": "a", "amount": 2, "idempotencyKey": "d"},
        {"op": "debit", "walletId": "a", "amount": 3, "idempotencyKey": "d"},
    ]);
    let answer = bulk(&app, operations.clone()).await;
    assert_eq!(answer.json()["results"][0]["body"], single.json());
    assert_eq!(shown(&answer)[1], (422, "idempotency_key_reused".to_owned()));
    let refused = atomic(&app, operations).await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "idempotency_key_reused"));
    assert_eq!(balance(&app, "a").await, "9.00");

    // The request's own key stands for a key of each operation.
    let body = json!({"operations": [
        {"op": "credit", "walletId": "a", "amount": 1},
        {"op": "credit", "walletId": "a", "amount": 1},
        {"op": "debit", "walletId": "a", "amount": 1000},
    ]});
    let once = app.post_with_key("/bulk", "whole", &body).await.unwrap();
    app.post("/wallets/a/credit", json!({"amount": 5000})).await;
    let twice = app.post_with_key("/bulk", "whole", &body).await.unwrap();
    assert_eq!(twice.text.replace(r#""replayed":true,"#, ""), once.text);
    assert_eq!(shown(&twice)[2], (400, "insufficient_funds".to_owned()));
    assert_eq!(balance(&app, "a").await, "5011.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_none_are_refused_as_a_whole() {
    let app = Setup::without_kafka().with("REQUIRE_IDEMPOTENCY_KEY", true).start().await;
    let credit = json!({"op": "credit", "walletId": "a", "amount": 1});
    let many: Vec<&Value> = vec![&credit; 1001];
    for (body, code, pointer) in [
        (json!({}), "missing_field", "/operations"),
        (json!({"operations": []}), "invalid_value", "/operations"),
        (json!({"operations": {}}), "invalid_value", "/operations"),
        (json!({"operations": many}), "invalid_value", "/operations"),
        (json!({"operations": [], "atomic": "yes"}), "invalid_value", "/atomic"),
        (json!({"operations": [credit], "x": 1}), "unknown_field", "/x"),
    ] {
        let answer = app.post("/bulk", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{}", answer.text);
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{}", answer.text);
    }
    let large = json!({"operations": [credit], "x": "y".repeat(4 * 1024 * 1024)});
    assert_eq!(app.post("/bulk", large).await.code(), "body_too_large");
    // Keys are a duty here, of each operation.
    let answer = bulk(&app, json!([credit])).await;
    assert_eq!(shown(&answer), [(400, "invalid_idempotency_key".to_owned())]);
    let pointer = &answer.json()["results"][0]["body"]["errors"][0]["pointer"];
    assert_eq!(pointer, "/operations/0/idempotencyKey");
    assert_eq!(count(&app, "command_batches").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn crossed_bulk_transfers_of_two_instances_keep_every_cent() {
    const WALLETS: usize = 8;
    let first = Setup::shared().with("COMMAND_LANES", 2).start().await;
    let second = first.second_instance().await;
    for n in 0..WALLETS {
        first.open(&format!("w{n}"), "100").await;
    }
    let worker = async |worker: usize| {
        let app = if worker.is_multiple_of(2) { &first } else { &second };
        for round in 0..6 {
            let operation = |n: usize| {
                let (from, to) = ((n + worker) % WALLETS, (n * 3 + round + 1) % WALLETS);
                let to = if to == from { (to + 1) % WALLETS } else { to };
                json!({"op": "transfer", "walletId": format!("w{from}"),
                    "toWalletId": format!("w{to}"), "amount": "1.37",
                    "idempotencyKey": format!("{worker}-{round}-{n}")})
            };
            let operations: Vec<Value> = (0..40).map(operation).collect();
            let body = json!({"atomic": round % 2 == 0, "operations": operations});
            let answer = app.post("/bulk", body).await;
            let fine = match answer.status {
                201 => {
                    shown(&answer).iter().all(|(s, code)| *s == 201 || code == "insufficient_funds")
                }
                400 => answer.code() == "insufficient_funds",
                _ => false,
            };
            assert!(fine, "{}", answer.text);
        }
    };
    futures_util::future::join_all((0..8).map(worker)).await;
    let (sum, lowest): (String, bool) =
        sqlx::query_as("select trim_scale(sum(balance))::text, min(balance) >= 0 from wallets")
            .fetch_one(&first.pool)
            .await
            .unwrap();
    assert_eq!((sum.as_str(), lowest), ("800", true));
    first.drain().await;
    first.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_operations_are_one_transaction() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "0").await;
    let credit = |n: usize| json!({"op": "credit", "walletId": "w", "amount": "0.01", "idempotencyKey": n.to_string()});
    let operations: Vec<Value> = (0..1000).map(credit).collect();
    let answer = bulk(&app, json!(operations)).await;
    assert_eq!(answer.status, 201);
    let results = answer.json()["results"].as_array().cloned().unwrap();
    assert_eq!(results.len(), 1000);
    assert_eq!(results[999]["body"]["balance"], "10.00");
    assert_eq!(results[999]["body"]["version"], 1001);
    assert_eq!(count(&app, "command_batches").await, 2);
    app.drain().await;
    app.assert_reconciled();
}

/// An operation that Postgres refuses is a mistake of ours: it must not take its neighbours along.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_cannot_be_written_fails_alone() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "0").await;
    let barred =
        "alter table events add constraint barred check (payload ->> 'changeAmount' <> '6.66')";
    sqlx::query(barred).execute(&app.pool).await.unwrap();
    let credit = |amount: &str| json!({"op": "credit", "walletId": "w", "amount": amount});
    let operations = json!([credit("1"), credit("6.66"), credit("2")]);
    let whole = atomic(&app, operations.clone()).await;
    assert_eq!((whole.status, whole.code().as_str()), (500, "internal_error"));
    assert_eq!(balance(&app, "w").await, "0.00");
    let answer = bulk(&app, operations).await;
    let expected = [(201, "1.00"), (500, "internal_error"), (201, "3.00")];
    assert_eq!(shown(&answer), expected.map(|(status, said)| (status, said.to_owned())));
    assert_eq!(balance(&app, "w").await, "3.00");
}
