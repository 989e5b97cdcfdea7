//! Money twice: a bulk retried in another order. The header's key stands for the whole request.

use serde_json::{Value, json};

use super::{assert_replayed, assert_reused, balances, credit, debit, results, send, unmarked};
use crate::support::app::{Answer, App, Setup};

async fn keys(app: &App) -> i64 {
    let count = sqlx::query_scalar("select count(*) from idempotency_keys");
    count.fetch_one(&app.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn money_twice_a_bulk_retried_in_another_order() {
    let app = Setup::without_kafka().start().await;
    app.open("a", "0").await;
    app.open("b", "0").await;
    let (ten, twenty) = (credit("a", "10.00"), credit("b", "20.00"));
    for atomic in [false, true] {
        let key = format!("pay-{atomic}");
        let before = balances(&app, ["a", "b"]).await;
        let body = [ten.clone(), twenty.clone()];
        let first = send(&app, &key, &body, atomic).await;
        assert_eq!(first.status, 201, "{}", first.text);
        let after = balances(&app, ["a", "b"]).await;
        assert_ne!(after, before);

        let longer = [ten.clone(), twenty.clone(), credit("a", "1.00")];
        let others: [&[Value]; 6] = [
            &[twenty.clone(), ten.clone()],
            &[ten.clone(), credit("b", "20.01")],
            &[ten.clone(), credit("a", "20.00")],
            &[ten.clone(), debit("b", "20.00")],
            &longer,
            &longer[..1],
        ];
        for other in others {
            assert_reused(&send(&app, &key, other, atomic).await);
        }
        // All or none is part of what was asked for; so is a key of an operation's own.
        assert_reused(&send(&app, &key, &body, !atomic).await);
        let mut named = body.clone();
        named[1]["idempotencyKey"] = json!("own");
        assert_reused(&send(&app, &key, &named, atomic).await);
        assert_eq!(balances(&app, ["a", "b"]).await, after);

        // What is parsed counts, not how it was written.
        let text = format!(
            r#"{{ "operations": [ {{"amount": 10.00, "walletId":"a", "op":"credit", "reference":null}},
                {{"walletId":"b","op":"credit","amount":"20.00"}}], "atomic" : {atomic} }}"#
        );
        let request = app.request(reqwest::Method::POST, "/bulk").header("idempotency-key", &key);
        let request = request.header("content-type", "application/json").body(text);
        assert_replayed(&first, &Answer::of(request.send().await.unwrap()).await);
        app.post("/wallets/a/credit", json!({"amount": "0.01"})).await;
        assert_replayed(&first, &send(&app, &key, &body, atomic).await);
    }
    // The header's key of a single route is another one.
    let single = app.post_with_key("/wallets/a/credit", "pay-true", &json!({"amount": "1"})).await;
    assert_eq!(single.unwrap().status, 201);
    assert_eq!(balances(&app, ["a", "b"]).await, ["21.02".to_owned(), "40.00".to_owned()]);
    app.drain().await;
    app.assert_reconciled();
}

/// What was answered stays answered, although it could be done by now: the retry says the same.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_a_bulk_are_replayed_with_it() {
    let app = Setup::without_kafka().start().await;
    app.open("a", "1.00").await;
    let body = [debit("a", "5.00"), credit("later", "1.00"), credit("a", "0.001")];
    let first = send(&app, "no", &body, false).await;
    let wanted = [(400, "insufficient_funds"), (404, "wallet_not_found"), (400, "amount_scale")];
    assert_eq!(results(&first), wanted.map(|(status, code)| (status, code.to_owned())));
    app.open("later", "0").await;
    app.post("/wallets/a/credit", json!({"amount": "100.00"})).await;
    assert_replayed(&first, &send(&app, "no", &body, false).await);
    assert_reused(&send(&app, "no", &body[..2], false).await);

    // All or none: a refusal decided on the state is the key's answer, as on a single route.
    let body = [credit("a", "1.00"), debit("later", "5.00")];
    let first = send(&app, "none", &body, true).await;
    assert_eq!((first.status, first.code().as_str()), (400, "insufficient_funds"));
    assert_eq!(first.json()["errors"][0]["pointer"], "/operations/1");
    app.post("/wallets/later/credit", json!({"amount": "100.00"})).await;
    assert_replayed(&first, &send(&app, "none", &body, true).await);
    assert_reused(&send(&app, "none", &body[..1], true).await);
    assert_eq!(balances(&app, ["a", "later"]).await, ["101.00".to_owned(), "100.00".to_owned()]);

    // One that the caller can mend is not kept, as on a single route.
    let body = [credit("a", "1.00"), credit("missing", "5.00")];
    assert_eq!(send(&app, "mend", &body, true).await.code(), "wallet_not_found");
    app.open("missing", "0").await;
    let mended = send(&app, "mend", &body, true).await;
    assert_eq!((mended.status, mended.header("idempotency-replayed")), (201, ""));
    assert_replayed(&mended, &send(&app, "mend", &body, true).await);
}

