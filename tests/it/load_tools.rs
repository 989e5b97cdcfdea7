//! The load tools find nothing wrong in a service that is right, and name the wallet when somebody
//! altered its ledger by hand.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::app::{App, Setup};

/// Runs a script of this repository to its end.
fn script(name: &str, arguments: &[&str]) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    Command::new("python3").arg("-B").arg(path).args(arguments).output().unwrap()
}

fn quick(arguments: &[&str]) -> Output {
    script("quick_load_test.py", arguments)
}

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wallex")).arg("loadtest").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", said(output)))
}

/// Changes one entry as the database's owner can, behind the service's back.
async fn alter(app: &App, wallet: &str, change: &str) {
    let sql = format!("update postings set {change} where wallet_id = $1 and version = 2");
    let done = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(wallet).execute(&app.pool).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_pass_over_a_service_that_is_right_and_agree_with_its_books() {
    let app = Setup::shared().start().await;
    let passed = loadtest(&[
        "--url",
        &app.base,
        "--operations",
        "300",
        "--wallets",
        "20",
        "--connections",
        "4",
        "--warmup",
        "200ms",
        "--mix",
        "credit=30,debit=60,transfer=10",
        "--spread",
        "hot",
        "--seed",
        "7",
        "--json",
        "-",
    ]);
    assert_exit(&passed, 0);
    let result = json(&passed);
    let total = &result["result"]["operations"]["total"];
    assert_eq!((&total["count"], &total["failed"]), (&300.into(), &0.into()), "{result}");
    assert!(total["declined"].as_u64().unwrap() > 0, "a drained hot wallet declines: {result}");
    assert!(total["latencyMicros"]["p99"].as_u64().unwrap() > 0);
    assert_eq!(result["check"]["wallets"], 20);

    let passed = quick(&[
        "--base-url",
        &app.base,
        "--wallets",
        "20",
        "--operations",
        "300",
        "--fast",
        "--workers",
        "4",
        "--seed",
        "7",
        "--json",
        "-",
    ]);
    assert_exit(&passed, 0);
    let result = json(&passed);
    assert_eq!(result["operations"]["total"]["count"], 300);
    assert_eq!(result["operations"]["total"]["failed"], 0);
    assert!(result["operations"]["total"]["declined"].as_u64().unwrap() > 0);
    assert_eq!(result["check"]["own"]["wallets"], 20);
    assert_eq!(result["check"]["others"]["wallets"], 20, "those of the first tool");
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_begins_as_many_operations_as_the_rate_says() {
    let app = Setup::without_kafka().start().await;
    let passed = loadtest(&[
        "--url",
        &app.base,
        "--rate",
        "50",
        "--duration",
        "2s",
        "--warmup",
        "0",
        "--wallets",
        "5",
        "--spread",
        "zipf",
        "--json",
        "-",
    ]);
    assert_exit(&passed, 0);
    assert_eq!(json(&passed)["result"]["operations"]["total"]["count"], 100);

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let arguments = [
        "--base-url",
        &app.base,
        "--rate",
        "50",
        "--duration",
        "2s",
        "--warmup",
        "0",
        "--wallets",
        "5",
        "--workers",
        "5",
        "--out",
        out,
    ];
    assert_exit(&script("load_test.py", &arguments), 0);
    let report = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert_eq!(report.matches("<svg").count(), 2);
    assert!(!report.contains("http://") && !report.contains("https://"), "a foreign host");
    let series = std::fs::read_to_string(folder.path().join("series.csv")).unwrap();
    assert!(series.starts_with("second,applied,declined,failed,"), "{series}");
    // A threshold that nothing can hold.
    let exceeded = script("load_test.py", &[&arguments[..], &["--max-p99-ms", "0"]].concat());
    assert_exit(&exceeded, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_altered_by_hand_fails_the_check_and_is_named() {
    let app = Setup::without_kafka().start().await;
    let small = ["--base-url", &app.base, "--wallets", "4", "--operations", "40", "--fast"];
    assert_exit(&quick(&[&small[..], &["--run", "altered"]].concat()), 0);
    assert_exit(&loadtest(&["--url", &app.base, "--check-only", "altered"]), 0);

    // Its sum is right, its chain is not.
    alter(&app, "altered-2", "balance_after = balance_after + 1").await;
    // The summary is a running total beside the entries: it does not see this, the chain does.
    alter(&app, "altered-3", "amount = amount + 0.01").await;
    for output in [
        loadtest(&["--url", &app.base, "--check-only", "altered"]),
        // Over the same wallets again, with load.
        loadtest(&["--url", &app.base, "--run", "altered", "--wallets", "4", "--operations", "9"]),
        quick(&["--base-url", &app.base, "--check-only", "altered"]),
        quick(&[&small[..], &["--run", "altered"]].concat()),
        // A run of its own still looks at the wallets of others.
        quick(&small),
    ] {
        assert_exit(&output, 1);
        let said = said(&output);
        assert!(said.contains("wallet altered-2: entry of version 2"), "{said}");
        assert!(said.contains("wallet altered-3: entry of version 2"), "{said}");
        assert!(!said.contains("wallet altered-1"), "{said}");
    }
    assert_exit(&loadtest(&["--url", &app.base, "--check-only", "no-such-run"]), 1);
}

#[test]
fn no_service_is_3_and_a_wrong_word_is_2() {
    // Nothing listens on port 1.
    assert_exit(&loadtest(&["--url", "http://127.0.0.1:1"]), 3);
    assert_exit(&quick(&["--base-url", "http://127.0.0.1:1"]), 3);
    assert_exit(&script("load_test.py", &["--base-url", "http://127.0.0.1:1"]), 3);
    assert_exit(&loadtest(&["--mix", "fees=1"]), 2);
    assert_exit(&loadtest(&["--url", "127.0.0.1:3000"]), 2);
    assert_exit(&loadtest(&["--duration", "1s", "--operations", "1"]), 2);
    assert_exit(&quick(&["--wallets", "1"]), 2);
    assert_exit(&quick(&["--base-url", "127.0.0.1:3000"]), 2);
    assert_exit(&script("load_test.py", &["--mix", "fees=1"]), 2);
}
