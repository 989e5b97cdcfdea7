//! Old months go to files and come back: the books stay right meanwhile, what is gone is answered with where it is,
//! and a kill leaves a month attached or archived, never half.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use wallex::republisher;
use wallex::store::outbox::republish::RepublishSelector;
use wallex::wallet::TenantId;

use crate::support::app::{App, Setup};

/// Wallets with six events each, of which two were four months ago and two three months ago.
async fn old_books() -> App {
    let app = Setup::without_kafka().start().await;
    for wallet in ["w", "v"] {
        app.open(wallet, "10.00").await;
        for amount in ["1.00", "2.00", "3.00", "4.00"] {
            app.post(&format!("/wallets/{wallet}/credit"), json!({"amount": amount})).await;
        }
    }
    app.open("young", "7.00").await;
    app.drain().await;
    let back = "case when version <= 2 then interval '4 months' when version <= 4 then interval '3 months' \
        else interval '0' end";
    run(
        &app,
        &format!(
            "select wallex_add_month(t, now() - n * interval '1 month') \
                 from unnest(array['events', 'postings']) t, generate_series(1, 5) n; \
             update events set created_at = created_at - {back} where wallet_id <> 'young'; \
             update postings set created_at = created_at - {back} where wallet_id <> 'young'; \
             delete from outbox_batches; \
             insert into outbox_purges (tenant_id, purged_through) values ('default', now()) \
                 on conflict on constraint outbox_purges_pkey do update set purged_through = now(); \
             update wallets w set created_at = e.created_at from events e \
                 where e.wallet_id = w.id and e.version = 1; \
             update wallets_read_model w set created_at = e.created_at from events e \
                 where e.wallet_id = w.id and e.version = 1"
        ),
    )
    .await;
    app.assert_reconciled();
    app
}

async fn run(app: &App, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&app.pool).await.unwrap();
}

async fn text(app: &App, sql: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&app.pool).await.unwrap()
}

/// All rows of the books.
async fn rows(app: &App) -> String {
    text(
        app,
        "select md5(string_agg(r, '|' order by r)) from (select e::text as r from events e \
         union all select p::text from postings p) r",
    )
    .await
}