/// Errors of form are not kept where nothing was done; beside what was done they are a part of the request.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_operations_of_a_bulk_can_be_mended_only_where_nothing_was_done() {
    let app = Setup::without_kafka().start().await;
    app.open("a", "0").await;
    let bad = credit("a", "-1");
    let all_bad = [bad.clone(), json!({"op": "burn"}), json!(7)];
    let answer = send(&app, "form", &all_bad, false).await;
    assert_eq!((answer.status, results(&answer).len()), (201, 3));
    assert_eq!(send(&app, "form", &all_bad, true).await.status, 400);
    let before = keys(&app).await;
    assert_eq!(before, 0);
    let mended = [credit("a", "1.00")];
    let first = send(&app, "form", &mended, false).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, ""));
    assert_replayed(&first, &send(&app, "form", &mended, false).await);

    let some_bad = [credit("a", "2.00"), bad.clone(), json!({"op": "credit", "n": [1, {"x": 2}]})];
    let first = send(&app, "some", &some_bad, false).await;
    assert_eq!(results(&first)[1].1, "invalid_amount");
    assert_replayed(&first, &send(&app, "some", &some_bad, false).await);
    for other in [
        [some_bad[0].clone(), credit("a", "1"), some_bad[2].clone()],
        [some_bad[0].clone(), some_bad[2].clone(), bad.clone()],
        [some_bad[0].clone(), credit("a", "-2"), some_bad[2].clone()],
    ] {
        assert_reused(&send(&app, "some", &other, false).await);
    }
    assert_eq!(balances(&app, ["a"]).await, ["3.00"]);
}

