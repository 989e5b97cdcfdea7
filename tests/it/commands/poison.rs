//! What is no command: kept whole with its cause on the topic of the dead letters, told to its sender
//! where its id can be read, and in nobody's way.

use rskafka::record::Record;
use serde_json::json;
use wallex::envelope::partition_of;

use super::{PARTITIONS, PATIENCE, answered, command, commands, letters, send, start, told};
use crate::dead_letters::wire::{self, header, record};
use crate::support::app::Setup;
use crate::support::eventually;
use crate::support::load::Draw;
use crate::support::servers::kafka_tool;

const KEY: &str = "w";

/// The kinds: what it is, the class of the error, whether its id can be read, the record.
fn poison() -> Vec<(&'static str, &'static str, bool, Record)> {
    let bytes = |value: &[u8]| record(Some(KEY.as_bytes()), Some(value));
    let text = |value: &str| bytes(value.as_bytes());
    let large = format!(r#"{{"commandId":"large","x":"{}"}}"#, "x".repeat(1024 * 1024));
    vec![
        ("no UTF-8", "invalid_utf8", false, bytes(b"{\"commandId\":\"\xff\xfe\"}")),
        ("no JSON", "malformed_json", false, text(r#"{"commandId":"#)),
        ("no object", "invalid_value", false, text("[1]")),
        ("no value", "empty_value", false, record(Some(KEY.as_bytes()), None)),
        ("no bytes, no key", "empty_value", false, record(None, Some(b""))),
        ("too large", "too_large", false, text(&large)),
        (
            "no id",
            "missing_field",
            false,
            text(r#"{"op":"credit","walletId":"w","amount":"1.00"}"#),
        ),
        (
            "an id that cannot be one",
            "invalid_idempotency_key",
            false,
            text(r#"{"commandId":"a b","op":"credit","walletId":"w","amount":"1.00"}"#),
        ),
        (
            "an unknown operation",
            "invalid_value",
            true,
            text(r#"{"commandId":"id","op":"burn","walletId":"w","amount":"1.00"}"#),
        ),
        (
            "an unknown field",
            "unknown_field",
            true,
            text(r#"{"commandId":"id","op":"credit","walletId":"w","amount":"1.00","x":1}"#),
        ),
        (
            "a bad amount",
            "invalid_amount",
            true,
            text(r#"{"commandId":"id","op":"credit","walletId":"w","amount":"-1.00"}"#),
        ),
        (
            "no amount",
            "missing_field",
            true,
            text(r#"{"commandId":"id","op":"credit","walletId":"w"}"#),
        ),
        (
            "a wrong type",
            "invalid_value",
            true,
            text(r#"{"commandId":"id","op":"credit","walletId":7,"amount":"1.00"}"#),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_of_every_kind_goes_to_the_dead_letters_with_its_cause() {
    let app = start(Setup::shared()).await;
    app.open(KEY, "0").await;
    let home = partition_of(KEY, PARTITIONS);
    let mut sent = Vec::new();
    for (number, (name, class, has_id, record)) in poison().into_iter().enumerate() {
        let id = format!("p-{number}");
        let mut record = record;
        if has_id {
            let text = String::from_utf8(record.value.unwrap()).unwrap();
            record.value = Some(text.replace(r#""id""#, &format!("\"{id}\"")).into_bytes());
        }
        let offset = wire::produce(&commands(&app), home, vec![record.clone()]).await;
        sent.push((name, class, has_id.then_some(id), offset, record));
    }
    let last = json!({"commandId": "last", "op": "credit", "walletId": KEY, "amount": "1.00"});
    send(&app, vec![command(&last)]).await;
    // What comes after it is executed.
    answered(&app, &["last"], 1).await;
    let told = told(&app).await;
    let letters = wire::read(&letters(&app)).await;
    for (name, class, id, offset, original) in &sent {
        let at = |letter: &&(i32, i64, Record)| {
            header(&letter.2, "original-offset") == offset.to_string()
        };
        let copies: Vec<&Record> = letters.iter().filter(at).map(|(_, _, r)| r).collect();
        let [copy] = copies[..] else { panic!("{name}: {copies:?}") };
        assert_eq!((&copy.key, &copy.value), (&original.key, &original.value), "{name}");
        for (header_name, text) in [
            ("from", "a stranger"),
            ("original-topic", commands(&app).as_str()),
            ("original-partition", &home.to_string()),
            ("error-class", class),
            ("attempts", "1"),
            ("replay-count", "0"),
        ] {
            assert_eq!(header(copy, header_name), text, "{name}: {header_name}");
        }
        for header_name in ["failed-at", "error-message"] {
            assert!(!header(copy, header_name).is_empty(), "{name}: {header_name}");
        }
        if let Some(id) = id {
            let [result] = &told[id][..] else { panic!("{name}: {told:?}") };
            assert_eq!((result.status, &result.body["code"]), (400, &json!(class)), "{name}");
        }
    }
    let named = sent.iter().filter(|(_, _, id, _, _)| id.is_some()).count();
    assert_eq!((letters.len(), told.len()), (sent.len(), named + 1));
    assert_eq!(app.get("/wallets/w").await.json()["balance"], "1.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_has_no_room_among_the_dead_letters_leaves_its_place_there() {
    let app = start(Setup::shared()).await;
    app.open(KEY, "0").await;
    // As with a record of the largest size that the topic takes: with our headers it is too large.
    let alter = ["--alter", "--add-config", "max.message.bytes=2000", "--topic", &letters(&app)];
    let output = tokio::task::block_in_place(|| kafka_tool("kafka.admin.ConfigCommand", &alter));
    assert!(output.status.success(), "{output:?}");
    let mut draw = Draw(1);
    let value: Vec<u8> = (0..10_000).map(|_| draw.below(256) as u8).collect();
    // The broker follows a moment after the tool.
    eventually("the topic takes nothing as large", PATIENCE, async || {
        let probe = record(None, Some(&value));
        wire::offer(&letters(&app), 0, probe).await.is_err().then_some(())
    })
    .await;
    let home = partition_of(KEY, PARTITIONS);
    let large = record(Some(KEY.as_bytes()), Some(&value));
    let offset = wire::produce(&commands(&app), home, vec![large]).await;
    let after = json!({"commandId": "after", "op": "credit", "walletId": KEY, "amount": "1.00"});
    send(&app, vec![command(&after)]).await;
    answered(&app, &["after"], 1).await;
    let letter = eventually("the dead letter", PATIENCE, async || {
        let mut letters = wire::read(&letters(&app)).await.into_iter().map(|(_, _, record)| record);
        letters.rfind(|record| record.headers.contains_key("original-offset"))
    })
    .await;
    assert_eq!((letter.key.as_deref(), &letter.value), (Some(KEY.as_bytes()), &None));
    assert_eq!(header(&letter, "from"), "a stranger");
    assert_eq!(header(&letter, "original-offset"), offset.to_string());
    assert_eq!(header(&letter, "error-class"), "invalid_utf8");
    assert_eq!(header(&letter, "value-left-out"), value.len().to_string());
}
