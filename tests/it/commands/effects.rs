//! What a command does and what its sender is told: as the same operation over HTTP, once for ever.

use serde_json::{Value, json};

use super::{PATIENCE, answered, command, commands, retry, send, start};
use crate::dead_letters::wire::header;
use crate::groups;
use crate::support::app::{App, Setup};
use crate::support::eventually;

async fn balance(app: &App, wallet: &str) -> Value {
    app.get(&format!("/wallets/{wallet}")).await.json()["balance"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_executed_in_order_and_answered_as_over_http() {
    let app = start(Setup::shared()).await;
    let create = json!({"commandId": "create-a", "op": "create", "walletId": "a", "ownerId": "o",
                        "initialBalance": "10.00"});
    send(&app, vec![command(&create)]).await;
    let other = json!({"commandId": "create-b", "op": "create", "walletId": "b", "ownerId": "o"});
    let nameless = json!({"commandId": "create-c", "op": "create", "ownerId": "o"});
    send(&app, vec![command(&other), command(&nameless)]).await;
    answered(&app, &["create-a", "create-b", "create-c"], 1).await;

    // One wallet's commands in a row: each meets the state that the one before left.
    let mut credit = command(&json!({"commandId": "credit", "op": "credit", "walletId": "a",
                                     "amount": 5, "reference": "order-7"}));
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    credit.headers.insert("correlation-id".to_owned(), b"saga-1".to_vec());
    credit.headers.insert("traceparent".to_owned(), traceparent.as_bytes().to_vec());
    let rest = [
        json!({"commandId": "debit", "op": "debit", "walletId": "a", "amount": "14.00"}),
        json!({"commandId": "refused", "op": "debit", "walletId": "a", "amount": "1.01"}),
        json!({"commandId": "transfer", "op": "transfer", "walletId": "a", "toWalletId": "b",
               "amount": "1.00"}),
    ];
    send(&app, [credit].into_iter().chain(rest.iter().map(command)).collect()).await;
    let told = answered(&app, &["credit", "debit", "refused", "transfer"], 1).await;
    let of = |id: &str| (told[id][0].status, &told[id][0].body);
    assert_eq!(of("create-a").1["balance"], "10.00");
    assert!(uuid::Uuid::parse_str(of("create-c").1["id"].as_str().unwrap()).is_ok());
    for (id, after) in [("credit", "15.00"), ("debit", "1.00")] {
        assert_eq!((of(id).0, &of(id).1["balance"]), (201, &json!(after)), "{told:?}");
        assert!(of(id).1["transactionId"].is_string());
    }
    // A refusal is a result like any other.
    assert_eq!((of("refused").0, &of("refused").1["code"]), (400, &json!("insufficient_funds")));
    assert_eq!(of("refused").1["requestId"], "refused");
    assert_eq!((of("transfer").0, &of("transfer").1["toWallet"]["balance"]), (201, &json!("1.00")));
    assert_eq!(
        (balance(&app, "a").await, balance(&app, "b").await),
        (json!("0.00"), json!("1.00"))
    );

    // What the sender hands on goes through, into the events and back to it.
    let result = &told["credit"][0].record;
    assert_eq!(
        (header(result, "correlation-id"), header(result, "traceparent")),
        ("saga-1".into(), traceparent.into())
    );
    let events = app.get("/wallets/a/events").await.json();
    let credited = &events["events"][2];
    assert_eq!(
        (&credited["correlationId"], &credited["causationId"], &credited["data"]["reference"]),
        (&json!("saga-1"), &json!("credit"), &json!("order-7"))
    );

    // The topics are among those that the service looks after.
    let listed = app.wallex(&["topics", "list", "--json"]).stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    for name in [commands(&app), retry(&app, "5min")] {
        assert!(listed.contains(&format!("\"{name}\"")), "{name}: {listed}");
    }
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_comes_again_has_no_second_effect_and_the_first_answer() {
    let app = start(Setup::shared()).await;
    app.open("w", "10.00").await;
    let credit = json!({"commandId": "once", "op": "credit", "walletId": "w", "amount": "1.00"});
    let lost = json!({"commandId": "lost", "op": "credit", "walletId": "nobody", "amount": 1});
    send(&app, vec![command(&credit), command(&credit), command(&lost)]).await;
    answered(&app, &["lost"], 1).await;
    // What was refused stays so, also where it could be done by now: its sender has read the no.
    app.open("nobody", "0").await;
    send(&app, vec![command(&credit), command(&lost)]).await;
    answered(&app, &["once"], 3).await;
    let told = answered(&app, &["lost"], 2).await;
    for (id, status) in [("once", 201), ("lost", 404)] {
        let values: Vec<_> = told[id].iter().map(|told| &told.record.value).collect();
        assert!(values.iter().all(|value| *value == values[0]), "to the byte: {told:?}");
        assert_eq!(told[id][0].status, status);
    }
    assert_eq!(
        (balance(&app, "w").await, balance(&app, "nobody").await),
        (json!("11.00"), json!("0.00"))
    );

    // The id stands for this command and no other, on whatever wallet.
    for (id, other) in [
        ("more", json!({"walletId": "w", "amount": "2.00"})),
        ("elsewhere", json!({"walletId": "nobody", "amount": "1.00"})),
    ] {
        let mut other = other;
        other["commandId"] = json!("once");
        other["op"] = json!("credit");
        send(&app, vec![command(&other)]).await;
        let wanted = if id == "more" { 4 } else { 5 };
        let told = answered(&app, &["once"], wanted).await;
        let reused = told["once"].iter().filter(|told| told.status == 422).collect::<Vec<_>>();
        assert_eq!(reused.len(), wanted - 3, "{told:?}");
        assert_eq!(reused[0].body["code"], "idempotency_key_reused");
    }
    assert_eq!(balance(&app, "w").await, "11.00");

    // A key of HTTP is another key, though its text is the same.
    let body = json!({"amount": "1.00"});
    let answer = app.post_with_key("/wallets/w/credit", "once", &body).await.unwrap();
    assert_eq!((answer.status, answer.header("idempotency-replayed")), (201, ""));
    assert_eq!(balance(&app, "w").await, "12.00");
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_is_shown_and_a_reset_repeats_answers_and_no_effect() {
    let app = start(Setup::shared()).await;
    app.open("w", "0").await;
    let ids: Vec<String> = (0..20).map(|n| format!("c-{n}")).collect();
    let records = ids.iter().map(|id| {
        command(&json!({"commandId": id, "op": "credit", "walletId": "w", "amount": "1.00"}))
    });
    send(&app, records.collect()).await;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    answered(&app, &ids, 1).await;
    let (group, topic) = (app.group("wallex-commands"), commands(&app));
    eventually("the tool shows the group at the end of its topic", PATIENCE, async || {
        let rows = groups::described_of(&group, &topic);
        let done: i64 = rows.values().map(|[current, _, _]| current).sum();
        (rows.len() == 10 && done == 20 && rows.values().all(|[.., lag]| *lag == 0)).then_some(())
    })
    .await;
    let health = app.get("/health/kafka").await.json();
    let idle = json!({"state": "running", "lag": 0, "lagMs": 0, "more": false});
    assert_eq!(health["consumers"][&group], idle);

    // The tool wants a group that nobody has joined, and so it is.
    let reset =
        ["--reset-offsets", "--group", &group, "--topic", &topic, "--execute", "--to-earliest"];
    groups::tool(&reset);
    let again = answered(&app, &ids, 2).await;
    for id in ids {
        assert_eq!(again[id][0].record.value, again[id][1].record.value, "{id}");
    }
    assert_eq!(balance(&app, "w").await, "20.00");
    let metrics = app.get("/metrics").await.text;
    for outcome in ["applied", "replayed"] {
        let line = format!("commands_consumed_total{{outcome=\"{outcome}\"}} 20");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}
