//! The money, held against a model in another language: random histories are played against the
//! service, and every answer, event, entry and row is what `tests/model` comes to by itself.
//!
//! 200 histories, or 10,000 with `WALLEX_TEST_FULL=1`; `WALLEX_MODEL_SEED` is the first one's seed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use wallex::projector::Projection;

use crate::support::app::{App, Setup};

/// What a run must have exercised: a service that lost one of its routes would pass otherwise.
const DEMANDED: &str = "create,credit,debit,transfer,hold,adjust,capture,release,freeze,suspend,\
                        activate,close,limits,metadata";

fn model(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model").join(file)
}

fn python(arguments: &[&str], file: &str) -> Output {
    let output = Command::new("python3").arg("-B").arg(model(file)).args(arguments).output();
    output.unwrap_or_else(|error| panic!("the model needs python3, which cannot be run: {error}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The worked examples of the specification: what the model itself must be right about.
#[test]
fn the_model_comes_to_the_figures_of_the_worked_examples() {
    let output = python(&[], "examples.py");
    assert!(output.status.success(), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_event_entry_and_row_is_what_the_model_has() {
    let full = setting("WALLEX_TEST_FULL").is_some_and(|full| full == "1");
    let histories = if full { "10000" } else { "200" };
    let today = format!("{}", std::process::id());
    let seed = setting("WALLEX_MODEL_SEED").unwrap_or(if full { today } else { "1".to_owned() });
    let app = Setup::without_kafka().with("LOG_LEVEL", "warn").start().await;
    let folder = tempfile::tempdir().unwrap();
    let expect = folder.path().join("expect.json");
    let output = tokio::task::block_in_place(|| {
        python(
            &[
                "--url",
                &app.base,
                "--histories",
                histories,
                "--seed",
                &seed,
                "--demand",
                DEMANDED,
                "--expect",
                &expect.to_string_lossy(),
            ],
            "",
        )
    });
    println!("{}", said(&output));
    assert!(output.status.success(), "{}", said(&output));
    let expected: Value = serde_json::from_slice(&std::fs::read(&expect).unwrap()).unwrap();
    app.drain().await;
    entries_sum_to_zero(&app).await;
    rows_are(&app, &expected).await;
    app.assert_reconciled();
    for projection in Projection::ALL {
        let rebuilt = app.wallex(&["projections", "rebuild", projection.word, "--yes"]);
        assert!(rebuilt.status.success(), "{}", said(&rebuilt));
    }
    entries_sum_to_zero(&app).await;
    rows_are(&app, &expected).await;
}

/// Per event and per currency.
async fn entries_sum_to_zero(app: &App) {
    let contradictions: Vec<String> = sqlx::query_scalar(
        "select event_id || ' ' || currency from ledger_entries group by event_id, currency \
         having sum(case side when 'DEBIT' then amount else -amount end) <> 0 \
         union all select currency from ledger_entries group by currency \
         having sum(case side when 'DEBIT' then amount else -amount end) <> 0",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert!(contradictions.is_empty(), "{contradictions:?}");
}

/// The read model has every wallet as the model has it, and each system account what went through it.
async fn rows_are(app: &App, expected: &Value) {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select id, json_build_object('balance', balance::text, 'held_balance', held_balance::text, \
         'overdraft_limit', overdraft_limit::text, 'status', status, 'version', version)::text \
         from wallets_read_model",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let wallets = expected["wallets"].as_object().unwrap();
    assert_eq!(rows.len(), wallets.len());
    for (id, row) in rows {
        let (row, wallet): (Value, &Value) = (serde_json::from_str(&row).unwrap(), &wallets[&id]);
        for (field, value) in wallet.as_object().unwrap() {
            let same = same(&row[field], value);
            assert!(same, "{id} in the read model: {row}, expected {wallet}");
        }
    }
    let sums: Vec<(String, String)> = sqlx::query_as(
        "select account || ' ' || currency, \
         sum(case side when 'CREDIT' then amount else -amount end)::text from ledger_entries \
         where wallet_id is null group by account, currency",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    for (account, sum) in &sums {
        let sum = Value::String(sum.clone());
        let expected = &expected["accounts"][account];
        assert!(same(&sum, expected), "{account}: {sum}, expected {expected}");
    }
    let moved = expected["accounts"].as_object().unwrap();
    assert_eq!(sums.len(), moved.len(), "{sums:?}, expected {moved:?}");
}

/// As decimals, where both are texts: `12.3` is `12.30`.
fn same(row: &Value, expected: &Value) -> bool {
    let decimal = |value: &Value| value.as_str()?.parse::<rust_decimal::Decimal>().ok();
    match (decimal(row), decimal(expected)) {
        (Some(row), Some(expected)) => row == expected,
        _ => row == expected,
    }
}
