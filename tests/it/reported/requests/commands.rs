//! A command with several operations by Kafka: one command, one effect, one result.

use rskafka::record::Record;
use serde_json::{Value, json};

use super::{balances, credit, debit};
use crate::commands::{PATIENCE, answered, command, letters, send, start, told};
use crate::dead_letters::wire::{self, header, record};
use crate::support::app::{App, Setup};
use crate::support::eventually;

fn many(id: &str, atomic: bool, operations: &[Value]) -> Value {
    json!({"commandId": id, "op": "bulk", "atomic": atomic, "operations": operations})
}

/// In the partition of a wallet.
fn keyed(wallet: &str, value: &Value) -> Record {
    record(Some(wallet.as_bytes()), Some(value.to_string().as_bytes()))
}

fn statuses(body: &Value) -> Vec<u64> {
    let results = body["results"].as_array().unwrap_or_else(|| panic!("{body}"));
    results.iter().map(|result| result["status"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_with_several_operations_has_one_effect_and_one_result() {
    let app = start(Setup::shared()).await;
    app.open("a", "0").await;
    app.open("b", "0").await;
    let transfer = json!({"op": "transfer", "walletId": "a", "toWalletId": "b", "amount": "3.00"});
    let body = [credit("a", "10.00"), debit("b", "5.00"), credit("later", "1"), transfer];
    let first = many("pay", false, &body);
    send(&app, vec![keyed("a", &first)]).await;
    let result = answered(&app, &["pay"], 1).await["pay"][0].clone();
    assert_eq!(result.status, 201);
    assert_eq!(statuses(&result.body), [201, 400, 404, 201], "{}", result.body);
    assert_eq!(result.body["results"][1]["body"]["requestId"], "pay");
    let events = app.get("/wallets/b/events").await.json();
    assert_eq!(events["events"][1]["causationId"], "pay");

    // Again, although more of it could be done by now: the same to the byte.
    app.open("later", "0").await;
    send(&app, vec![keyed("a", &first)]).await;
    // Under its id stands this command and no other.
    let mut reversed = body.clone();
    reversed.reverse();
    let mut single = credit("a", "10.00");
    single["commandId"] = json!("pay");
    for other in [many("pay", false, &reversed), many("pay", true, &body), single] {
        send(&app, vec![keyed("a", &other)]).await;
    }
    let told_of = answered(&app, &["pay"], 5).await["pay"].clone();
    assert_eq!(told_of[1].record.value, told_of[0].record.value);
    for other in &told_of[2..] {
        assert_eq!((other.status, &other.body["code"]), (422, &json!("idempotency_key_reused")));
    }
    let all = balances(&app, ["a", "b", "later"]).await;
    assert_eq!(all, ["7.00", "3.00", "0.00"].map(str::to_owned));

    // All or none: a refusal is the one result, and stays.
    let none = many("none", true, &[credit("a", "1.00"), debit("b", "50.00")]);
    let done = many("done", true, &[credit("a", "1.00"), debit("b", "1.00")]);
    send(&app, [&none, &done, &done].map(|value| keyed("a", value)).to_vec()).await;
    answered(&app, &["done"], 2).await;
    app.post("/wallets/b/credit", json!({"amount": "100.00"})).await;
    send(&app, vec![keyed("a", &none)]).await;
    let told_of = answered(&app, &["none"], 2).await;
    assert_eq!(told_of["none"][0].status, 400);
    assert_eq!(told_of["none"][0].body["code"], "insufficient_funds");
    assert_eq!(told_of["none"][0].body["errors"][0]["pointer"], "/operations/1");
    for id in ["none", "done"] {
        assert_eq!(told_of[id][0].record.value, told_of[id][1].record.value, "{id}");
    }
    assert_eq!(statuses(&told_of["done"][0].body), [201, 201]);
    let all = balances(&app, ["a", "b"]).await;
    assert_eq!(all, ["8.00", "102.00"].map(str::to_owned));
    assert_eq!(wire::read(&letters(&app)).await, []);
    app.drain().await;
    app.assert_reconciled();
}

/// As the JSON serializer of a schema registry writes it: a zero and the schema's id before the text.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_the_frame_of_a_schema_registry_is_executed() {
    let app = start(Setup::shared()).await;
    app.open("a", "0").await;
    let text = many("framed", false, &[credit("a", "1.00")]).to_string();
    let value = [&[0, 0, 0, 0, 7], text.as_bytes()].concat();
    send(&app, vec![record(Some(b"a"), Some(&value))]).await;
    assert_eq!(answered(&app, &["framed"], 1).await["framed"][0].status, 201);
    assert_eq!(balances(&app, ["a"]).await, ["1.00"]);
}

/// Each is refused unless those before it have been done.
#[tokio::test(flavor = "multi_thread")]
async fn commands_of_one_and_of_several_operations_keep_their_order() {
    let app = start(Setup::shared()).await;
    app.open("w", "0").await;
    app.open("v", "0").await;
    let mut records = Vec::new();
    let mut ids = Vec::new();
    for n in 0..100 {
        let mut single = |id: String, mut operation: Value| {
            operation["commandId"] = json!(id);
            records.push(keyed("w", &operation));
            ids.push(id);
        };
        single(format!("in-{n}"), credit("w", "1.00"));
        let both = many(&format!("over-{n}"), true, &[debit("w", "1.00"), credit("v", "1.00")]);
        single(format!("over-{n}"), both);
        single(format!("out-{n}"), debit("v", "1.00"));
    }
    send(&app, records).await;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let told = answered(&app, &ids, 1).await;
    assert!(told.values().flatten().all(|told| told.status == 201), "{told:?}");
    assert_eq!(balances(&app, ["w", "v"]).await, ["0.00", "0.00"].map(str::to_owned));
}

/// A command is valid or it is not: none of it is done, and its id has not been used.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_with_an_operation_that_is_none_is_a_dead_letter_and_can_be_mended() {
    let app = start(Setup::shared()).await;
    app.open("a", "0").await;
    for atomic in [false, true] {
        let id = format!("form-{atomic}");
        let bad = many(&id, atomic, &[credit("a", "1.00"), credit("a", "-1")]);
        send(&app, vec![keyed("a", &bad)]).await;
        let result = answered(&app, &[id.as_str()], 1).await[&id][0].clone();
        assert_eq!((result.status, &result.body["code"]), (400, &json!("invalid_amount")));
        assert_eq!(result.body["errors"][0]["pointer"], "/operations/1/amount");
        let found = wire::read(&letters(&app)).await;
        let letter = &found.last().unwrap().2;
        assert_eq!(header(letter, "error-class"), "invalid_amount");
        let mended = many(&id, atomic, &[credit("a", "1.00"), credit("a", "1")]);
        send(&app, vec![keyed("a", &mended)]).await;
        let told = answered(&app, &[id.as_str()], 2).await;
        assert_eq!(statuses(&told[&id][1].body), [201, 201]);
    }
    assert_eq!(balances(&app, ["a"]).await, ["4.00"]);
}

/// It waits as a whole, has one result in the end, and what was done of it is not done again.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_done_in_parts_has_one_result_and_is_finished_under_its_id() {
    let app = start(Setup::shared().with("CONSUMER_RETRY_DELAYS_MS", "200,200,200")).await;
    app.open("a", "0").await;
    app.open("b", "0").await;
    let barred =
        "alter table events add constraint barred check (payload ->> 'changeAmount' <> '6.66')";
    sqlx::query(barred).execute(&app.pool).await.unwrap();
    let parts = many("parts", false, &[credit("a", "1.00"), credit("b", "6.66"), credit("b", "2")]);
    send(&app, vec![keyed("a", &parts)]).await;
    let result = answered(&app, &["parts"], 1).await["parts"][0].clone();
    assert_eq!(result.status, 201, "{:?}", result.body);
    assert_eq!(statuses(&result.body), [201, 500, 201]);
    let letter = eventually("the dead letter", PATIENCE, async || {
        wire::read(&letters(&app)).await.into_iter().next()
    })
    .await;
    assert_eq!(header(&letter.2, "error-class"), "internal_error");
    sqlx::query("alter table events drop constraint barred").execute(&app.pool).await.unwrap();
    send(&app, vec![keyed("a", &parts)]).await;
    let told_of = answered(&app, &["parts"], 2).await;
    let again = &told_of["parts"][1].body;
    assert_eq!(statuses(again), [201, 201, 201]);
    assert_eq!(again["results"][0], result.body["results"][0]);
    assert_eq!(balances(&app, ["a", "b"]).await, ["1.00", "8.66"].map(str::to_owned));
    app.drain().await;
    app.assert_reconciled();
}