fn archive(app: &App, arguments: &[&str]) -> (bool, String) {
    let output = app.wallex(&[&["archive"], arguments].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn months(app: &App) -> Vec<(String, bool)> {
    let output = app.wallex(&["archive", "list", "--json"]);
    let months: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of = |month: &Value| {
        (month["name"].as_str().unwrap().to_owned(), month["archived"].as_bool().unwrap())
    };
    months.iter().map(of).collect()
}

fn moved(app: &App, what: &str, month: &str, dir: &Path) -> (bool, String) {
    let mut arguments = vec![what, month, "--dir", dir.to_str().unwrap()];
    if what == "detach" {
        arguments.push("--yes");
    }
    archive(app, &arguments)
}

#[track_caller]
fn assert_done((done, said): (bool, String)) {
    assert!(done, "{said}");
}

#[track_caller]
fn assert_refused((done, said): (bool, String), why: &str) {
    assert!(!done && said.contains(why), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn months_go_to_files_and_come_back_and_the_books_are_right_all_the_while() {
    let app = old_books().await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let before = rows(&app).await;
    let months_before = months(&app);
    let names: Vec<&str> = months_before.iter().map(|(name, _)| &**name).collect();
    assert!(months_before.iter().all(|(_, archived)| !archived) && names.len() >= 6, "{names:?}");
    let summary = app.get("/ledger/wallet/w/summary").await.json();

    assert_refused(moved(&app, "detach", names[1], dir), &format!("{} is older", names[0]));
    assert_refused(moved(&app, "detach", "1999_01", dir), "there is no month 1999_01");
    // The fifth month back is empty, the next two have events.
    for name in &names[..3] {
        assert_done(moved(&app, "detach", name, dir));
        assert_done(moved(&app, "verify", name, dir));
        app.assert_reconciled();
    }
    assert_refused(moved(&app, "detach", names[2], dir), "is archived already");
    assert_eq!(months(&app).iter().filter(|(_, archived)| *archived).count(), 3);
    let (listed, said) = archive(&app, &["list"]);
    assert!(listed && said.contains("archived") && said.contains(dir.to_str().unwrap()), "{said}");

    // What is gone is said to be, and what is left goes on.
    let gone = app.get("/wallets/w/events?afterVersion=0").await;
    assert_eq!((gone.status, gone.code().as_str()), (410, "archived"));
    assert!(gone.json()["detail"].as_str().unwrap().contains(names[2]), "{}", gone.text);
    let moment = text(
        &app,
        "select to_char(now() - interval '3 months 15 days', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    )
    .await;
    let then = app.get(&format!("/wallets/w/balance?at={moment}")).await;
    assert!(then.status == 410 || then.json()["balance"] == json!("10.00"), "{}", then.text);
    let left = app.get("/wallets/w/events?afterVersion=4").await.json();
    assert_eq!(left["events"].as_array().unwrap().len(), 2);
    let young = app.get("/wallets/young/events").await;
    assert_eq!(young.status, 200);
    assert_eq!(
        app.get("/ledger/wallet/w/summary").await.json()["totalCredits"],
        summary["totalCredits"]
    );
    assert_eq!(app.get("/ledger/wallet/w").await.json()["count"], 2);
    let more = app.post("/wallets/w/credit", json!({"amount": "5.00"})).await.json();
    assert_eq!((&more["version"], &more["balance"]), (&json!(7), &json!("25.00")));
    app.post("/wallets/w/transfer", json!({"toWalletId": "v", "amount": "1.00"})).await;
    app.drain().await;
    app.assert_reconciled();
    let rebuild = app.wallex(&["projections", "rebuild", "ledger", "--yes"]);
    let said = String::from_utf8_lossy(&rebuild.stderr).into_owned();
    assert!(!rebuild.status.success() && said.contains("archive attach"), "{said}");
    let tenant = TenantId::default_tenant();
    let again = republisher::ask(&app.pool, &tenant, &RepublishSelector::All, true).await;
    assert!(again.unwrap_err().to_string().contains("archive attach"));

    // Back, the last one first.
    assert_refused(moved(&app, "attach", names[0], dir), "bring that back first");
    for name in names[..3].iter().rev() {
        assert_done(moved(&app, "attach", name, dir));
        assert_done(moved(&app, "verify", name, dir));
        app.assert_reconciled();
    }
    run(&app, "delete from events where created_at > now() - interval '1 hour' and version > 6")
        .await;
    run(&app, "delete from postings where created_at > now() - interval '1 hour' and version > 6")
        .await;
    assert_eq!(rows(&app).await, before);
    assert_eq!(text(&app, "select count(*)::text from archived_wallets").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_changed_is_neither_brought_back_nor_taken_for_whole() {
    let app = old_books().await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let oldest: Vec<String> = months(&app).into_iter().map(|(name, _)| name).take(2).collect();
    for name in &oldest {
        assert_done(moved(&app, "detach", name, dir));
    }
    let month = &*oldest[1];
    let file = dir.join(format!("wallex_postings_{month}.copy.zst"));
    let whole = std::fs::read(&file).unwrap();
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&file, &changed).unwrap();
    assert_refused(moved(&app, "verify", month, dir), "another copy");
    assert_refused(moved(&app, "attach", month, dir), "another copy");
    std::fs::remove_file(&file).unwrap();
    assert_refused(moved(&app, "attach", month, dir), "put the file back");
    std::fs::write(&file, &whole).unwrap();
    // A manifest that says something else, and is whole in itself.
    let manifest = dir.join(format!("wallex_{month}.json"));
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"format\": 1", "\"format\":  1")).unwrap();
    assert_refused(moved(&app, "attach", month, dir), "not the manifest that was noted");
    std::fs::write(&manifest, text).unwrap();
    assert_done(moved(&app, "attach", month, dir));
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_leaves_the_month_attached_or_archived() {
    let app = old_books().await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let empty = months(&app)[0].0.clone();
    assert_done(moved(&app, "detach", &empty, dir));
    let month = months(&app)[1].0.clone();
    let before = rows(&app).await;
    let mut ended = [0, 0];
    // How long each takes that is not killed.
    let mut takes = [Duration::ZERO; 2];
    for (n, what) in ["detach", "attach"].into_iter().enumerate() {
        let begun = Instant::now();
        assert_done(moved(&app, what, &month, dir));
        takes[n] = begun.elapsed();
    }
    for step in 0..10 {
        for (n, what) in ["detach", "attach"].into_iter().enumerate() {
            let mut command = Command::new(env!("CARGO_BIN_EXE_wallex"));
            command.args(["archive", what, &month, "--dir", dir.to_str().unwrap()]);
            if what == "detach" {
                command.arg("--yes");
            }
            command.envs(app.variables()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std::thread::sleep(takes[n] * step / 7);
            child.kill().unwrap();
            child.wait().unwrap();
            // Its session may still be at it.
            let idle = "select count(*)::text from pg_stat_activity where datname = current_database() \
                and application_name = 'wallex-owner'";
            while text(&app, idle).await != "0" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let archived = months(&app)[1].1;
            ended[usize::from(archived)] += 1;
            app.assert_reconciled();
            let gone = app.get("/wallets/w/events?afterVersion=0").await.status;
            assert_eq!(gone, if archived { 410 } else { 200 });
            if !archived {
                assert_eq!(rows(&app).await, before);
            }
        }
    }
    assert!(ended[0] > 0 && ended[1] > 0, "{ended:?}");
}