/// An operation's own key keeps the scope of its single route, under a key of the request as well.
#[tokio::test(flavor = "multi_thread")]
async fn operations_with_keys_of_their_own_meet_the_single_routes_under_a_key_of_the_request() {
    let app = Setup::without_kafka().start().await;
    app.open("a", "0").await;
    let mut own = credit("a", "1.00");
    own["idempotencyKey"] = json!("own");
    let body = [own.clone(), credit("a", "2.00")];
    let first = send(&app, "k", &body, false).await;
    let single = app.post_with_key("/wallets/a/credit", "own", &json!({"amount": "1.00"})).await;
    assert_eq!(single.unwrap().json(), first.json()["results"][0]["body"]);
    assert_replayed(&first, &send(&app, "k", &body, false).await);
    // Under another key of the request only what has that key is done again.
    let second = send(&app, "k2", &body, false).await;
    assert_eq!(second.header("idempotency-replayed"), "");
    assert_eq!(second.json()["results"][0]["replayed"], true);
    assert_eq!(second.json()["results"][1]["replayed"], Value::Null);
    assert_eq!(balances(&app, ["a"]).await, ["5.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_the_answers_of_a_bulk_are_gone_its_key_still_forbids_a_second_effect() {
    let app = Setup::without_kafka().start().await;
    app.open("a", "0").await;
    let (body, refused) = ([credit("a", "1.00"), credit("a", "2.00")], [debit("a", "900.00")]);
    let each = send(&app, "each", &body, false).await.json();
    let all = send(&app, "all", &body, true).await.json();
    assert_eq!(send(&app, "refused", &refused, true).await.code(), "insufficient_funds");
    let drop = "update idempotency_keys set answer = null, status = null";
    sqlx::query(drop).execute(&app.pool).await.unwrap();
    app.post("/wallets/a/credit", json!({"amount": "994.00"})).await;
    for (key, body, atomic, first) in [
        ("each", &body[..], false, &each["results"][0]["body"]["transactionId"]),
        ("all", &body[..], true, &all["results"][0]["body"]["transactionId"]),
        ("refused", &refused[..], true, &Value::Null),
    ] {
        let expired = send(&app, key, body, atomic).await;
        assert_eq!((expired.status, expired.code().as_str()), (409, "idempotency_key_expired"));
        assert!(expired.json()["transactionId"].is_string(), "{}", expired.text);
        if first.is_string() {
            assert_eq!(expired.json()["transactionId"], *first, "{key}");
        }
        assert_reused(&send(&app, key, &[credit("a", "7.00")], atomic).await);
    }
    assert_eq!(balances(&app, ["a"]).await, ["1000.00"]);
}

/// Each operation of such a request runs in a transaction of its own: the first of them reserves the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_that_is_done_in_parts_is_finished_by_its_retry_and_by_no_other_body() {
    let app = Setup::without_kafka().start().await;
    app.open("a", "0").await;
    app.open("b", "0").await;
    let barred =
        "alter table events add constraint barred check (payload ->> 'changeAmount' <> '6.66')";
    sqlx::query(barred).execute(&app.pool).await.unwrap();
    let body = [credit("a", "6.66"), credit("a", "1.00"), credit("b", "2.00"), debit("b", "50")];
    let first = send(&app, "parts", &body, false).await;
    let said: Vec<u64> = results(&first).iter().map(|(status, _)| *status).collect();
    assert_eq!(said, [500, 201, 201, 400], "{}", first.text);
    let reordered = [body[1].clone(), body[0].clone(), body[2].clone(), body[3].clone()];
    assert_reused(&send(&app, "parts", &reordered, false).await);
    let unbarred = "alter table events drop constraint barred";
    sqlx::query(unbarred).execute(&app.pool).await.unwrap();
    assert_reused(&send(&app, "parts", &body[..3], false).await);
    let second = send(&app, "parts", &body, false).await;
    let (first, second_) = (first.json(), second.json());
    assert_eq!(second_["results"][0]["status"], 201);
    for at in 1..4 {
        assert_eq!(second_["results"][at]["body"], first["results"][at]["body"]);
        assert_eq!(second_["results"][at]["replayed"], true);
    }
    assert_eq!(second.header("idempotency-replayed"), "", "a part of it was done now");
    let third = send(&app, "parts", &body, false).await;
    assert_eq!(
        (unmarked(&third), third.header("idempotency-replayed")),
        (unmarked(&second), "true")
    );
    assert_eq!(balances(&app, ["a", "b"]).await, ["7.66".to_owned(), "2.00".to_owned()]);
    app.drain().await;
    app.assert_reconciled();
}

/// Whatever callers call the keys of their own: none of them is the key of a place in a bulk. An
/// operation that met one would be answered and never done.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_of_a_caller_is_that_of_a_place_in_a_bulk() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "100.00").await;
    // The first operation's own key looks like the place of the second.
    for (key, atomic, balance) in [("K", false, "115.00"), ("L", true, "130.00")] {
        let mut operations = [credit("w", "5"), credit("w", "5"), credit("w", "5")];
        operations[0]["idempotencyKey"] = json!(format!("{key}/1"));
        let answer = send(&app, key, &operations, atomic).await;
        assert_eq!(
            (answer.status, answer.text.contains("replayed")),
            (201, false),
            "{}",
            answer.text
        );
        assert_eq!(balances(&app, ["w"]).await, [balance.to_owned()]);
        assert_replayed(&answer, &send(&app, key, &operations, atomic).await);
    }
    // A single route's key looks like a place of a bulk that comes later, and of one that came before.
    for key in ["M/0", "K/2"] {
        let single = app.post_with_key("/wallets/w/credit", key, &json!({"amount": "5"})).await;
        let single = single.unwrap();
        assert_eq!((single.status, single.header("idempotency-replayed")), (201, ""), "{key}");
    }
    let later = send(&app, "M", &[credit("w", "5")], false).await;
    assert_eq!((later.status, later.text.contains("replayed")), (201, false), "{}", later.text);
    assert_eq!(balances(&app, ["w"]).await, ["145.00".to_owned()]);
    app.drain().await;
    app.assert_reconciled();
}