/// Neither it nor what comes after it on its wallets overtakes the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_several_operations_waits_for_a_held_wallet_and_holds_up_what_follows() {
    let app = start(Setup::shared().with("CONSUMER_RETRY_DELAYS_MS", "1500,1500,1500")).await;
    app.open("held", "0").await;
    app.open("free", "0").await;
    let stranger = held(&app, "held").await;
    let both = many("both", true, &[credit("held", "1.00"), credit("free", "1.00")]);
    let mut after = debit("free", "1.00");
    after["commandId"] = json!("after");
    let other = json!({"commandId": "other", "op": "create", "walletId": "other", "ownerId": "o"});
    send(&app, [keyed("k", &both), keyed("k", &after), keyed("k", &other)].to_vec()).await;
    answered(&app, &["other"], 1).await;
    assert!(!told(&app).await.contains_key("both"), "nothing is decided yet");
    stranger.rollback().await.unwrap();
    let told_of = answered(&app, &["both", "after"], 1).await;
    assert_eq!((told_of["both"][0].status, told_of["after"][0].status), (201, 201), "{told_of:?}");
    assert_eq!(balances(&app, ["held", "free"]).await, ["1.00", "0.00"].map(str::to_owned));
    // What was not refused for its form is no dead letter.
    assert_eq!(wire::read(&letters(&app)).await, []);
    send(&app, vec![command(&after)]).await;
    answered(&app, &["after"], 2).await;
}

async fn held(app: &App, wallet: &str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut stranger = app.pool.begin().await.unwrap();
    let lock = sqlx::query("select from wallets where id = $1 for update").bind(wallet);
    lock.execute(&mut *stranger).await.unwrap();
    stranger
}
